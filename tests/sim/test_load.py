"""Scenario files are read as they are meant, or refused with one clear message for each mistake."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from made_up_stacks import install

from sim import library
from sim.errors import BadInput
from sim.load import load_all, load_scenario
from sim.scenario import Breaks, Change, Flow, Scenario, Step

BAD = Path(__file__).parent.parent / "data" / "bad"

SHORT = """
sim: 1
name: typo
about: A typo.
source: somewhere
catalogue: [R1, R2]
topology: lan-and-router
change: {config: {ethernets: {eth0: {routes: [{to: default, via: 192.0.2.66}]}}}}
breaks: [server -> internet]
keeps: [server -> client tcp/22 v4 size=5]
recover: [rollback, reboot]
checks: {kernel: false, files: true, reason: it is so}
"""


@pytest.fixture(autouse=True)
def _stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def load(folder: Path, text: str, name: str = "it.sim.yaml") -> Scenario:
    (folder / name).write_text(text)
    return load_scenario(str(folder / name))


def mistakes(folder: Path, text: str) -> list[str]:
    """What is said about a file, without its folder."""
    with pytest.raises(BadInput) as caught:
        load(folder, text)
    return [str(mistake).replace(f"{folder}/", "") for mistake in caught.value.mistakes]


def expected() -> dict[str, list[str]]:
    made: dict[str, list[str]] = {}
    for line in (BAD / "expected.txt").read_text().splitlines():
        made.setdefault(line.split(":")[0], []).append(line)
    return made


@pytest.mark.parametrize("name", sorted(file.name for file in BAD.glob("*.sim.yaml")))
def test_every_mistake_of_a_bad_file_has_one_message_with_its_place(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_scenario(str(BAD / name))
    assert [str(mistake).replace(f"{BAD}/", "") for mistake in caught.value.mistakes] == expected()[name]


def test_mistakes_of_all_files_are_told_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        load_all([str(BAD), "no-such-file.sim.yaml"])
    told = [str(mistake).replace(f"{BAD}/", "") for mistake in caught.value.mistakes]
    all_expected = [line for name in sorted(expected()) for line in expected()[name]]
    assert told == [*all_expected, "no-such-file.sim.yaml: no such file"]


def test_a_missing_file_a_folder_without_scenarios_and_a_foreign_file_are_mistakes(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_text("")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(BadInput) as caught:
        load_all([str(tmp_path), f"{tmp_path}/gone.yaml", f"{tmp_path}/picture.png", f"{tmp_path}/pipe.yaml", "a\0b"])
    messages = [mistake.message for mistake in caught.value.mistakes]
    assert messages == [
        "holds no scenarios; valid: a folder with *.sim.yaml files",
        "no such file",
        "is no scenario file; valid: a folder, or .yaml, .yml, .json",
        "is not a regular file",
        "cannot be the name of a file",
    ]


def test_the_short_form_is_read_as_written(tmp_path: Path) -> None:
    scenario = load(tmp_path, SHORT)
    assert scenario.name == "typo"
    assert scenario.subject == "server"
    assert (scenario.source, scenario.catalogue) == (("somewhere",), ("R1", "R2"))
    assert scenario.change == Change({"ethernets": {"eth0": {"routes": [{"to": "default", "via": "192.0.2.66"}]}}})
    assert scenario.breaks == Breaks((Flow("server", "internet", name="server -> internet"),))
    assert scenario.keeps == (Flow("server", "client", "tcp", 22, None, "v4", 5, "server -> client tcp/22 v4 size=5"),)
    assert scenario.recover == ("rollback", "reboot")
    assert (scenario.checks, scenario.checks_reason) == ({"kernel": False}, "it is so")
    assert scenario.topology.machines["router"].forward
    assert scenario.mechanism == "snapcore"


def test_json_is_read_too(tmp_path: Path) -> None:
    text = json.dumps({"sim": 1, "topology": "one-lan", "change": {"run": "true", "reload": False}, "breaks": []})
    scenario = load(tmp_path, text, "plain.json")
    assert scenario.name == "plain"
    assert scenario.change == Change(run="true", reload=False)


def test_breaks_may_say_that_only_a_boot_shows_it(tmp_path: Path) -> None:
    text = SHORT.replace("breaks: [server -> internet]", "breaks: {after: reboot, flows: [server -> internet]}")
    assert load(tmp_path, text).breaks.after == "reboot"


LONG = """
sim: 1
topology:
  networks: {lan: {mtu: 1400, stp: true}, spare: null}
  machines:
    client: {ports: {eth0: lan}, files: {/etc/hosts: null, /etc/x: {text: hi, mode: 0600, owner: "root:adm"}}}
    server: {ports: {eth0: lan, eth1: spare}, config: {ethernets: {eth0: {addresses: [192.0.2.10/24]}}}}
  flows: {ssh: client -> server tcp/22}
steps:
  - begin: server
  - begin: {on: server, status: 199}
  - write: {on: server, file: /etc/hosts, text: "", mode: "0644"}
  - unplug: server:eth1
  - plug: {on: server, port: eth1}
  - expect: {flows: {ssh: refused, client -> server: delivered}, within: 500ms, holds-for: 2}
  - expect: {file: {on: server, path: /etc/hosts, absent: true}, otherwise: unknown}
  - power-cut: server
  - fault: {on: server, call: [write], error: ENOSPC, at: 3}
  - run: {on: server, command: "exit 3", status: 3}
matrix: {dad: [true, false], recover: [rollback]}
"""


def test_steps_are_normalised(tmp_path: Path) -> None:
    steps = load(tmp_path, LONG).steps or ()
    ssh = Flow("client", "server", "tcp", 22, name="ssh")
    asked: dict[str, Any] = {"restored": None, "changed": None, "transaction": {}, "file": None, "output": None}
    plain: dict[str, Any] = {"by": None, "deadline": 0.0, "probe": None}
    assert list(steps) == [
        Step("begin", "server", {"status": 0, **plain}, 10),
        Step("begin", "server", {"status": 199, **plain}, 11),
        Step("write", "server", {"file": "/etc/hosts", "text": "", "mode": 0o644, "owner": None}, 12),
        Step("unplug", "server", {"port": "eth1"}, 13),
        Step("plug", "server", {"port": "eth1"}, 14),
        Step(
            "expect",
            None,
            {
                **asked,
                "flows": ((ssh, "refused"), (Flow("client", "server", name="client -> server"), "delivered")),
                "within": 0.5,
                "holds-for": 2.0,
                "otherwise": "fail",
            },
            15,
        ),
        Step(
            "expect",
            None,
            {
                **asked,
                "flows": (),
                "file": {"on": "server", "path": "/etc/hosts", "absent": True},
                "within": 5.0,
                "holds-for": 0.0,
                "otherwise": "unknown",
            },
            16,
        ),
        Step("power-cut", "server", {"image": "as-it-is"}, 17),
        Step("fault", "server", {"call": ("write",), "error": "ENOSPC", "at": "3", "disk": None}, 18),
        Step("run", "server", {"command": "exit 3", "status": 3}, 19),
    ]


def test_a_topology_in_the_file_is_read_whole(tmp_path: Path) -> None:
    scenario = load(tmp_path, LONG)
    networks, machines = scenario.topology.networks, scenario.topology.machines
    assert (networks["lan"].mtu, networks["lan"].stp, networks["spare"].mtu) == (1400, True, 1500)
    assert dict(machines["server"].ports) == {"eth0": "lan", "eth1": "spare"}
    assert machines["client"].files["/etc/hosts"].content is None
    secret = machines["client"].files["/etc/x"]
    assert (secret.content, secret.mode, secret.owner) == (b"hi", 0o600, "root:adm")
    assert scenario.matrix == {"dad": ("true", "false"), "recover": ("rollback",)}
    assert scenario.subject == "server"


def test_the_subject_is_the_machine_that_the_mechanism_acts_on(tmp_path: Path) -> None:
    assert load(tmp_path, LONG.replace("begin: server", "begin: client", 1)).subject == "client"


def test_later_config_steps_are_checked_against_what_earlier_ones_made(tmp_path: Path) -> None:
    text = """
sim: 1
topology: one-lan
steps:
  - config: {on: server, merge: {bridges: {br0: {interfaces: [eth0]}}}}
  - config: {on: server, merge: {vlans: {br0.7: {id: 7, link: br0}}}}
  - config: {on: server, merge: {vlans: {br0.7: {id: 8}}}}
  - begin: server
  - config: {on: server, merge: {vlans: {br0.7: null}, bridges: {br0: null}}}
  - rollback: server
  - config: {on: server, merge: {vlans: {br0.7: {id: 9}}}}
  - config: {on: server, merge: {vlans: {br1.7: {id: 9}}}}
  - config: {on: client, merge: {vlans: {br0.7: {id: 9, link: br0}}}}
"""
    assert mistakes(tmp_path, text) == [
        "it.sim.yaml:12:49: br1.7: lacks the key 'link' (the device below)",
        "it.sim.yaml:13:63: unknown device 'br0'; did you mean 'br0.7'?",
    ]


def test_a_name_beside_the_file_goes_before_a_shipped_one(tmp_path: Path) -> None:
    topology = "topology: {machines: {server: {}, alone: {}}}"
    (tmp_path / "one-lan.topology.yaml").write_text(topology)
    (tmp_path / "mechanisms").mkdir()
    (tmp_path / "mechanisms" / "own.yaml").write_text("{mechanism: 1, name: own, begin: 'true'}")
    text = "{sim: 1, mechanism: own, topology: one-lan, change: {run: 'true'}, breaks: [alone -> server]}"
    assert "alone" in load(tmp_path, text).topology.machines


def test_a_mistake_in_a_file_that_is_named_has_its_place_there(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("machines:\n  server: {ports: {eth0: lan}}\n")
    (tmp_path / "own.yaml").write_text("mechanism: 1\nname: own\nbegn: 'true'\n")
    text = "{sim: 1, mechanism: own.yaml, topology: mine, change: {run: 'true'}, breaks: []}"
    assert mistakes(tmp_path, text) == [
        "mine.yaml:2:26: eth0: unknown network 'lan'; there is none",
        "own.yaml:3:1: unknown key 'begn'; did you mean 'begin'?",
    ]


def test_a_file_that_lies_in_two_named_places_is_loaded_once(tmp_path: Path) -> None:
    load(tmp_path, SHORT)
    assert len(load_all([str(tmp_path), str(tmp_path / "it.sim.yaml")])) == 1


def test_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bad.sim.yaml").write_text("bad")
    load(tmp_path, SHORT)
    assert [scenario.name for scenario in load_all([str(tmp_path)])] == ["typo"]


@pytest.mark.parametrize("name", ["one-lan", "lan-and-router", "two-lans", "ipv6-only", "dual-stack", "campus"])
def test_every_shipped_topology_is_sound(name: str, tmp_path: Path) -> None:
    topology = library.find_topology(name, tmp_path)
    assert topology.name == name
    assert "server" in topology.machines


def test_names_of_shipped_topologies_and_mechanisms_are_suggested(tmp_path: Path) -> None:
    for find, name, meant in (
        (library.find_topology, "campsu", "campus"),
        (library.find_mechanism, "snapcor", "snapcore"),
        (library.find_mechanism, "noen", "none"),
    ):
        with pytest.raises(BadInput, match=f"did you mean '{meant}'"):
            find(name, tmp_path)


def test_yaml_1_2_words_stay_texts(tmp_path: Path) -> None:
    text = SHORT.replace("about: A typo.", "about: no").replace("source: somewhere", "source: 12:30")
    scenario = load(tmp_path, text)
    assert (scenario.about, scenario.source) == ("no", ("12:30",))


def test_aliases_within_reason_are_fine(tmp_path: Path) -> None:
    text = SHORT.replace("breaks: [server -> internet]", "breaks: &them [server -> internet]")
    text = text.replace("keeps: [server -> client tcp/22 v4 size=5]", "keeps: *them")
    assert load(tmp_path, text).keeps == load(tmp_path, text).breaks.flows
