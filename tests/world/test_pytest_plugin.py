"""pytest runs scenario files as `sim run` does, and gives laboratories to tests written in Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_up import MADE_UP as ALL_RECOVERIES
from made_up import command
from test_leaks import all_ended, processes_of

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.world

MADE_UP = ALL_RECOVERIES + "recover: [rollback, reboot, crash]\n"
UNKNOWN = MADE_UP.replace("addresses: [192.0.2.110/24]", "addresses: [192.0.2.10/24, 192.0.2.110/24]")


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project whose only test is one scenario, with three recoveries."""
    pytester.path.joinpath("made-up.sim.yaml").write_text(MADE_UP)
    return pytester


def block(text: str, head: str) -> list[str]:
    """The lines that describe one failure."""
    lines = text[text.index(f"{head}  made-up") :].splitlines()
    return lines[: next(number for number, line in enumerate(lines) if "again:" in line) + 1]


def test_each_run_of_the_matrix_is_an_item(project: pytest.Pytester) -> None:
    listed = project.runpytest_subprocess("--collect-only", "-q")
    recoveries = ("rollback", "reboot", "crash")
    assert listed.outlines[:3] == [f"made-up.sim.yaml::made-up[ifcfg-snapcore-{name}]" for name in recoveries]
    done = project.runpytest_subprocess("-n", "2", "--junit-xml=out.xml")
    done.assert_outcomes(passed=3)
    cases = ElementTree.parse(project.path / "out.xml").iter("testcase")
    properties = [{one.get("name"): one.get("value") for one in case.iter("property")} for case in cases]
    usual = {"stack": "ifcfg", "mechanism": "snapcore", "verdict": "pass"}
    assert sorted(properties, key=str) == sorted([usual | {"recover": name} for name in recoveries], key=str)


def test_the_file_is_collected_once_however_often_it_is_named(project: pytest.Pytester) -> None:
    for words in (["made-up.sim.yaml", "."], [".", "made-up.sim.yaml"], [".", "."]):
        listed = project.runpytest_subprocess("--collect-only", "-q", *words)
        assert sum("::" in line for line in listed.outlines) == 3, words


def test_a_failure_shows_what_sim_run_shows(project: pytest.Pytester) -> None:
    words = ["--mechanism", "none", "--recover", "rollback"]
    theirs = subprocess.run(
        command("run", "made-up.sim.yaml", *words), capture_output=True, text=True, cwd=project.path, check=False
    )
    done = project.runpytest_subprocess("--sim-mechanism", "none", "--sim-recover", "rollback")
    done.assert_outcomes(failed=1)
    assert block(str(done.stdout), "FAIL") == block(theirs.stdout, "FAIL")
    done.stdout.fnmatch_lines(["FAILED made-up.sim.yaml::made-up[[]ifcfg-none-rollback] - fail: *"])
    done.stdout.no_fnmatch_line("*Traceback*")


def test_unknown_fails_with_its_own_word(project: pytest.Pytester) -> None:
    project.path.joinpath("made-up.sim.yaml").write_text(UNKNOWN)
    for more in ([], ["-n", "1"]):
        done = project.runpytest_subprocess("--sim-recover", "rollback", *more)
        done.assert_outcomes(failed=1)
        done.stdout.fnmatch_lines(["UNKNOWN  made-up *", "FAILED *made-up* - unknown: *"])


def test_what_cannot_run_is_skipped_with_its_reason(project: pytest.Pytester) -> None:
    project.path.joinpath("mute.yaml").write_text("mechanism: 1\nname: mute\nbegin: 'true'\ncommit: 'true'\n")
    done = project.runpytest_subprocess("-rs", "--sim-set", "family=v6", "--sim-recover", "crash")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["SKIPPED *'server' has no address of family v6"])
    done = project.runpytest_subprocess("-rs", "--sim-mechanism", "mute.yaml", "--sim-recover", "rollback")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["SKIPPED *not-offered: mute does not offer 'rollback'"])


def test_a_mistake_in_a_file_is_a_collection_error_with_its_place(project: pytest.Pytester) -> None:
    project.path.joinpath("bad.sim.yaml").write_text("sim: 1\ntopology: one-lann\nchange: {run: x}\nbreaks: [a -> b]\n")
    done = project.runpytest_subprocess()
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["bad.sim.yaml:2:11: unknown topology 'one-lann'; did you mean 'one-lan'[?]"])
    done.stdout.no_fnmatch_line("*Traceback*")
    done.stdout.no_fnmatch_line("*Error: *")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sim-set", "stack"], "ERROR: --sim-set: 'stack' is not KEY=VALUE"),
        (["--sim-set", "stack=ifcgf"], "--sim-set stack: unknown value 'ifcgf'; did you mean 'ifcfg'[?]"),
        (["--sim-mechanism", "snapcor"], "*unknown mechanism 'snapcor'; did you mean 'snapcore'[?]"),
        (["--sim-recover", "rolback"], "*unknown value 'rolback'; did you mean 'rollback'[?]"),
    ],
)
def test_a_mistaken_option_is_named(project: pytest.Pytester, words: list[str], said: str) -> None:
    done = project.runpytest_subprocess(*words)
    assert done.ret in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR)
    assert "Traceback" not in str(done.stdout) + str(done.stderr)
    pytest.LineMatcher(done.outlines + done.errlines).fnmatch_lines([said])


# -- laboratories for Python -------------------------------------------------------------------------------------------


def test_a_test_gets_machines_and_flows(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        from sim.api import Refused, World
        from sim.errors import BadInput

        def test_power_and_flows(world: World) -> None:
            lab = world("one-lan", mechanism="snapcore", listen={"server": ["tcp/22"]})
            server = lab.machine("server")
            assert lab.flow("client -> server tcp/22").delivered
            assert server.run("hostname").output == "server\\n"
            with pytest.raises(Refused, match="exit status 3, expected 0"):
                server.run("exit 3")
            server.begin()
            server.write("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\\n")
            server.reload()
            assert not lab.flow("client -> server").delivered
            server.crash()
            assert not server.on
            server.boot()
            assert lab.flow("client -> server", within_s=5).delivered, "the boot rolled back"
            server.commit(status=199)
            assert b"192.0.2.10" in server.read("/etc/sysconfig/network-scripts/ifcfg-eth0")
            assert server.read("/etc/nothing") is None
            assert list(server.files()) == ["/etc/sysconfig/network-scripts/ifcfg-eth0"]
            assert server.kernel()["links"]["eth0"]
            assert [one.delivered for one in lab.flows()] == [True, True]

        def test_two_laboratories_at_once(world: World) -> None:
            one, two = world("one-lan"), world("one-lan")
            one.machine("server").shutdown()
            assert not one.flow("client -> server").delivered
            assert two.flow("client -> server").delivered

        def test_a_topology_of_its_own(world: World) -> None:
            machine = lambda last: {"ports": {"p0": "lan"}, "config": {"ethernets": {"p0": {"addresses": [last]}}}}
            lab = world({"networks": {"lan": {}},
                         "machines": {"a": machine("2001:db8::1/64"), "b": machine("2001:db8::2/64")}})
            assert lab.flow("a -> b").family == "v6"
            with pytest.raises(BadInput, match="unknown machine 'bb'"):
                lab.flow("a -> bb")

        def test_what_is_missing_is_a_skip(world: World) -> None:
            lab = world("one-lan", family="v6")
    """)
    done = pytester.runpytest_subprocess("-n", "2", "-rs")
    done.assert_outcomes(passed=3, skipped=1)
    done.stdout.fnmatch_lines(["SKIPPED *'server' has no address of family v6"])


def test_sigkill_of_pytest_leaves_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_hangs(world):
            lab = world("one-lan")
            print("built", flush=True)
            lab.machine("server").run("exec tail -f /dev/null")
    """)
    mark = f"SIM_TEST=plugin-{pytester.path.name}"
    words = [sys.executable, "-m", "pytest", "-s", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | dict([mark.split("=")])
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=pytester.path, env=environment) as process:
        assert process.stdout is not None
        while b"built" not in process.stdout.readline():
            assert process.poll() is None
        theirs = processes_of(mark)
        assert len(theirs) > 4, "pytest, server, keeper, laboratory, machines"
        process.send_signal(signal.SIGKILL)
        assert all_ended(theirs, 10.0), "some process outlived pytest"
    assert processes_of(mark) == []


# -- what it costs others ----------------------------------------------------------------------------------------------


def test_projects_without_scenarios_pay_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_nothing_was_loaded():
            ours = {name for name in sys.modules if name.split(".")[0] == "sim"}
            assert ours == {"sim", "sim.pytest_plugin"}
            assert not {"pyroute2", "ruamel.yaml", "rich.console"} & set(sys.modules)
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_sim_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; from sim.cli import main; sys.exit(main(sys.argv[1:]))"
    scenario = str(Path(__file__).parents[2] / "scenarios/files/changed-file.sim.yaml")
    words = [sys.executable, "-c", code, "run", scenario, "--recover", "rollback"]
    assert subprocess.run(words, check=False, capture_output=True).returncode == 0


def test_a_requirement_has_runs_only_where_its_file_is_named(project: pytest.Pytester) -> None:
    tries = "\n  tries: {kept: [{begin: done}, {boot: done}, {expect: old}]}\n"
    requirement = "\nrequirement:\n  id: ID\n  title: what was saved comes back" + tries
    only = MADE_UP[: MADE_UP.index("change:")]
    project.path.joinpath("K1.sim.yaml").write_text(MADE_UP + requirement.replace("ID", "K1"))
    project.path.joinpath("K2.sim.yaml").write_text(only + requirement.replace("ID", "K2"))
    for words, count in (((), 3), (("K1.sim.yaml",), 3), (("made-up.sim.yaml", "K1.sim.yaml"), 6)):
        listed = project.runpytest_subprocess("--collect-only", "-q", *words)
        assert sum("::" in line for line in listed.outlines) == count, words
    listed = project.runpytest_subprocess("--collect-only", "-q", "K2.sim.yaml")
    listed.stdout.fnmatch_lines(["*K2.sim.yaml: is a requirement*; valid: sim conform MECHANISM --only K2"])
