"""What surrounds the verbs: init files, the Python API, the single file, manual and completions."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from snapcore_hosts import HostTree, change

import snapcore
from snapcore import bundle, cli, initfiles, manual
from snapcore.errors import RolledBackInstead, WrongState
from snapcore.usage import VERBS

Program = Callable[..., "subprocess.CompletedProcess[str]"]


def init_root(tmp_path: Path, *signs: str) -> Path:
    for sign in signs:
        (tmp_path / sign).mkdir(parents=True)
    return tmp_path


def test_the_systemd_unit_is_installed_wanted_and_removed(tmp_path: Path, program: Program) -> None:
    root = init_root(tmp_path, "usr/lib/systemd/system")
    assert program("install-init", "--root", str(root)).returncode == 0
    unit = root / "etc/systemd/system/snapcore.service"
    wants = root / "etc/systemd/system/sysinit.target.wants/snapcore.service"
    text = unit.read_text()
    assert "ExecStart=/usr/bin/snapcore boot" in text and "@" not in text
    assert "Before=network-pre.target" in text and "TimeoutStartSec=" in text and "Requires=" not in text
    assert os.readlink(wants) == "/etc/systemd/system/snapcore.service"
    assert program("install-init", "--root", str(root)).returncode == 0  # again: the same
    assert unit.read_text() == text
    assert program("install-init", "--remove", "--root", str(root)).returncode == 0
    assert not unit.exists() and not wants.is_symlink()


def test_systemd_finds_no_fault_in_the_unit(need: Callable[[str], str], tmp_path: Path) -> None:
    need("systemd-analyze")
    initfiles.install(str(tmp_path), ["systemd"], "/bin/true")
    unit = tmp_path / "etc/systemd/system/snapcore.service"
    done = subprocess.run(["systemd-analyze", "--man=no", "verify", unit], capture_output=True, text=True)
    assert "snapcore.service" not in done.stderr


def test_the_initscript_takes_the_verbs_of_both_proposals(host: HostTree, tmp_path: Path) -> None:
    where = Path(snapcore.__file__).parents[1]
    start = f"import sys; sys.path.insert(0, {str(where)!r}); from snapcore.cli import main; sys.exit(main())"
    command = f"'{sys.executable}' -I -c \"{start}\" --root '{host.root}'"
    root = init_root(tmp_path, "etc/rc.d/init.d")
    (root / "etc/init.d").symlink_to("rc.d/init.d")
    initfiles.install(str(root), [], command)
    script = root / "etc/rc.d/init.d/snapcore"
    assert os.access(script, os.X_OK)
    script.write_text(script.read_text().replace("store=/var/lib", f"store={host.root}/var/lib"))

    def run(verb: str) -> int:
        return subprocess.run(["sh", "-eu", script, verb], capture_output=True).returncode

    old = host.seen()
    assert run("start") == 0 and not host.store.exists()
    assert run("status") == 3
    assert run("change-begin") == 0
    assert run("snapshot_config") == 199
    change(host.root)
    assert run("start") == 0
    assert host.seen() == old
    for begin, end in (("snapshot_config", "rollback_config"), ("change-begin", "change-rollback")):
        assert run(begin) == 0
        change(host.root)
        assert run(end) == 0
        assert host.seen() == old
    for begin, end in (("snapshot_config", "commit_config"), ("change-begin", "change-commit")):
        assert run(begin) == 0
        assert run(end) == 0
    assert run("change-commit") == run("rollback_config") == 199
    assert run("stop") == 0 and run("snapshot-dir") == 0 and run("dance") == 2


@pytest.mark.parametrize("name", ["snapcore.lsb", "snapcore.openrc"])
def test_init_scripts_are_sound_shell(name: str) -> None:
    script = Path(snapcore.__file__).parent / "init" / name
    assert subprocess.run(["sh", "-n", script]).returncode == 0


def started(kind: str, text: str) -> str:
    """What an init system does with a hook, as a shell script that is called with `start`."""
    if kind == "service":
        lines = dict(line.split("=", 1) for line in text.splitlines() if line.startswith("Exec"))
        return f"{lines['ExecCondition'].replace('$$', '$')} && {lines['ExecStart']}"
    return f"{text}\nebegin() {{ :; }}; eend() {{ :; }}; start" if kind == "openrc" else text


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
@pytest.mark.parametrize("kind", ["lsb", "openrc", "service"])
def test_the_boot_hook_passes_over_a_transaction_only_if_there_is_none(
    need: Callable[[str], str], kind: str, shell: str, tmp_path: Path
) -> None:
    words = [need(shell), *(["sh"] if shell == "busybox" else [])]
    hook, called, store = tmp_path / "hook", tmp_path / "called", tmp_path / "store"
    text = (Path(snapcore.__file__).parent / f"init/snapcore.{kind}").read_text()
    text = text.replace("/var/lib/snapcore", str(store)).replace("@COMMAND@", f"touch '{called}'")
    hook.write_text(started(kind, text))

    def calls() -> bool:
        subprocess.run([*words, hook, "start"], capture_output=True, cwd=tmp_path)
        found = called.exists()
        called.unlink(missing_ok=True)
        return found

    assert not calls()
    store.mkdir()
    assert not calls()
    (store / "open").symlink_to("open")  # that can't be opened, which is not the same as: is not there
    assert calls()
    (store / "open").unlink()
    (store / "open").touch()
    assert calls()


def test_without_an_init_system_one_must_be_named(tmp_path: Path, program: Program) -> None:
    done = program("install-init", "--root", str(tmp_path))
    assert done.returncode == 1 and "--init" in done.stderr
    assert program("install-init", "--init", "upstart", "--root", str(tmp_path)).returncode == 2
    assert program("install-init", "--init", "openrc", "--root", str(tmp_path)).returncode == 0
    assert os.readlink(tmp_path / "etc/runlevels/boot/snapcore") == "/etc/init.d/snapcore"


def test_a_block_that_ends_well_commits(host: HostTree) -> None:
    with snapcore.Transaction(root=str(host.root), label="block") as t:
        assert host.run("status") == 0
        t.touch(str(host.scripts / "ifcfg-eth0"))
        change(host.root)
    new = host.seen()
    assert host.run("boot") == 0
    assert host.seen() == new


def test_an_exception_rolls_back_and_is_raised(host: HostTree) -> None:
    old = host.seen()
    with pytest.raises(ZeroDivisionError), snapcore.Transaction(root=str(host.root)) as t:
        change(host.root)
        1 / 0  # noqa: B018  # the exception is what is wanted
    assert host.seen() == old
    assert len(t.undone) > 5


def test_a_block_that_takes_too_long_is_rolled_back(host: HostTree) -> None:
    old = host.seen()
    with pytest.raises(RolledBackInstead), snapcore.Transaction(root=str(host.root), timeout_s=0):
        change(host.root)
    assert host.seen() == old


def test_a_block_inside_another_transaction_is_refused_and_leaves_that_open(host: HostTree) -> None:
    assert host.run("begin") == 0
    with pytest.raises(WrongState), snapcore.Transaction(root=str(host.root)):
        raise AssertionError("never reached")
    assert host.run("status") == 0


def test_the_single_file_does_it_all(host: HostTree, tmp_path: Path) -> None:
    one = tmp_path / "snapcore.pyz"
    bundle.build(str(one))
    again = tmp_path / "again.pyz"
    bundle.build(str(again))
    assert one.read_bytes() == again.read_bytes()

    def run(*words: str) -> int:
        return subprocess.run([sys.executable, "-I", one, *words, "--root", host.root]).returncode

    old = host.seen()
    assert run("begin") == 0
    change(host.root)
    assert run("begin") == 199
    assert run("rollback") == 0
    assert host.seen() == old
    assert run("install-init", "--init", "systemd") == 0


def test_manual_and_completions_know_every_verb_and_option() -> None:
    options = {option.name for verb in VERBS for option in verb.options}
    for text in (manual.man_page(), *(manual.completion(shell) for shell in ("bash", "fish"))):
        for verb in VERBS:
            assert verb.name in text.replace("\\-", "-")
        for option in options:
            assert option[2:] in text.replace("\\-", "-")


BASH = "COMP_WORDS=(snapcore {}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _snapcore; printf '%s\\n' ${{COMPREPLY[@]}}"
FISH = "complete -C 'snapcore {}'"
ZSH = "autoload -Uz compinit; compinit -u -D; PS1=; bindkey -e; print ready\n"
QUESTIONS = [
    ("ro", "rollback"),
    ("begin --pol", "--policy"),
    ("rollback --strategy bo", "bounce-all"),
    ("begin --only l", "lo"),
    ("touch /etc/passw", "/etc/passwd"),
]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_are_sound_scripts(need: Callable[[str], str], shell: str, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(manual.completion(shell))
    assert subprocess.run([need(shell), "-n", script]).returncode == 0


@pytest.mark.parametrize(("typed", "wanted"), QUESTIONS)
@pytest.mark.parametrize(("shell", "question"), [("bash", BASH), ("fish", FISH)])
def test_bash_and_fish_complete(need: Callable[[str], str], shell: str, question: str, typed: str, wanted: str) -> None:
    asked = manual.completion(shell) + question.format(typed)
    done = subprocess.run([need(shell), "-c", asked], capture_output=True, text=True, timeout=60)
    assert wanted in [line.partition("\t")[0] for line in done.stdout.splitlines()], done


def test_zsh_completes(need: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "_snapcore").write_text(manual.completion("zsh"))
    words = ["env", "-i", "TERM=dumb", "PATH=/usr/bin:/bin", f"HOME={tmp_path}", need("zsh"), "-f", "-i"]
    process, terminal = pty.fork()
    if process == 0:
        os.execvp(words[0], words)

    def heard(text: str) -> str:
        """What is printed until this comes, or for ten seconds."""
        said, deadline = "", time.monotonic() + 10
        while text not in said and select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
            said += os.read(terminal, 4096).decode("utf-8", "replace")
        return said

    try:
        os.write(terminal, f"fpath=({tmp_path} $fpath); {ZSH}".encode())
        assert "\nready" in heard("\nready")
        for typed, wanted in QUESTIONS:
            os.write(terminal, f"\x15snapcore {typed}\t".encode())
            line = f"{typed.rpartition(' ')[0]} {wanted}".strip()
            assert f"snapcore {line}" in heard(f"snapcore {line}")
    finally:
        os.close(terminal)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


@pytest.mark.parametrize(
    ("verb", "slow"),
    [("status", {"typing", "re", "json", "hashlib", "ctypes"}), ("begin", {"typing", "configparser", "argparse"})],
)
def test_a_verb_starts_without_what_takes_long_to_load(host: HostTree, verb: str, slow: set[str]) -> None:
    where = str(Path(cli.__file__).parents[1])
    start = f"import sys; sys.path.insert(0, {where!r}); from snapcore.cli import main; main(sys.argv[1:])"
    words = [sys.executable, "-I", "-S", "-c", f"{start}; print(*sys.modules)", verb, "--root", str(host.root)]
    loaded = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert slow.isdisjoint(loaded)
