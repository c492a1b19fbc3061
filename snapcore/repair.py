"""What must be done to a kernel, in which order, to make its network state the saved one. Pure: states in, a plan out.

The order is that of dependence: what is new goes, children first; ports are freed before their masters go down;
devices are made again, parents first; MTUs are lowered from the top and raised from the base; settings come before
links are up, masters and bases are up before what stands on them; then addresses, IPv4 in their old order; routes on a
link before those by a gateway; rules, neighbours, forwarding entries, queueing disciplines and the firewall.

What the kernel does by itself (connected routes, link-local addresses, a flush when a link goes down) is left to it:
a plan adds such a thing only to a device that it does not otherwise touch. So one plan may not be enough: read again
and plan again, until nothing differs (`kernel.restore`).
"""

from __future__ import annotations

from snapcore import netstate
from snapcore.netstate import Address, Hop, Link, Route, Rule, State
from snapcore.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

MIN_IPV6_MTU = 1280
"""Below it the kernel takes IPv6 off a device (RFC 8200, section 5)."""
LOOPBACK, LINK_LOCAL = 1, 3
"""IFA_PROTO of the addresses that the kernel makes."""

SOFTWARE = frozenset(
    {"bridge", "bond", "dummy", "ifb", "ipvlan", "macvlan", "macvtap", "veth", "vlan", "vrf", "vxlan", "tun"}
    | {"geneve", "gre", "gretap", "ip6gre", "ip6gretap", "ip6tnl", "ipip", "sit"}
)
"""Kinds of devices that can be made again."""
CHANGEABLE = {
    "bridge": None,
    "bond": None,
    "macvlan": None,
    "macvtap": None,
    "ipvlan": None,
    "vlan": frozenset({"flags", "egress_qos", "ingress_qos"}),
    "vxlan": frozenset({"ageing", "learning", "group", "group6", "local", "local6", "ttl", "tos"}),
}
"""By kind, the options that a device can change; None: all but `FIXED`. Another one means: delete and make again."""
FIXED = {("bond", "mode")}
_PASSTHRU = "passthru"


class Action(NamedTuple):
    """One step of a plan."""

    verb: str
    """What `kernel.apply` does: `add-link`, `set-link`, `sysctl`, `add-address`, …; `cannot` is a step that nobody
    can take."""
    interface: str
    """"" where it is no interface's."""
    arguments: dict[str, Any]
    words: str

    def __str__(self) -> str:
        return f"{self.interface}: {self.words}" if self.interface else self.words


def plan(
    old: State,
    now: State,
    new_devices: str = "delete",
    external_ports: str = "keep",
    only: Sequence[str] = (),
) -> list[Action]:
    """The steps from `now` to `old`, in order; for the interfaces `only`, if any are named.

    `new_devices`: `delete` or `keep` devices that `old` does not know. `external_ports`: `keep` or `restore`: whether
    a container's or guest's port that was added to a master of `old` stays (`netstate.kept`).
    """
    planner = _Planner(old, now, new_devices, external_ports, only)
    for stage in (
        planner.rename,
        planner.remove_new,
        planner.free_ports,
        planner.remake,
        planner.down,
        planner.lower_mtus,
        planner.raise_mtus,
        planner.settings,
        planner.attributes,
        planner.masters,
        planner.vlans,
        planner.up,
        planner.port_options,
        planner.addresses,
        planner.rules_away,
        planner.routes,
        planner.rules,
        planner.neighbours,
        planner.forwarding,
        planner.qdiscs,
        planner.firewall,
    ):
        stage()
    return planner.actions


class _Planner:
    def __init__(self, old: State, now: State, new_devices: str, external_ports: str, only: Sequence[str]) -> None:
        self.old, self.now = old, now
        self.only = frozenset(only)
        self.new_devices, self.external_ports = new_devices, external_ports
        self.kept = netstate.kept(old, now, new_devices, external_ports)
        self.actions: list[Action] = []
        self.gone: set[str] = set()
        """Devices that the plan has deleted."""
        self.made: set[str] = set()
        """Devices that the plan has made."""
        self.lost = {name for name in old.links if name not in now.links}
        """Devices of `old` that are not there (yet)."""
        self.downed: set[str] = set()
        """Devices that the plan sets down for a moment."""
        self.flushed4: set[str] = set()
        self.flushed6: set[str] = set()
        """Devices whose IPv4 or IPv6 routes (and IPv6 addresses) the plan makes the kernel flush or make."""

    def do(self, verb: str, interface: str, words: str, **arguments: Any) -> None:
        self.actions.append(Action(verb, interface, arguments, words))

    def mine(self, name: str) -> bool:
        return not self.only or name in self.only

    def both(self) -> list[str]:
        """Devices that are there, and were: not those that the plan has made."""
        return [n for n in self.old.links if n in self.now.links and n not in self.made | self.gone and self.mine(n)]

    def standing(self) -> list[str]:
        """Devices of `old` that are there by now, also those that the plan has made."""
        return [name for name in self.old.links if name not in self.lost and self.mine(name)]

    def touch(self, *names: str) -> None:
        self.flushed4.update(names)
        self.flushed6.update(names)

    # -- devices -----------------------------------------------------------------------------------------------

    def rename(self) -> None:
        """A device that another one's name was given to, told by its index, gets its name back."""
        old, now = self.old, self.now
        index = {link.ifindex: name for name, link in now.links.items() if link.ifindex}
        renamed = {
            index[link.ifindex]: name
            for name, link in old.links.items()
            if self.mine(name) and link.ifindex in index and index[link.ifindex] != name
            and now.links[index[link.ifindex]].kind == link.kind
        }  # fmt: skip
        if not renamed:
            return
        for blocking in sorted(set(renamed.values()) & now.links.keys()):
            aside = _free_name(now)
            self.do("rename", blocking, f"rename to {aside} for a moment", to=aside)
            now = _renamed(now, blocking, aside)
            if blocking in renamed:
                renamed[aside] = renamed.pop(blocking)
        for current, name in sorted(renamed.items()):
            self.do("rename", current, f"rename to {name}", to=name)
            now = _renamed(now, current, name)
        self.now = now
        self.kept = netstate.kept(old, now, self.new_devices, self.external_ports)
        self.lost = {name for name in old.links if name not in now.links}

    def delete(self, name: str, why: str) -> None:
        """Deletes a device; with it goes what stands on it, and a veth's other end."""
        if name in self.gone or name not in self.now.links:
            return
        link = self.now.links[name]
        self.do("delete-link", name, f"delete ({link.kind or 'hardware'}, {why})")
        going = [name]
        while going:
            name = going.pop()
            self.gone.add(name)
            self.touch(name)
            if name in self.old.links:
                self.lost.add(name)
            peer = self.now.links[name].parent if self.now.links[name].kind == "veth" else ""
            going += [n for n, on in self.now.links.items() if n not in self.gone and (n == peer or on.parent == name)]

    def remove_new(self) -> None:
        strange = [n for n in self.now.links if n not in self.old.links and n not in self.kept and self.mine(n)]
        depth = _depths(self.now.links)
        for name in sorted(strange, key=lambda name: (-depth[name], name)):
            self.delete(name, "new")

    def free_ports(self) -> None:
        for name in self.both():
            was, now = self.old.links[name], self.now.links[name]
            if now.master and now.master != was.master and now.master not in self.gone:
                self.do("set-link", name, f"take out of {now.master}", master="")
                self.flush_for_master(name, now.master)

    def flush_for_master(self, name: str, master: str) -> None:
        """A VRF takes its port down and up again (cycle_netdev); a bridge leaves addresses alone."""
        kinds = {of.links[master].kind for of in (self.old, self.now) if master in of.links}
        if kinds - {"bridge"}:
            self.touch(name)

    def remake(self) -> None:
        """Deletes what cannot be changed into what it was, and makes what is not there, parents first."""
        for name in self.both():
            was, now = self.old.links[name], self.now.links[name]
            why = _fixed(was, now)
            if not why or name in self.gone:
                continue
            if not _makeable(was) or now.kind not in SOFTWARE:
                self.do("cannot", name, f"{why}: cannot be changed, and cannot be made again")
                continue
            self.delete(name, why)
        depth = _depths(self.old.links)
        for name in sorted(self.lost, key=lambda name: (depth[name], name)):
            if self.mine(name) and name in self.lost:
                self.make(name)

    def make(self, name: str) -> None:
        link = self.old.links[name]
        if not _makeable(link):
            self.do("cannot", name, f"is gone and cannot be made again ({_what(link)})")
            return
        if link.parent and link.kind != "veth" and link.parent in self.lost:
            self.do("cannot", name, f"cannot be made without {link.parent}")
            return
        arguments: dict[str, Any] = {"link": link}
        words = f"make again ({link.kind})"
        if link.kind == "veth":
            if link.parent in self.now.links and link.parent not in self.gone:
                self.delete(link.parent, f"its peer {name} is gone")
            arguments["peer"] = self.old.links[link.parent]
            words = f"make again (veth, peer {link.parent})"
        self.do("add-link", name, words, **arguments)
        for one in (name, *([link.parent] if link.kind == "veth" else [])):
            self.lost.discard(one)
            self.made.add(one)
            self.touch(one)

    def down(self) -> None:
        rank = _ranks(self.old.links)
        names = [n for n in self.both() if self.now.links[n].up and not self.old.links[n].up]
        for name in sorted(names, key=lambda name: (-rank[name], name)):
            self.do("set-link", name, "down", up=False)
            self.touch(name)

    def lower_mtus(self) -> None:
        self._mtus(lambda was, now: was < now, reverse=True)

    def raise_mtus(self) -> None:
        self._mtus(lambda was, now: was > now, reverse=False)

    def _mtus(self, wanted: Callable[[int, int], bool], reverse: bool) -> None:
        rank = _mtu_ranks(self.old.links)
        pairs = {n: (self.old.links[n].mtu, self.now.links[n].mtu) for n in self.both()}
        names = [name for name, (was, now) in pairs.items() if wanted(was, now)]
        for name in sorted(names, key=lambda name: (rank[name], name), reverse=reverse):
            was, now = pairs[name]
            self.do("set-link", name, f"MTU {was} (is {now})", mtu=was)
            if min(was, now) < MIN_IPV6_MTU:
                self.flushed6.add(name)

    def settings(self) -> None:
        """Those of all interfaces first: some of them set those of each."""
        wanted = []
        for path, was in self.old.sysctls.items():
            device = netstate.sysctl_device(path)
            if device in self.lost or (self.only and device not in self.only):
                continue
            now = self.now.sysctls.get(path)
            if device in self.made or (now is None and device):
                family, conf, _, key = path.split("/")
                default = f"{family}/{conf}/default/{key}"
                now = self.now.sysctls.get(default)  # what it was made with
            if was != now:
                wanted.append(path)
        spread = {path.replace("/all/", "/*/") for path in wanted if "/all/" in path} & _SPREADING
        spread |= {"ipv4/conf/*/forwarding"} if "ipv4/ip_forward" in wanted else set()
        for pattern in spread:
            head, tail = pattern.split("*")
            wanted += [p for p in self.old.sysctls if p.startswith(head) and p.endswith(tail) and "/all/" not in p]
        wanted += ["ipv4/conf/all/accept_redirects"] if "ipv4/ip_forward" in wanted else []
        for path in sorted(set(wanted), key=_sysctl_order):
            device = netstate.sysctl_device(path)
            if path in self.old.sysctls and device not in self.lost:
                value = self.old.sysctls[path]
                self.do("sysctl", device, f"net/{path} = {value}", path=path, value=value)
                if path.endswith(("/disable_ipv6", "/addr_gen_mode")):
                    self.flushed6.update([device] if device else self.old.links)

    def attributes(self) -> None:
        """All that a link is, but for its master, MTU and whether it is up."""
        for name in self.standing():
            was = self.old.links[name]
            now = self.now.links[name] if name not in self.made else _just_made(was)
            if was.mac and was.mac != now.mac and netstate.mac_counts(self.old, self.now, name):
                self.do("set-link", name, f"MAC {was.mac}", mac=was.mac)
                self.flushed6.add(name)
            for aspect, a, b in netstate.link_differences(was, now):
                if aspect in ("flags", "alias", "group", "queue"):
                    self.do("set-link", name, f"{aspect} {netstate.shown(a)}", **{aspect: a})
                elif aspect == "altnames":
                    self._altnames(name, a, b)
                elif aspect.startswith("option "):
                    option = aspect[len("option ") :]
                    words = f"{was.kind} {option} {netstate.shown(a)} (is {netstate.shown(b)})"
                    self.do("set-option", name, words, kind=was.kind, option=option, value=a)

    def _altnames(self, name: str, was: tuple[str, ...], now: tuple[str, ...]) -> None:
        for altname in now:
            if altname not in was:
                self.do("delete-altname", name, f"drop the name {altname}", altname=altname)
        for altname in was:
            if altname not in now:
                self.do("add-altname", name, f"add the name {altname}", altname=altname)

    def masters(self) -> None:
        for name in self.standing():
            was = self.old.links[name]
            now = self.now.links[name].master if name not in self.made else ""
            if was.master and was.master not in self.lost and (was.master != now or was.master in self.made):
                self._enslave(name, was.master)
        for name in sorted(self.kept):
            master = self.now.links[name].master
            if master in self.made:
                self._enslave(name, master)

    def _enslave(self, name: str, master: str) -> None:
        # A bond takes only ports that are down, and sets them up itself (bond_enslave).
        if self.old.links[master].kind == "bond":
            self.do("set-link", name, "down for a moment", up=False)
            self.downed.add(name)
        self.do("set-link", name, f"put into {master}", master=master)
        self.flush_for_master(name, master)

    def up(self) -> None:
        rank = _ranks(self.old.links)
        names = [
            name
            for name in self.standing()
            if self.old.links[name].up and (name in self.made | self.downed or not self.now.links[name].up)
        ]
        for name in sorted(names, key=lambda name: (rank[name], name)):
            self.do("set-link", name, "up", up=True)
            self.touch(name)

    def port_options(self) -> None:
        for name in self.both():
            was, now = self.old.links[name], self.now.links[name]
            master = self.old.links.get(was.master)
            if master is None or was.master != now.master:
                continue
            for option, value in sorted(was.port.items()):
                if now.port.get(option) != value:
                    words = f"port {option} {value} (is {now.port.get(option)})"
                    self.do("set-port-option", name, words, kind=master.kind, option=option, value=value)

    def vlans(self) -> None:
        for name in self.both():
            was, now = self.old.vlans.get(name, ()), self.now.vlans.get(name, ())
            bridge = self.old.links[name].kind == "bridge"
            for vlan in now:
                if vlan.id not in {other.id for other in was}:
                    self.do("delete-vlan", name, f"out of VLAN {vlan.id}", vlan=vlan, bridge=bridge)
            for vlan in was:
                if vlan not in now:
                    self.do("add-vlan", name, f"into VLAN {netstate.vlan_words(vlan)}", vlan=vlan, bridge=bridge)

    # -- addresses ---------------------------------------------------------------------------------------------

    def addresses(self) -> None:
        for name in self.standing():
            was = self.old.addresses.get(name, ())
            now = () if name in self.made else self.now.addresses.get(name, ())
            self._addresses4(name, [a for a in was if a.family == "v4"], [a for a in now if a.family == "v4"])
            self._addresses6(name, [a for a in was if a.family == "v6"], [a for a in now if a.family == "v6"])

    def _addresses4(self, name: str, was: list[Address], now: list[Address]) -> None:
        promote = any(
            self.old.sysctls.get(f"ipv4/conf/{scope}/promote_secondaries", "0") != "0" for scope in ("all", name)
        )
        away, back = order_addresses(netstate.comparable(was), netstate.comparable(now), promote)
        lives = {_identity(address): address for address in was}
        for address in away:
            self.delete_address(name, address)
        for address in back:
            self.add_address(name, lives[_identity(address)])
        if away or back:
            self.flushed4.add(name)

    def _addresses6(self, name: str, was: list[Address], now: list[Address]) -> None:
        flushed = name in self.flushed6
        if not flushed:
            now = [address for address in now if not self._renew(name, address)]
        wanted, there = netstate.comparable(was), netstate.comparable(now)
        for address in there:
            if address not in wanted and not (flushed and _made_by_kernel(address)):
                self.delete_address(name, address)
                self.flushed6.add(name)
        # The kernel puts the newest first; `comparable` has sorted them.
        for address in reversed(was):
            plain = netstate.comparable([address])
            if plain and (flushed or plain[0] not in there) and not (flushed and _made_by_kernel(address)):
                self.add_address(name, address)
                self.flushed6.add(name)

    def _renew(self, name: str, address: Address) -> bool:
        """An IPv6 address whose own route is missing is removed, to be added again: nobody but the kernel can make a
        route of metric 0 (ip6_route_info_create)."""
        local = Route("v6", f"{address.address.split('/')[0]}/128", 255, "local", (Hop(name),))
        local = local._replace(protocol=netstate.KERNEL)
        if address.tentative or local in self.now.routes or local not in self.old.routes:
            return False
        self.delete_address(name, address)
        return True

    def delete_address(self, name: str, address: Address) -> None:
        self.do("delete-address", name, f"remove {netstate.address_words(address)}", address=address)

    def add_address(self, name: str, address: Address) -> None:
        self.do("add-address", name, f"add {netstate.address_words(address)}", address=address)

    # -- routes and rules --------------------------------------------------------------------------------------

    def routes(self) -> None:
        flushed = {"v4": self.flushed4, "v6": self.flushed6}
        were, are = netstate.counted(self.old.routes), netstate.counted(self.now.routes)
        surplus, missing = [], []
        for route in are:
            if are[route] > were.get(route, 0) and self._route_is_mine(route) and not self._comes_and_goes(route):
                surplus.append(route)
        for route in map(_original(self.old), were):
            devices = {hop.device for hop in route.hops}
            absent = were[netstate.same_route(route)] > are.get(netstate.same_route(route), 0)
            doubtful = bool(devices & flushed[route.family]) or _from(route, self.flushed4 | self.flushed6, self.old)
            if (absent or doubtful) and self._route_is_mine(route) and not self._comes_and_goes(route):
                missing.append((route, absent))
        replaced = {id(a) for route, absent in missing if absent for a in self._replaces(route, surplus, missing)}
        for route in sorted(surplus, key=_route_order, reverse=True):
            if id(route) not in replaced:
                words = f"remove route {netstate.route_words(route)}"
                self.do("delete-route", netstate.route_device(route), words, route=route)
        for route, absent in sorted(missing, key=lambda pair: _route_order(pair[0])):
            verb = "replace-route" if absent and self._replaces(route, surplus, missing) else "add-route"
            self.do(verb, netstate.route_device(route), f"{verb[:-6]} route {netstate.route_words(route)}", route=route)

    def _route_is_mine(self, route: Route) -> bool:
        devices = {hop.device for hop in route.hops}
        if devices & (self.lost | self.kept) or not all(d in self.old.links for d in devices if d):
            return False
        return not self.only or bool(devices & self.only)

    def _comes_and_goes(self, route: Route) -> bool:
        """Whether the kernel has made the route, and will by itself make or remove it."""
        flushed = self.flushed4 if route.family == "v4" else self.flushed6
        beyond_us = route.family == "v6" and not route.metric  # see `_renew`
        return netstate.follows(route) and (beyond_us or netstate.uses(route, flushed))

    def _replaces(self, route: Route, surplus: Sequence[Route], missing: Sequence[tuple[Route, bool]]) -> list[Route]:
        """The one route that the kernel puts this one in the place of, without a moment in between."""
        same = [other for other in surplus if _place(other) == _place(route)]
        alone = sum(_place(other) == _place(route) for other in (*self.now.routes,)) == 1
        alone = alone and sum(_place(other) == _place(route) for other in self.old.routes) == 1
        like = len(same) == 1 and same[0].type == route.type and bool(same[0].hops) == bool(route.hops)
        return same if like and alone and route.family == "v4" and not netstate.follows(route) else []

    def rules_away(self) -> None:
        for was, now in self._rule_groups():
            if was[: len(now)] != now:
                # The kernel deletes the first rule that has what is asked for: the most particular one first.
                for rule in sorted(now, key=lambda rule: -_particular(rule)):
                    self.do("delete-rule", "", f"remove rule {netstate.rule_words(rule)}", rule=rule)

    def rules(self) -> None:
        for was, now in self._rule_groups():
            kept = len(now) if was[: len(now)] == now else 0
            for rule in was[kept:]:
                self.do("add-rule", "", f"add rule {netstate.rule_words(rule)}", rule=rule)

    def _rule_groups(self) -> list[tuple[list[Rule], list[Rule]]]:
        """For each family and priority: the rules of old and those of now, where they differ."""
        groups: dict[tuple[str, int], tuple[list[Rule], list[Rule]]] = {}
        for which, rules in enumerate((self.old.rules, self.now.rules)):
            for rule in rules:
                devices = netstate.rule_devices(rule)
                if not (devices & self.kept) and (not self.only or devices & self.only):
                    groups.setdefault((rule.family, rule.priority), ([], []))[which].append(rule)
        return [(was, now) for _, (was, now) in sorted(groups.items()) if was != now]

    # -- the rest ----------------------------------------------------------------------------------------------

    def neighbours(self) -> None:
        self._entries("neighbour", self.old.neighbours, self.now.neighbours, netstate.neighbour_words)

    def forwarding(self) -> None:
        self._entries("fdb", self.old.fdb, self.now.fdb, netstate.fdb_words)

    def _entries(self, what: str, was: Sequence[Any], now: Sequence[Any], words: Callable[[Any], str]) -> None:
        flushed = self.flushed4 | self.flushed6
        standing = set(self.standing())
        for entry in now:
            if entry not in was and entry.device in standing - self.made:
                self.do(f"delete-{what}", entry.device, f"remove {what} {words(entry)}", entry=entry)
        for entry in was:
            if entry.device in standing and (entry not in now or entry.device in flushed):
                self.do(f"add-{what}", entry.device, f"add {what} {words(entry)}", entry=entry)

    def qdiscs(self) -> None:
        for name in self.standing():
            was = self.old.qdiscs.get(name, ())
            now = () if name in self.made else self.now.qdiscs.get(name, ())
            for qdisc in now:
                if qdisc not in was:
                    self.do("delete-qdisc", name, f"remove qdisc {qdisc.kind}", qdisc=qdisc)
            for qdisc in was:
                if qdisc not in now:
                    self.do("add-qdisc", name, f"set qdisc {qdisc.kind}", qdisc=qdisc)

    def firewall(self) -> None:
        if self.old.nft and self.now.nft and self.old.nft != self.now.nft and not self.only:
            self.do("nft", "", "nftables: put the saved rule set in the place of this one", text=self.old.nft)


# -- devices -----------------------------------------------------------------------------------------------------


def _makeable(link: Link) -> bool:
    if link.foreign or link.kind not in SOFTWARE:
        return False
    return link.kind != "tun" or bool(link.options.get("persist"))


def _just_made(link: Link) -> Link:
    """What it is after `add-link`."""
    return link._replace(flags=("multicast",), master="", altnames=(), port={}, alias="", group=0)


def _what(link: Link) -> str:
    if link.foreign:
        return f"{link.kind}, its other end is in another namespace"
    return link.kind or "hardware"


def _fixed(was: Link, now: Link) -> str:
    """What of a device can only be changed by making it again, in words; "" if nothing."""
    if was.kind != now.kind:
        return f"{now.kind or 'hardware'}, was {was.kind or 'hardware'}"
    if (was.parent, was.foreign) != (now.parent, now.foreign):
        return f"on {now.parent or 'nothing'}, was on {was.parent or 'nothing'}"
    for option, value in was.options.items():
        other = now.options.get(option)
        if value == other:
            continue
        changeable = CHANGEABLE.get(was.kind, frozenset())
        may = (was.kind, option) not in FIXED if changeable is None else option in changeable
        if not may or _PASSTHRU in (value, other):
            return f"{was.kind} {option} {netstate.shown(other)}, was {netstate.shown(value)}"
    return ""


def _depths(links: Mapping[str, Link]) -> dict[str, int]:
    """How many devices a device stands on. The ends of a veth stand on nothing."""
    return _levels(links, lambda name: [links[name].parent] if links[name].kind != "veth" else [])


def _ranks(links: Mapping[str, Link]) -> dict[str, int]:
    """The order of going up: bases before what stands on them, masters before their ports."""
    return _levels(
        links, lambda name: [*([links[name].parent] if links[name].kind != "veth" else []), links[name].master]
    )


def _mtu_ranks(links: Mapping[str, Link]) -> dict[str, int]:
    """The order of raising MTUs: as of going up, but a bridge after its ports."""
    ports = {name: [n for n, link in links.items() if link.master == name] for name in links}

    def below(name: str) -> list[str]:
        link = links[name]
        found = [link.parent] if link.kind != "veth" else []
        if link.kind == "bridge":
            return found + ports[name]
        return found if link.master not in links or links[link.master].kind == "bridge" else [*found, link.master]

    return _levels(links, below)


def _levels(links: Mapping[str, Link], below: Callable[[str], Iterable[str]]) -> dict[str, int]:
    found: dict[str, int] = {}

    def level(name: str, above: frozenset[str]) -> int:
        if name not in found:
            under = [n for n in below(name) if n in links and n not in above]
            found[name] = 1 + max((level(n, above | {name}) for n in under), default=-1)
        return found[name]

    for name in links:
        level(name, frozenset())
    return found


def _free_name(state: State) -> str:
    number = 0
    while f"snapcore{number}" in state.links:
        number += 1
    return f"snapcore{number}"


def _renamed(state: State, name: str, to: str) -> State:
    """The state after a device was renamed."""

    def new(value: str) -> str:
        return to if value == name else value

    def device(values: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(value._replace(device=new(value.device)) for value in values)

    def keyed(values: Mapping[str, Any]) -> dict[str, Any]:
        return {new(key): value for key, value in values.items()}

    return state._replace(
        links={
            new(key): link._replace(master=new(link.master), parent=new(link.parent))
            for key, link in state.links.items()
        },
        addresses=keyed(state.addresses),
        routes=tuple(route._replace(hops=device(route.hops)) for route in state.routes),
        neighbours=device(state.neighbours),
        fdb=device(state.fdb),
        vlans=keyed(state.vlans),
        sysctls={
            path.replace(f"/conf/{name}/", f"/conf/{to}/") if netstate.sysctl_device(path) == name else path: value
            for path, value in state.sysctls.items()
        },
        qdiscs=keyed(state.qdiscs),
    )


_SPREADING = frozenset(
    {
        "ipv6/conf/*/forwarding",
        "ipv6/conf/*/disable_ipv6",
        "ipv6/conf/*/addr_gen_mode",
        "ipv6/conf/*/ignore_routes_with_linkdown",
        "ipv6/conf/*/disable_policy",
    }
)
"""Settings that, set for all, are set for each (addrconf.c)."""


def _sysctl_order(path: str) -> tuple[int, str]:
    device = netstate.sysctl_device(path)
    rank = 3 if device else 2 if "/default/" in path else 1 if "/all/" in path else 0
    return rank, path


# -- addresses ---------------------------------------------------------------------------------------------------


def order_addresses(was: list[Address], now: list[Address], promote: bool) -> tuple[list[Address], list[Address]]:
    """Which IPv4 addresses to remove and which to add, each in order, so that a device's list becomes `was`.

    As few as the kernel's rules allow (devinet.c): a new address of a subnet that is there becomes secondary and goes
    last, another one goes behind the primary ones of its scope; a primary one takes its secondaries along, or
    (`promote`) leaves the first of them in its place.
    """
    if was == now:
        return [], []
    keep = len(was)
    while True:
        stay = [address for address in now if address in was[:keep]]
        away = [address for address in reversed(now) if address not in stay]
        left = list(now)
        removed = []
        for address in sorted(away, key=lambda address: "secondary" not in address.flags):
            if any(_identity(address) == _identity(other) for other in left):
                removed.append(address)
                left = _without(left, address, promote)
        back = [address for address in was if address not in left]
        result = left
        for address in back:
            result = _with(result, address)
        if result == was or not keep:
            return removed, back
        keep //= 2


def _identity(address: Address) -> tuple[str, str]:
    return address.address, address.peer


def _network(address: Address) -> tuple[int, int]:
    length = int(address.address.split("/")[1])
    number = 0
    for part in (address.peer or address.address).split("/")[0].split("."):
        number = number * 256 + int(part)
    return number >> (32 - length), length


def _with(addresses: list[Address], new: Address) -> list[Address]:
    """__inet_insert_ifa()."""
    flags = [flag for flag in new.flags if flag != "secondary"]
    place = 0
    for at, other in enumerate(addresses):
        if "secondary" not in other.flags and new.scope <= other.scope:
            place = at + 1
        if _network(other) == _network(new):
            flags = sorted([*flags, "secondary"]) if "secondary" not in flags else flags
    if "secondary" in flags:
        place = len(addresses)
    return [*addresses[:place], new._replace(flags=tuple(flags)), *addresses[place:]]


def _without(addresses: list[Address], gone: Address, promote: bool) -> list[Address]:
    """__inet_del_ifa()."""
    rest = [address for address in addresses if _identity(address) != _identity(gone)]
    if "secondary" in gone.flags:
        return rest
    seconds = [a for a in rest if "secondary" in a.flags and _network(a) == _network(gone)]
    rest = [address for address in rest if address not in seconds]
    if not promote or not seconds:
        return rest
    first, *others = seconds
    promoted = first._replace(flags=tuple(flag for flag in first.flags if flag != "secondary"))
    primaries = [address for address in rest if "secondary" not in address.flags]
    return [*primaries, promoted, *[a for a in rest if a not in primaries], *others]


def _made_by_kernel(address: Address) -> bool:
    """A link-local address, or ::1; kernels before 5.18 do not say who made it."""
    return address.protocol in (LOOPBACK, LINK_LOCAL) or (address.protocol == 0 and address.address.startswith("fe80:"))


# -- routes and rules --------------------------------------------------------------------------------------------


def _original(old: State) -> Callable[[Route], Route]:
    """The route as it was saved, with what is not compared."""
    saved = {netstate.same_route(route): route for route in old.routes}
    return lambda route: saved[route]


def _from(route: Route, devices: set[str], old: State) -> bool:
    """Whether the route sends from an address of one of these devices: it goes when the address does."""
    return bool(route.prefsrc) and any(
        address.address.split("/")[0] == route.prefsrc for name in devices for address in old.addresses.get(name, ())
    )


def _place(route: Route) -> tuple[Any, ...]:
    """What only one route has, as far as `replace` goes."""
    return route.family, route.table, route.destination, route.source, route.tos, route.metric


def _route_order(route: Route) -> tuple[int, int, int]:
    """Those on a link before those by a gateway, narrower scopes first (fib_check_nh): a gateway must be reachable."""
    gateway = any(hop.gateway for hop in route.hops)
    return int(gateway), -route.scope, {"local": 0, "broadcast": 1}.get(route.type, 2)


def _particular(rule: Rule) -> int:
    return sum(map(bool, (rule.source, rule.destination, rule.tos, rule.invert))) + len(rule.attributes)
