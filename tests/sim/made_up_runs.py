"""Plans and journals written by hand: what a run would have left, without a laboratory."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from sim.check import CHECKS
from sim.events import Event, FlowRead, PhaseEnded, RunEnded, RunStarted, SeenAtBoot, StateRead, StepEnded
from sim.planned import MachinePlan, Params, Plan, Port
from sim.scenario import Flow, Mechanism, Network, Step

IFCFG = "/etc/sysconfig/network-scripts/ifcfg-eth0"
INTERNET = Flow("server", "internet")
CLIENT = Flow("server", "client")


def state(gateway: str = "192.0.2.1", **flips: Any) -> dict[str, Any]:
    """What a server with two ports looks like; `gateway` is in its file and in its kernel."""
    text = f"DEVICE=eth0\nIPADDR=192.0.2.10\nPREFIX=24\nGATEWAY={gateway}\n"
    return {
        "files": {
            IFCFG: {
                "type": "file",
                "mode": "0644",
                "owner": "0:0",
                "size": len(text),
                "sha256": f"sum of {gateway}",
                "text": text,
                "xattrs": {},
            }
        },
        "kernel": {
            "links": {
                name: {"kind": "veth", "master": None, "mtu": 1500, "mac": f"02:00:00:00:00:0{n}", "up": True}
                for n, name in enumerate(("eth0", "eth1"))
            },
            "addresses": {"eth0": {"v4": ["192.0.2.10/24 scope global"], "v6": ["2001:db8::10/64"]}},
            "routes": {"v4 main": [f"default via {gateway} dev eth0", "192.0.2.0/24 dev eth0"], "v6 main": []},
            "rules": {"v4": ["from all lookup main pref 32766"], "v6": []},
            "sysctls": {"net.ipv4.conf.eth0.rp_filter": "0", "net.ipv6.conf.eth0.disable_ipv6": "0"},
        },
        "transient": {
            "links": {"eth0": {"ifindex": 2, "carrier_changes": 2}, "eth1": {"ifindex": 3, "carrier_changes": 2}}
        },
        **flips,
    }


def plan(**replaced: Any) -> Plan:
    """The plan of gateway-typo with one recovery."""
    recover = replaced.pop("recover", "rollback")
    steps = (
        Step("begin", "server", {"status": 0}),
        Step("write", "server", {"file": IFCFG, "text": "…"}),
        Step("reload", "server"),
        Step("expect", None, {"flows": ((INTERNET, "unreachable"),), "otherwise": "unknown"}),
        Step("expect", None, {"flows": ((CLIENT, "delivered"),), "otherwise": "fail"}),
        Step("rollback", "server", {"status": 0}),
    )
    values: dict[str, Any] = {
        "scenario": "gateway-typo",
        "file": "scenarios/routes/gateway-typo.sim.yaml",
        "params": Params("ifcfg", "snapcore", recover),
        "networks": {"lan": Network("lan")},
        "machines": {
            "server": MachinePlan(
                "server",
                (Port("eth0", "lan", "02:00:00:00:00:00"),),
                "ifcfg",
                {},
                boot_hook="snapcore boot",
                state=("/var/lib/snapcore",),
            )
        },
        "flows": (),
        "steps": steps,
        "mechanism": Mechanism("snapcore", begin="snapcore begin", rollback="snapcore rollback", extra={"status": "…"}),
        "subject": "server",
        "breaks": (INTERNET,),
        "keeps": (CLIENT,),
        "checks": frozenset(CHECKS),
    }
    return Plan(**{**values, **replaced})


class Journal:
    """Writes a journal event by event; every call takes a tenth of a second."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._clock = itertools.count(1)

    def _at(self) -> float:
        return next(self._clock) / 10

    def started(self) -> Journal:
        self.events.append(RunStarted(self._at(), "gateway-typo", {}))
        return self

    def boot(self, boot: int = 1, hook: int = 0, network: int = 0, output: str = "") -> Journal:
        for phase, status in (("pre-network", hook), ("network", network)):
            command = {"pre-network": "snapcore boot", "network": "/etc/init.d/network start"}[phase]
            self.events.append(PhaseEnded(self._at(), "server", boot, phase, command, status, 5.0, output))  # type: ignore[arg-type]
        return self

    def flows(self, label: str, step: int | None = None, **reasons: str) -> Journal:
        """The flows of the server; `internet="no-route"` says that this one was not delivered, and why."""
        for flow in (INTERNET, CLIENT):
            reason = reasons.get(flow.destination, "")
            event = FlowRead(
                self._at(), label, step, flow.text, flow.text, "v4", not reason, reason, 1.0, 1, bool(reason)
            )
            self.events.append(event)
        return self

    def picture(self, label: str, seen: Any = None, boot: int = 1, transaction: str = "none") -> Journal:
        seen = state() if seen is None else seen
        self.events.append(StateRead(self._at(), label, None, "server", boot, copy.deepcopy(seen), transaction))  # type: ignore[arg-type]
        return self

    def step(self, number: int, verb: str, outcome: str = "done", **more: Any) -> Journal:
        machine = None if verb == "expect" else "server"
        self.events.append(StepEnded(self._at(), number, verb, machine, outcome, 0.1, **more))  # type: ignore[arg-type]
        return self

    def seen_at_boot(self, *seen: str, boot: int = 2, overflow: bool = False) -> Journal:
        """What the kernel had while the server booted: addresses and routes, told apart by the word `main`."""
        routes = tuple(text for text in seen if " main: " in text)
        addresses = tuple(text for text in seen if text not in routes)
        self.events.append(SeenAtBoot(self._at(), "server", boot, addresses, routes, overflow))
        return self

    def ended(self, **how: str) -> Journal:
        self.events.append(RunEnded(self._at(), **how))
        return self


def until_recovery() -> Journal:
    """A good run up to the step before its recovery."""
    journal = Journal().started().boot().flows("baseline").picture("baseline")
    journal.picture("begin").step(0, "begin", status=0)
    journal.step(1, "write").step(2, "reload", status=0).picture("changed", state("192.0.2.66"), transaction="open")
    journal.flows("step", 3, internet="neighbour-unreachable").step(3, "expect")
    return journal.flows("step", 4, internet="neighbour-unreachable").step(4, "expect")


def recovered() -> Journal:
    """A good run up to the final pictures, which are missing."""
    return until_recovery().step(5, "rollback", status=0)


def good() -> list[Event]:
    """A run in which everything went well."""
    journal = recovered().picture("final").flows("final").boot(2)
    return journal.picture("rebooted", boot=2).flows("rebooted").ended().events
