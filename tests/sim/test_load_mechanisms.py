"""Mechanisms: files as maintainers write them, and the two that are shipped."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sim import library, mechanisms
from sim.errors import BadInput
from sim.mechanisms import snapcore

SITE = """
mechanism: 1
name: site-initscript
install:
  - {from: networking-config.sh, to: /etc/init.d/networking-config, mode: "0755"}
  - {from: defaults, to: /etc/default/networking-config}
replace: {"@sysconfdir@": /etc, "@localstatedir@": /var}
begin: /etc/init.d/networking-config change-begin
commit: /etc/init.d/networking-config change-commit
rollback: /etc/init.d/networking-config change-rollback
boot: /etc/init.d/networking-config start
status: /etc/init.d/networking-config status
wrong-state: 42
state: [/var/lib/networking-config]
covers: [files]
offers: [timeout]
"""


def site(folder: Path, text: str = SITE) -> Path:
    (folder / "networking-config.sh").write_text("#!/bin/sh\ncp @sysconfdir@/x @localstatedir@/y\n")
    (folder / "defaults").write_text("A=1\n")
    (folder / "defaults").chmod(0o640)
    (folder / "site.yaml").write_text(text)
    return folder / "site.yaml"


def test_a_mechanism_file_is_read_whole(tmp_path: Path) -> None:
    mechanism = mechanisms.from_file(site(tmp_path))
    script = mechanism.install["/etc/init.d/networking-config"]
    assert (script.content, script.mode) == (b"#!/bin/sh\ncp /etc/x /var/y\n", 0o755)
    assert mechanism.install["/etc/default/networking-config"].mode == 0o640
    assert mechanism.rollback == "/etc/init.d/networking-config change-rollback"
    assert (mechanism.name, mechanism.wrong_state, mechanism.stack) == ("site-initscript", 42, None)
    assert (mechanism.state, mechanism.covers, mechanism.offers) == (
        ("/var/lib/networking-config",),
        ("files",),
        ("timeout",),
    )
    assert mechanism.extra == {"status": "/etc/init.d/networking-config status"}


def test_it_is_found_by_file_and_by_name_beside_a_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = site(tmp_path)
    assert library.find_mechanism(str(file)).name == "site-initscript"
    assert library.find_mechanism("site", tmp_path).name == "site-initscript"
    monkeypatch.chdir(tmp_path)
    assert library.find_mechanism("site.yaml").name == "site-initscript"


def test_a_verb_that_is_not_named_is_not_offered(tmp_path: Path) -> None:
    mechanism = mechanisms.from_file(site(tmp_path, "mechanism: 1\nname: little\nbegin: save\n"))
    assert (mechanism.begin, mechanism.boot, mechanism.wrong_state) == ("save", None, 199)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mechanism: 1", "mechanism: 2", "site.yaml:2:12: mechanism: 2 is out of range"),
        ("name: site-initscript\n", "", "site.yaml:2:1: lacks the key 'name'"),
        ("begin:", "begn:", "unknown key 'begn'; did you mean 'begin'?"),
        ("to: /etc/default", "to: etc/default", "'etc/default/networking-config' is no absolute path"),
        ("from: defaults", "from: default", "site.yaml:6:12: "),
        ('mode: "0755"', "mode: rwx", "mode: 'rwx'; valid: an octal mode"),
        ("wrong-state: 42", "wrong-state: 256", "256 is out of range"),
        ("covers: [files]", "covers: [file]", "unknown part 'file'; did you mean 'files'?"),
        ("covers: [files]", "covers: [files]\nstack: no-such", "unknown stack 'no-such'"),
        ("offers: [timeout]", "offers: [time-out]", "did you mean 'timeout'?"),
        ("begin: /etc/init.d/networking-config change-begin", "begin: [a, b]", "begin: is a list; valid: a command"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SITE
    with pytest.raises(BadInput) as caught:
        mechanisms.from_file(site(tmp_path, SITE.replace(old, new)))
    assert len(caught.value.mistakes) == 1
    assert message in str(caught.value)


def test_none_offers_every_verb_and_keeps_nothing() -> None:
    none = library.find_mechanism("none")
    assert {none.begin, none.commit, none.rollback, none.boot} == {"true"}
    assert (none.state, none.install) == ((), {})


def test_snapcore_is_installed_with_a_program_that_starts_it(tmp_path: Path) -> None:
    mechanism = library.find_mechanism("snapcore")
    if mechanism.missing:
        pytest.skip(mechanism.missing)
    assert mechanism.install[snapcore.PROGRAM].mode == 0o755
    archive = tmp_path / "lib/snapcore.pyz"
    for path, file in mechanism.install.items():
        place = Path(path.replace(snapcore.ARCHIVE, str(archive)).replace("/usr/sbin", str(tmp_path)))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((file.content or b"").replace(snapcore.ARCHIVE.encode(), str(archive).encode()))
        place.chmod(file.mode)
    run = subprocess.run([tmp_path / "snapcore", "--version"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
