"""A scenario and a choice of parameters make the steps that its author meant, and everything they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_stacks import install
from test_load import LONG, SHORT

from sim import plan, services, stacks
from sim.errors import BadInput
from sim.load import load_all, load_scenario
from sim.planned import Plan
from sim.scenario import FileText, Flow, Scenario, Step

SCENARIOS = Path(__file__).parents[2] / "scenarios"
IFCFG = "/etc/sysconfig/network-scripts/ifcfg-eth0"

MECHANISM = "{mechanism: 1, name: own, begin: b, commit: c, rollback: r, boot: s, install: [], state: [/var/own]}"
BROKEN = "{server -> internet: unreachable}"


@pytest.fixture(autouse=True)
def _stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def load(folder: Path, text: str, mechanism: str = MECHANISM) -> Scenario:
    (folder / "own.mechanism.yaml").write_text(mechanism)
    (folder / "it.sim.yaml").write_text(text + "\nmechanism: own\n")
    return load_scenario(str(folder / "it.sim.yaml"))


def brief(steps: Sequence[Step]) -> list[str]:
    """Each step in a few words."""
    return [_brief(step) for step in steps]


def _brief(step: Step) -> str:
    if step.verb != "expect":
        return step.verb if not step.args.get("file") else f"{step.verb} {step.args['file']}"
    told = [f"{flow} {outcome}" for flow, outcome in step.args["flows"]]
    told += [f"{key} {step.args[key]}" for key in ("restored", "changed") if step.args[key]]
    told += [f"transaction {state}" for state in step.args["transaction"].values()]
    return f"expect {', '.join(told)}" + (" (else unknown)" if step.args["otherwise"] == "unknown" else "")


def only(plans: list[Plan]) -> Plan:
    assert len(plans) == 1
    return plans[0]


SEEN = [
    "begin", "config", "reload",
    "expect server -> internet unreachable (else unknown)",
    "expect server -> client tcp/22 v4 size=5 delivered",
]  # fmt: skip
RESTORED = "expect restored server, transaction none"


@pytest.mark.parametrize(
    ("recovery", "steps"),
    [
        ("rollback", ["rollback", RESTORED]),
        ("reboot", ["reboot", RESTORED]),
        ("crash", ["crash", "boot", RESTORED]),
        ("commit", ["commit", "expect changed server, transaction none"]),
    ],
)
def test_the_short_form_breaks_sees_the_damage_and_recovers(tmp_path: Path, recovery: str, steps: list[str]) -> None:
    made = only(plan.expand(load(tmp_path, SHORT), recover=[recovery]))
    assert brief(made.steps) == [*SEEN, *steps]
    assert (made.skip, made.not_offered, made.params.recover) == (None, None, recovery)


def test_what_a_mechanism_covers_makes_no_difference_to_the_steps(tmp_path: Path) -> None:
    """The reload after a rollback of files only belongs to the verb, in the long form too."""
    scenario = load(tmp_path, SHORT, MECHANISM.replace("}", ", covers: [files, kernel]}"))
    assert brief(plan.expand(scenario)[0].steps) == [*SEEN, "rollback", RESTORED]


def test_a_config_step_carries_the_files_that_it_changes(tmp_path: Path) -> None:
    config = plan.expand(load(tmp_path, SHORT))[0].steps[1]
    text = b'{"addresses": ["192.0.2.10/24"], "routes": [{"to": "default", "via": "192.0.2.66"}]}\n'
    assert config.args["files"] == {IFCFG: FileText(text)}


def test_a_device_that_is_removed_has_its_file_removed(tmp_path: Path) -> None:
    text = "{sim: 1, topology: one-lan, breaks: [client -> server], change: {config: {ethernets: {eth0: null}}}"
    assert plan.expand(load_scenario_text(tmp_path, text + "}"))[0].steps[1].args["files"] == {IFCFG: FileText(None)}


def load_scenario_text(folder: Path, text: str) -> Scenario:
    (folder / "it.sim.yaml").write_text(text)
    return load_scenario(str(folder / "it.sim.yaml"))


def test_files_and_commands_are_changes_too(tmp_path: Path) -> None:
    base = "{sim: 1, topology: one-lan, breaks: [client -> server], mechanism: none, recover: [reboot], change: "
    scenario = load_scenario_text(tmp_path, base + f"{{files: {{{IFCFG}: x, /etc/y: null}}, reload: false}}}}")
    assert brief(only(plan.expand(scenario)).steps)[:3] == ["begin", f"write {IFCFG}", "remove /etc/y"]
    scenario = load_scenario_text(tmp_path, base + "{run: ip link set eth0 down, reload: false}}")
    assert brief(only(plan.expand(scenario)).steps)[:2] == ["begin", "run"]
    assert "reload" not in brief(only(plan.expand(scenario)).steps)


def test_damage_that_only_a_boot_shows_is_shown_on_a_disk_that_is_put_back(tmp_path: Path) -> None:
    text = SHORT.replace("breaks: [server -> internet]", "breaks: {after: reboot, flows: [server -> internet]}")
    text = text.replace("change: {config:", "change: {reload: false, config:")
    made = plan.expand(load(tmp_path, text))[0]
    assert brief(made.steps) == [
        "keep-disk",
        "config",
        "reboot",
        "expect server -> internet unreachable (else unknown)",
        "shutdown",
        "restore-disk",
        "boot",
        "expect server -> internet delivered (else unknown)",
        "begin",
        "config",
        "expect server -> client tcp/22 v4 size=5 delivered",
        "rollback",
        RESTORED,
    ]
    assert made.steps[1].args == made.steps[9].args


def test_where_nothing_may_break_every_named_flow_and_neighbour_is_asked_and_commit_is_tried(tmp_path: Path) -> None:
    text = SHORT.replace("breaks: [server -> internet]", "breaks: []").replace("recover: [rollback, reboot]\n", "")
    plans = plan.expand(load(tmp_path, text))
    assert [made.params.recover for made in plans] == ["rollback", "reboot", "crash", "commit"]
    asked = brief(plans[0].steps)[3]
    assert asked.startswith("expect server -> client tcp/22 v4 size=5 delivered, server -> client v4 delivered")
    assert "router -> server v4" in asked and "internet" not in asked


def test_by_default_all_that_the_mechanism_offers_is_tried_but_commit(tmp_path: Path) -> None:
    text = SHORT.replace("recover: [rollback, reboot]\n", "")
    tried = [made.params.recover for made in plan.expand(load(tmp_path, text))]
    assert tried == ["rollback", "reboot", "crash"]
    tried = [made.params.recover for made in plan.expand(load(tmp_path, text, MECHANISM.replace(" boot: s,", "")))]
    assert tried == ["rollback"]


@pytest.mark.parametrize(
    ("recovery", "skip", "not_offered"),
    [
        ("reboot", None, "own does not offer 'boot'"),
        ("crash", None, "own does not offer 'boot'"),
        ("power-cut", None, "own does not offer 'boot'"),
        ("probe", None, "own does not offer 'probe'"),
        ("timeout", "own offers 'timeout', but names no command for it", None),
        ("rollback", None, None),
    ],
)
def test_what_a_mechanism_does_not_claim_is_not_asked(
    tmp_path: Path, recovery: str, skip: str | None, not_offered: str | None
) -> None:
    scenario = load(tmp_path, SHORT, MECHANISM.replace(" boot: s,", "").replace("}", ", offers: [timeout]}"))
    made = only(plan.expand(scenario, recover=[recovery]))
    assert (made.skip, made.not_offered) == (skip, not_offered)


LONG_FORM = "{{sim: 1, topology: one-lan, steps: [{}]}}"


@pytest.mark.parametrize(
    ("steps", "not_offered"),
    [
        ("{save: {on: server, name: x}}", "own does not offer 'save'"),
        ("{begin: server}, {crash: server}, {boot: server}", "own does not offer 'boot'"),
        ("{begin: server}, {commit: server}, {reboot: server}", None),
        ("{reboot: server}", None),
    ],
)
def test_the_long_form_asks_only_for_what_is_offered(tmp_path: Path, steps: str, not_offered: str | None) -> None:
    mechanism = MECHANISM.replace(" boot: s,", "")
    scenario = replace(load_scenario_text(tmp_path, LONG_FORM.format(steps)), mechanism="own")
    (tmp_path / "own.mechanism.yaml").write_text(mechanism)
    assert only(plan.expand(scenario)).not_offered == not_offered


def test_the_matrix_and_what_replaces_it(tmp_path: Path) -> None:
    text = SHORT.replace("recover: [rollback, reboot]", "matrix: {dad: [true, false], recover: [crash, commit]}")
    scenario = load(tmp_path, text)
    assert [(p.params.dad, p.params.recover) for p in plan.expand(scenario)] == [
        (True, "crash"), (True, "commit"), (False, "crash"), (False, "commit"),
    ]  # fmt: skip
    made = plan.expand(scenario, {"dad": "true", "family": ["v4"], "recover": "rollback,crash"}, mechanism="none")
    params = [(p.params.dad, p.params.family, p.params.mechanism, p.params.recover) for p in made]
    assert params == [(True, "v4", "none", "rollback"), (True, "v4", "none", "crash")]
    assert made[0].machines["server"].dad
    assert made[0].breaks == (Flow("server", "internet", family="v4", name="server -> internet"),)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"stak": "ifcfg"}, "--set: unknown key 'stak'; did you mean 'stack'?"),
        ({"stack": "ifcgf"}, "--set stack: unknown value 'ifcgf'; did you mean 'ifcfg'?"),
        ({"dad": "on"}, "--set dad: unknown value 'on'; valid: false, true"),
        ({"recover": ["rolback"]}, "--set recover: unknown value 'rolback'; did you mean 'rollback'?"),
        ({"mechanism": "snapcor"}, "snapcor: unknown mechanism 'snapcor'; did you mean 'snapcore'?"),
    ],
)
def test_an_unknown_parameter_is_bad_input(tmp_path: Path, sets: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        plan.expand(load(tmp_path, SHORT), sets)
    assert str(caught.value) == message


def test_a_mechanism_file_on_the_command_line_is_found_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    scenario = load(tmp_path / "elsewhere", SHORT)
    (tmp_path / "site.yaml").write_text(MECHANISM.replace("own", "site", 1))
    monkeypatch.chdir(tmp_path)
    assert plan.expand(scenario, mechanism="site.yaml")[0].params.mechanism == "site"


@pytest.mark.parametrize(
    ("sets", "text", "skip"),
    [
        ({"stack": "other"}, SHORT, "stack other: the program other is not installed"),
        ({"family": "v6"}, SHORT, "'server' has no address of family v6"),
        (
            {},
            SHORT.replace("{eth0: {routes: [{to: default, via: 192.0.2.66}]}}", "{eth0: {}}, bonds: {bond0: {}}"),
            "stack ifcfg cannot express this configuration: bonds cannot be written",
        ),
    ],
)
def test_what_cannot_run_here_is_a_skip_by_name(tmp_path: Path, sets: dict[str, str], text: str, skip: str) -> None:
    assert plan.expand(load(tmp_path, text), sets)[0].skip == skip


@pytest.mark.parametrize(
    "machine, skip",
    [
        (
            "{ports: {eth0: lan}, services: {dns: {}}}",
            "services (dns of 'server') need dnsmasq, which is not installed (Debian package dnsmasq-base)",
        ),
        (
            "{ports: {eth0: lan}, config: {ethernets: {eth0: {dhcp4: true}}}}",
            "dhcp4 needs one of dhclient, udhcpc, dhcpcd (Debian package isc-dhcp-client)",
        ),
    ],
)
def test_servers_and_clients_that_are_not_installed_are_skips_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, skip: str
) -> None:
    monkeypatch.setattr(services.shutil, "which", lambda name, path: None)
    topology = f"{{networks: {{lan: {{}}}}, machines: {{server: {machine}}}}}"
    text = f"{{sim: 1, topology: {topology}, steps: [{{reload: server}}]}}"
    assert only(plan.expand(load_scenario_text(tmp_path, text))).skip == skip


def test_a_power_cut_needs_a_disk_that_loses_writes_and_is_taken_twice(tmp_path: Path) -> None:
    made = only(plan.expand(load(tmp_path, SHORT), recover=["power-cut"]))
    assert made.params.disk == "lose-unsynced"
    cuts = [step.args["image"] for step in made.steps if step.verb == "power-cut"]
    assert cuts == ["as-it-is", "journal"]


def test_files_of_another_stack_are_a_skip_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(stacks.get("other"), missing=lambda: None)
    ifcfg = stacks.get("ifcfg")
    monkeypatch.setattr(stacks, "get", {"ifcfg": ifcfg, "other": other}.__getitem__)
    text = f"{{sim: 1, topology: one-lan, change: {{files: {{{IFCFG}: x, /etc/hosts: y}}}}, breaks: []}}"
    scenario = load_scenario_text(tmp_path, text)
    assert plan.expand(scenario, {"stack": "ifcfg"}, "none")[0].skip is None
    assert plan.expand(scenario, {"stack": "other"}, "none")[0].skip == (
        f"the scenario writes {IFCFG}, a file of the stack ifcfg, not of other"
    )
    mechanism = MECHANISM.replace("}", ", stack: other}")
    assert plan.expand(load(tmp_path, SHORT, mechanism))[0].skip == "mechanism own works with the stack other only"


def test_machines_get_their_files_ports_and_the_subject_the_mechanism(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    mechanism = MECHANISM.replace("install: []", "install: [{from: tool, to: /sbin/tool, mode: 755}]")
    made = plan.expand(load(tmp_path, SHORT, mechanism))[0]
    server, router = made.machines["server"], made.machines["router"]
    assert server.files["/sbin/tool"] == FileText(b"#!/bin/sh\n", 0o755)
    assert (server.boot_hook, server.state) == ("s", ("/var/own",))
    assert (router.boot_hook, router.state, "/sbin/tool" in router.files) == (None, (), False)
    assert router.files["/etc/sysctl.d/50-forward.conf"].content == plan.FORWARDING.content
    assert [(port.name, port.network) for port in router.ports] == [("eth0", "lan"), ("eth1", "uplink")]
    macs = [port.mac for machine in made.machines.values() for port in machine.ports]
    assert len(set(macs)) == len(macs) and all(mac.startswith("02:") for mac in macs)
    assert macs == [p.mac for m in plan.expand(load(tmp_path, SHORT))[1].machines.values() for p in m.ports]


def test_files_of_the_author_go_before_what_is_rendered(tmp_path: Path) -> None:
    machine = f"{{ports: {{eth0: lan}}, config: {{ethernets: {{eth0: {{}}}}}}, files: {{{IFCFG}: mine}}}}"
    text = f"{{sim: 1, topology: {{networks: {{lan: {{}}}}, machines: {{a: {machine}}}}}, steps: [{{reload: a}}]}}"
    made = only(plan.expand(load_scenario_text(tmp_path, text)))
    assert made.machines["a"].files[IFCFG].content == b"mine"


def test_a_port_that_only_a_bridge_names_is_rendered_too(tmp_path: Path) -> None:
    merge = "{ethernets: {eth0: null}, bridges: {br0: {interfaces: [eth0]}}}"
    text = LONG_FORM.format(f"{{config: {{on: server, merge: {merge}}}}}")
    files = only(plan.expand(load_scenario_text(tmp_path, text))).steps[0].args["files"]
    assert sorted(files) == ["/etc/sysconfig/network-scripts/ifcfg-br0", IFCFG]
    assert files[IFCFG].content == b"{}\n"


def test_config_steps_follow_what_is_committed_rolled_back_and_loaded(tmp_path: Path) -> None:
    def step(mtu: int | None) -> str:
        return f"{{config: {{on: server, merge: {{ethernets: {{eth0: {{mtu: {mtu or 'null'}}}}}}}}}}}"

    verbs = ["{begin: server}", step(1400), "{rollback: server}", step(None), "{begin: server}", step(1300)]
    verbs += ["{commit: server}", "{reboot: server}", step(1300), step(1280)]
    made = only(plan.expand(load_scenario_text(tmp_path, LONG_FORM.format(", ".join(verbs)))))
    changed = [bool(step.args["files"]) for step in made.steps if step.verb == "config"]
    assert changed == [True, False, True, False, True]


def test_listeners_are_named_for_every_flow_that_needs_one(tmp_path: Path) -> None:
    text = LONG.replace("ssh: refused", "ssh: refused, server -> client udp/53: delivered")
    made = plan.expand(load_scenario_text(tmp_path, text))[0]
    assert made.listeners == {"client": (("udp", 53),), "server": (("tcp", 22),)}


def test_excused_checks_are_named_with_their_reason(tmp_path: Path) -> None:
    made = plan.expand(load(tmp_path, SHORT))[0]
    assert made.checks == {"files", "flows", "flaps", "transaction", "reboot"}
    assert made.excused == "it is so"


def same(plan_: Plan) -> Any:
    """What must survive being printed and read again: all but how an unnamed flow was spelt, and line numbers."""
    named = {flow.name for flow in plan_.flows}

    def plain(flow: Flow) -> Flow:
        return flow if flow.name in named else replace(flow, name="")

    steps = []
    for step in plan_.steps:
        flows = tuple((plain(flow), outcome) for flow, outcome in step.args.get("flows", ()))
        steps.append(replace(step, line=None, args={**step.args, "flows": flows}))
    keeps = [plain(flow) for flow in plan_.keeps]
    machines = {name: replace(machine, written=None) for name, machine in plan_.machines.items()}
    params = replace(plan_.params, recover=None)
    kept = (plan_.networks, plan_.flows, keeps, plan_.subject, plan_.mechanism, plan_.checks, plan_.excused)
    return steps, machines, params, kept


def shipped() -> list[str]:
    return sorted(str(file) for file in SCENARIOS.rglob("*.sim.yaml"))


@pytest.mark.parametrize("file", shipped(), ids=lambda file: Path(file).name)
@pytest.mark.parametrize("sets", [{}, {"family": "v4", "dad": "true", "stack": "other"}], ids=["plain", "set"])
def test_what_is_shown_plans_to_the_same_steps(tmp_path: Path, file: str, sets: dict[str, str]) -> None:
    for made in plan.expand(load_scenario(file), sets):
        again = only(plan.expand(load_scenario_text(tmp_path, plan.show(made))))
        assert same(again) == same(made)


def test_shown_long_forms_plan_to_the_same_steps(tmp_path: Path) -> None:
    for made in plan.expand(load_scenario_text(tmp_path, LONG)):
        again = only(plan.expand(load_scenario_text(tmp_path, plan.show(made))))
        assert same(again) == same(made)


def test_it_is_shown_in_the_words_of_the_long_form(tmp_path: Path) -> None:
    shown = plan.show(plan.expand(load(tmp_path, SHORT))[1])
    assert shown.startswith(f"# typo, from {tmp_path}/it.sim.yaml: stack ifcfg, mechanism own, recovery reboot\n")
    assert "# must be seen broken: server -> internet\n" in shown
    assert shown.endswith(
        """\
steps:
  - begin: server
  - config: {on: server, merge: {ethernets: {eth0: {routes: [{to: default, via: 192.0.2.66}]}}}}
  - reload: server
  - expect: {flows: {server -> internet: unreachable}, otherwise: unknown}
  - expect: {flows: {server -> client tcp/22 v4 size=5: delivered}}
  - reboot: server
  - expect: {restored: server, transaction: {server: none}}
"""
    )


def test_every_shipped_scenario_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    for scenario in load_all([str(SCENARIOS)]):
        assert all(made.skip is None for made in plan.expand(scenario) if made.mechanism.missing is None)


DUAL = """
sim: 1
topology:
  networks: {lan: {}}
  machines:
    server: {ports: {eth0: lan}, config: {ethernets: {eth0: {addresses: [192.0.2.10/24, "2001:db8::10/64"]}}}}
    client: {ports: {eth0: lan}, config: {ethernets: {eth0: {addresses: [192.0.2.20/24, "2001:db8::20/64"]}}}}
    old: {ports: {eth0: lan}, config: {ethernets: {eth0: {addresses: [192.0.2.30/24]}}}}
"""


def test_a_run_for_one_family_asks_only_for_flows_whose_ends_both_have_it(tmp_path: Path) -> None:
    text = DUAL + "steps: [{expect: {flows: {client -> server: delivered, old -> server: delivered}}}]"
    made = only(plan.expand(load_scenario_text(tmp_path, text), {"family": "v6"}))
    assert made.skip is None
    assert [flow.text for flow, _ in made.steps[0].args["flows"]] == ["client -> server v6"]


def test_a_run_for_a_family_that_no_flow_has_is_a_skip_by_name(tmp_path: Path) -> None:
    text = DUAL + "steps: [{expect: {flows: {old -> server: delivered}}}]"
    assert only(plan.expand(load_scenario_text(tmp_path, text), {"family": "v6"})).skip == (
        "no flow that is expected is of family v6"
    )


def test_a_scenario_that_runs_snapcore_itself_is_not_for_another_mechanism(tmp_path: Path) -> None:
    text = "{sim: 1, topology: one-lan, steps: [{run: {on: server, command: snapcore begin --label x}}]}"
    scenario = load_scenario_text(tmp_path, text)
    assert only(plan.expand(scenario)).not_offered is None
    told = only(plan.expand(scenario, mechanism="none")).not_offered
    assert told == "the scenario runs snapcore itself: it is not for none"
