"""Desired interfaces -> kernel, and back: bring up, take down, and what spans interfaces (routes, rules, bridges).

Nothing here reads configuration files. What is done is noted in `Records` before it is done (values to be put
back) or right after (routes that the kernel took), so that a take-down, or a later repair, knows the truth.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from sim.stacks.ifcfg import dhcp
from sim.stacks.ifcfg.iproute import Route, Rule, is_number
from sim.stacks.ifcfg.kernel import Kernel, Link, let_pass
from sim.stacks.ifcfg.model import Interface
from sim.stacks.ifcfg.record import Applied, Made, Records

SETTLE_TIMEOUT_S = 10.0
_KINDS = {"bridge": "bridge", "vlan": "802.1Q VLAN", "bond": "bonding"}
_BOND_MODES = ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")
_BOND_NAMES: Mapping[str, Sequence[str]] = {  # Documentation/networking/bonding.rst
    "mode": _BOND_MODES,
    "xmit_hash_policy": ("layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"),
    "fail_over_mac": ("none", "active", "follow"),
    "primary_reselect": ("always", "better", "failure"),
    "lacp_rate": ("slow", "fast"),
    "ad_select": ("stable", "bandwidth", "count"),
}
_BOND_NUMBERS = ("miimon", "updelay", "downdelay", "use_carrier", "arp_interval", "resend_igmp", "num_grat_arp",
                 "all_slaves_active", "min_links", "lp_interval", "packets_per_slave")  # fmt: skip

Tell = Callable[[str], None]


class Host:
    """Kernel, records and root of one machine, for one run of a program. `tell` gets every problem, in words."""

    def __init__(self, kernel: Kernel, records: Records, root: Path, tell: Tell) -> None:
        self.kernel, self.records, self.root, self.tell = kernel, records, root, tell

    # -- bring up

    def bring_up(self, one: Interface, bridges: Mapping[str, Interface], later: Collection[str] = ()) -> bool:
        """Makes an interface what its files say; what is so already is left alone. -> everything was done.

        `bridges`: the bridges that have files, for a port that comes first. `later`: devices that come up after
        this one at a boot: a route must not find its way through them, or a reload would differ from a boot.
        """
        if one.skip:
            self.tell(str(one.skip))
            return False
        try:
            link = self._device(one)
        except OSError as error:
            self.tell(f"{one.file}: {_why(error)}; skipped")
            return False
        record = self._note(one, link)
        problems: list[str] = []
        lasting: list[str] = []  # they would be the same at a boot
        self._link_settings(record, problems)
        if one.port_of:
            self._attach(one, bridges, problems)
        else:
            self._attempt(problems, "set up", partial(self._up, one.device))
            record = self._layer3(record, later, problems, lasting)
        told = tuple(text if text.startswith("/") else f"{one.name}: {text}" for text in (*problems, *lasting))
        self.records.put(replace(record, state="failed" if problems else "complete", problems=told))
        for text in told:
            self.tell(text)
        return not told

    def _attempt(self, problems: list[str], what: str, action: Callable[[], object]) -> bool:
        try:
            action()
        except OSError as error:
            problems.append(f"{what}: {_why(error)}")
            return False
        return True

    def _up(self, device: str) -> None:
        link = self.kernel.link(device)
        if link and not link.up:
            self.kernel.set_link(link.index, state="up")

    def _device(self, one: Interface) -> Link:
        """The device of an interface; software devices are made. Raises OSError."""
        link = self.kernel.link(one.device)
        if one.kind == "ethernet":
            if link is None:
                raise OSError(errno.ENODEV, f"device {one.device} does not seem to be present")
            return link
        if link is not None and link.kind != one.kind:
            raise OSError(errno.EEXIST, f"device {one.device} is there, but is no {one.kind}")
        if link is not None:
            self._adopt(link)
            if one.kind == "bridge":
                self.kernel.set_bridge(link.index, dict(one.bridge))
            return link
        if one.kind == "bridge":
            return self._make_bridge(one.device, dict(one.bridge))
        if one.kind == "bond":
            return self._make(one.device, "bond", **_bond_options(one.bonding, self.tell))
        below = self.kernel.link(one.physdev or "")
        if below is None:
            raise OSError(errno.ENODEV, f"device {one.physdev}, below {one.device}, does not seem to be present")
        link = self._make(one.device, "vlan", link=below.index, vlan_id=one.vlan_id)
        self._up(below.name)
        return link

    def _make(self, device: str, kind: str, **options: object) -> Link:
        self.records.put_made(Made(device, kind, 0, {}))  # first: a program that is killed must leave no stray device
        try:
            link = self.kernel.create(device, kind, **options)
        except OSError as error:
            self.records.remove_made(device)
            if error.errno == errno.EOPNOTSUPP:
                text = f"no {_KINDS[kind]} support available in kernel for device {device}"
                raise OSError(error.errno, text) from None
            raise
        self.records.put_made(Made(device, kind, link.index, dict(link.options)))
        return link

    def _adopt(self, link: Link) -> None:
        """A device that was made by a program that was killed before it could note so."""
        made = self.records.made().get(link.name)
        if made and made.ifindex == 0 and made.kind == link.kind:
            self.records.put_made(Made(link.name, link.kind, link.index, dict(link.options)))

    def _make_bridge(self, device: str, options: Mapping[str, int]) -> Link:
        link = self._make(device, "bridge")
        self.kernel.set_bridge(link.index, options)
        return link

    def _note(self, one: Interface, link: Link) -> Applied:
        """The record of an interface before it is changed; values that an earlier, unfinished run noted stay."""
        old = self.records.get(one.name)
        if old is None or old.ifindex != link.index:
            old = Applied(one, link.name, link.index)
        noted = dict(old.sysctls)
        for name, _ in one.sysctls:
            value = self.kernel.sysctl(link.name, name)
            if name not in noted and value is not None:
                noted[name] = value
        below = self.kernel.link(one.physdev) if one.physdev else None
        record = replace(
            old,
            interface=one,
            mtu=link.mtu if old.mtu is None and one.mtu else old.mtu,
            mac=link.mac if old.mac is None and one.macaddr else old.mac,
            sysctls=tuple(noted.items()),
            raised=below.name if below and not self._is_applied(below.name) else old.raised,
            state="changing",
        )
        self.records.put(record)
        return record

    def _is_applied(self, device: str) -> bool:
        return any(record.device == device for record in self.records.applied())

    def _link_settings(self, record: Applied, problems: list[str]) -> None:
        one, kernel = record.interface, self.kernel
        link = kernel.link(record.device)
        if link is None:
            problems.append("the device has vanished")
            return
        if one.macaddr and link.mac != one.macaddr:
            what = f"MACADDR={one.macaddr}"
            self._attempt(problems, what, partial(kernel.set_link, link.index, address=one.macaddr))
        if one.mtu and link.mtu != one.mtu:
            self._attempt(problems, f"MTU={one.mtu}", partial(kernel.set_link, link.index, mtu=one.mtu))
        for name, value in one.sysctls:
            self._attempt(problems, f"{name}={value}", partial(kernel.set_sysctl, link.name, name, value))

    def _attach(self, one: Interface, bridges: Mapping[str, Interface], problems: list[str]) -> None:
        """Puts a port into its bridge or bond; a bridge that is missing is made, with the options of its file."""
        master, link = self.kernel.link(one.master or ""), self.kernel.link(one.device)
        if master is None and one.port_of == "bridge":
            options = dict(bridges[one.master or ""].bridge) if one.master in bridges else {}
            try:
                master = self._make_bridge(one.master or "", options)
            except OSError as error:
                problems.append(f"BRIDGE={one.master}: {_why(error)}")
        if master is not None and master.kind != one.port_of:
            problems.append(f"{one.master} is there, but is no {one.port_of}")
            return
        if master is None or link is None:
            problems.append(f"{one.port_of} {one.master} is not there")
            return
        if link.master == master.index and link.up:
            return
        # a port that is up already keeps its link-local address: the kernel would not make it again
        self._attempt(problems, "flush", partial(self.kernel.flush_addresses, link.index, link_local=not link.up))
        if one.port_of == "bond":  # bonding takes only ports that are down
            self._attempt(problems, "set down", partial(self.kernel.set_link, link.index, state="down"))
            self._attempt(problems, "attach", partial(self.kernel.set_link, link.index, master=master.index))
            self._attempt(problems, "set up", partial(self._up, one.device))
        else:
            self._attempt(problems, "set up", partial(self._up, one.device))
            self._attempt(problems, "attach", partial(self.kernel.set_link, link.index, master=master.index))

    def _layer3(self, record: Applied, later: Collection[str], problems: list[str], lasting: list[str]) -> Applied:
        one, device = record.interface, record.device
        v4 = [address for address in one.addresses if address.family == 4]
        routes = list(one.routes)
        if one.dhcp4:
            record = self._dhcp(record, "4", problems if dhcp.client("4") else lasting)
            if dhcp.client("4"):  # a client takes the place of all that is static, also where it fails (ifup-eth)
                v4 = []
                routes = [route for route in routes if not _of_gateway(route)]
        for address in (*v4, *(address for address in one.addresses if address.family == 6)):
            with_length = f"{address.address}/{address.prefix}"
            try:
                with let_pass(errno.EEXIST):
                    self.kernel.add_address(record.ifindex, address)
            except OSError as error:
                problems.append(f"address {with_length}: {_why(error)}")
        if any(route.family == 6 and route.source for route in routes):
            self.wait_for_addresses({device})  # the kernel takes no tentative address as a source
        if one.dhcp6:
            record = self._dhcp(record, "6", problems if dhcp.client("6") else lasting)
        return self._routes(record, routes, later, lasting)

    def _dhcp(self, record: Applied, family: str, problems: list[str]) -> Applied:
        if family in record.dhcp:
            return record
        started = replace(record, dhcp=(*record.dhcp, family))
        self.records.put(started)
        problem = dhcp.start(record.device, family, self.root)
        if problem:
            problems.append(problem)
            self.records.put(record)
        return record if problem else started

    def wait_for_addresses(self, devices: Collection[str]) -> bool:
        """Until duplicate address detection is over on these devices. -> no address failed it."""
        problems = self.kernel.wait_for_addresses(devices, SETTLE_TIMEOUT_S) if devices else []
        for problem in problems:
            self.tell(problem)
        return not problems

    # -- routes

    def _routes(self, record: Applied, routes: Sequence[Route], later: Collection[str], problems: list[str]) -> Applied:
        taken: list[Route] = [route for route in record.routes if self.kernel.find_route(route)]
        for route in routes:
            if any(replace(old, device=route.device) == route for old in taken):
                continue
            self.records.put(replace(record, routes=(*taken, route)))  # first: a killed program leaves no stray route
            try:
                found = self._route(route, later)
            except OSError as error:
                problems.append(f"{route.where}: route {route.written}: {_why(error)}")
                continue
            taken += [found] if found else []
        record = replace(record, routes=tuple(taken))
        self.records.put(record)
        return record

    def _route(self, route: Route, later: Collection[str]) -> Route | None:
        """Adds a route. -> it, with the device that the kernel chose; None: another one was there, and stays."""
        through = route.device or (self.kernel.device_towards(route.via) if route.via else None)
        if route.device in later:
            raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
        if through in later:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        command = "replace" if route.mode == "replace" else "add"
        try:
            self.kernel.route(command, route)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
            if route.mode == "keep":
                return None
            self.tell(f"{route.where}: route {route.written} is there already; replaced")
            self.kernel.route("replace", route)
        return self.kernel.find_route(route) or route

    def repair_routes(self) -> bool:
        """Puts back the routes of interfaces that were left alone while another was taken down.

        Where several ask for the same route the last one wins, as at a boot.
        """
        winners: dict[tuple[int, int, str, int, int], Route] = {}
        for record in self.records.applied():
            for route in record.routes:
                if not (route.mode == "keep" and route.key in winners):
                    winners[route.key] = route
        problems: list[str] = []
        for route in winners.values():
            if not self.kernel.find_route(route):
                what = f"{route.where}: route {route.written}"
                self._attempt(problems, what, partial(self.kernel.route, "replace", route))
        for problem in problems:
            self.tell(problem)
        return not problems

    def repair_order(self) -> bool:
        """Two interfaces in one IPv4 network: traffic leaves by the one that was first; as at a boot it shall be."""
        place = {record.device: number for number, record in reversed(list(enumerate(self.records.applied())))}
        groups: dict[tuple[int, int, str, int, int], list[Route]] = {}
        for route in self.kernel.connected():
            if route.device in place:
                groups.setdefault(route.key, []).append(route)
        problems: list[str] = []
        for routes in groups.values():
            right = sorted(routes, key=lambda route: place[route.device or ""])
            for route in right if right != routes else ():
                self._attempt(problems, f"order of {route.to}", partial(self.kernel.route, "del", route))
                self._attempt(problems, f"order of {route.to}", partial(self.kernel.route, "append", route))
        for problem in problems:
            self.tell(problem)
        return not problems

    # -- take down

    def take_down(self, record: Applied) -> bool:
        """Undoes a record: its routes and addresses go, MTU, MAC and sysctls are put back, the link is down.

        A VLAN or bond that was made is deleted; a bridge gets its options back, and is deleted by `collect`.
        """
        problems: list[str] = []
        record = replace(record, state="changing")
        self.records.put(record)
        for family in record.dhcp:
            dhcp.stop(record.device, family, self.root)
        link = self.kernel.link(record.device)
        present = link is not None and link.index == record.ifindex
        for route in reversed(record.routes):
            if route.device and (self.kernel.link(route.device) is None or not self.kernel.find_route(route)):
                continue
            with let_pass(errno.ESRCH, errno.ENODEV):
                self.kernel.route("del", route)
        if link is not None and present:
            self._reset(record, link, problems)
            made = self.records.made().get(record.device)
            if made and made.kind == "bridge":  # it goes when no port needs it any more (`collect`)
                self._attempt(problems, "reset", partial(self.kernel.set_bridge, link.index, made.options))
            elif made:
                self._delete(link.name, link.index)
        self.records.remove(record.interface.name)
        if record.raised and not self._is_applied(record.raised):
            below = self.kernel.link(record.raised)
            if below:
                self._attempt(problems, "set down", partial(self.kernel.set_link, below.index, state="down"))
        for problem in problems:
            self.tell(f"{record.interface.name}: {problem}")
        return not problems

    def _reset(self, record: Applied, link: Link, problems: list[str]) -> None:
        kernel = self.kernel
        self._attempt(problems, "flush", partial(kernel.flush_addresses, link.index))
        if record.interface.port_of and link.master:
            self._attempt(problems, "detach", partial(kernel.set_link, link.index, master=0))
        self._attempt(problems, "set down", partial(kernel.set_link, link.index, state="down"))
        if record.mac is not None:
            self._attempt(problems, f"MAC {record.mac}", partial(kernel.set_link, link.index, address=record.mac))
        if record.mtu is not None:
            self._attempt(problems, f"MTU {record.mtu}", partial(kernel.set_link, link.index, mtu=record.mtu))
        for name, value in reversed(record.sysctls):
            self._attempt(problems, f"{name}={value}", partial(kernel.set_sysctl, link.name, name, value))

    def _delete(self, device: str, index: int) -> None:
        with let_pass(errno.ENODEV):
            self.kernel.delete(index)
        self.records.remove_made(device)

    def recreate(self, device: str) -> list[int]:
        """Deletes a bridge that is to be made again. -> the interface indexes of its ports that are not ours."""
        link = self.kernel.link(device)
        if link is None or device not in self.records.made():
            return []
        owned = {record.ifindex for record in self.records.applied()}
        ports = [p.index for p in self.kernel.links().values() if p.master == link.index and p.index not in owned]
        self._delete(device, link.index)
        return ports

    def collect(self, with_foreign_ports: bool) -> None:
        """Deletes the bridges that were made and that no applied interface uses any more."""
        applied = self.records.applied()
        used = {record.device for record in applied} | {record.interface.master for record in applied}
        for made in self.records.made().values():
            link = self.kernel.link(made.device)
            if link is None or made.ifindex not in (0, link.index):
                self.records.remove_made(made.device)
            elif made.device not in used:
                ports = [port for port in self.kernel.links().values() if port.master == link.index]
                if with_foreign_ports or not ports:
                    self._delete(made.device, link.index)

    def attach_foreign(self, bridge: str, ports: Sequence[int]) -> bool:
        """Gives a bridge that was made again the ports that somebody else (containers, guests) had put there."""
        link = self.kernel.link(bridge)
        problems: list[str] = []
        for port in self.kernel.links().values():
            if link and port.index in ports and port.master == 0:
                what, index, master = f"{port.name} into {bridge}", port.index, link.index
                self._attempt(problems, what, partial(self.kernel.set_link, index, master=master))
        for problem in problems:
            self.tell(problem)
        return not problems

    # -- rules

    def sync_rules(self) -> bool:
        """Makes the rules in the kernel those of all applied interfaces, in the order of a boot.

        Rules before the first difference stay as they are. -> everything was done.
        """
        have = self.records.rules()
        wanted = [rule for record in self.records.applied() for rule in record.interface.rules]
        numbered, problems = self._with_priorities(wanted, have)
        same = 0
        changing = self.records.rules_are_changing()
        while not changing and same < min(len(have), len(numbered)) and have[same] == numbered[same]:
            same += 1
        if same < max(len(have), len(numbered)):
            self.records.put_rules(have, changing=True)
            for rule in reversed(have[same:]):
                with let_pass(errno.ENOENT):
                    self.kernel.rule("del", rule)
            self.records.put_rules(numbered, changing=True)
            kept = have[:same]
            for rule in numbered[same:]:
                what = f"{rule.where}: rule {rule.written}"
                kept += [rule] if self._attempt(problems, what, partial(self.kernel.rule, "add", rule)) else []
            self.records.put_rules(kept)
        for problem in problems:
            self.tell(problem)
        return not problems

    def _with_priorities(self, wanted: Sequence[Rule], have: Sequence[Rule]) -> tuple[list[Rule], list[str]]:
        foreign: dict[int, list[int]] = {}
        for family in (4, 6):
            priorities = self.kernel.rule_priorities(family)
            for rule in have:
                if rule.family == family and rule.priority in priorities:
                    priorities.remove(rule.priority)
            foreign[family] = priorities
        return number_rules(wanted, foreign)


def number_rules(wanted: Sequence[Rule], foreign: Mapping[int, Sequence[int]]) -> tuple[list[Rule], list[str]]:
    """Pure. Gives every rule the priority that the kernel would give it, added one after another.

    A rule without one gets the priority of the second rule in the list, less one (net/core/fib_rules.c,
    fib_default_rule_pref). The second value says which rules are there already: the kernel refuses those.
    """
    priorities = {family: sorted(foreign.get(family, ())) for family in (4, 6)}
    numbered: list[Rule] = []
    problems: list[str] = []
    for rule in wanted:
        listed = priorities[rule.family]
        if rule.priority is None:
            rule = replace(rule, priority=max(listed[1] - 1, 0) if len(listed) > 1 else 0)
        if rule in numbered:
            problems.append(f"{rule.where}: rule {rule.written}: {os.strerror(errno.EEXIST)}")
            continue
        listed.append(rule.priority or 0)
        listed.sort()
        numbered.append(rule)
    return numbered, problems


def _of_gateway(route: Route) -> bool:
    """The default route that GATEWAY in the ifcfg file asks for."""
    return route.family == 4 and route.mode == "replace"


def _bond_options(options: Sequence[tuple[str, str]], tell: Tell) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in options:
        names = _BOND_NAMES.get(name)
        if names and value in names:
            found[f"bond_{_BOND_ATTRIBUTES.get(name, name)}"] = names.index(value)
        elif is_number(value) and (names or name in _BOND_NUMBERS):
            found[f"bond_{_BOND_ATTRIBUTES.get(name, name)}"] = int(value)
        else:
            tell(f"BONDING_OPTS: {name}={value} is not supported; left out")
    return found


_BOND_ATTRIBUTES = {"lacp_rate": "ad_lacp_rate", "num_grat_arp": "num_peer_notif"}


def _why(error: OSError) -> str:
    """The kernel's reason, as a person would say it."""
    if error.errno == errno.ENETUNREACH:
        return "the gateway is not on a network of this machine (Network is unreachable)"
    return error.strerror or str(error)
