"""The running kernel: reads its network state over netlink, carries out a plan, and gives a saved state back.

The only module that needs pyroute2 (0.7 to 0.9), which it imports when it is asked for something. Works on the network
namespace of the calling thread: netlink(7) sockets belong to the namespace they are opened in, and /proc/sys/net shows
that of the reader.
"""

from __future__ import annotations

import errno
import os
import struct

from snapcore import netmessage, netstate, repair
from snapcore.errors import SnapcoreError
from snapcore.netstate import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from snapcore.netstate import Change, Link, Neighbour, Qdisc, Vlan
    from snapcore.repair import Action

ROUNDS = 6
"""How often is read, planned and repaired before what still differs is said. What one round brings back (a link) may
be what the next one builds on (its routes)."""
READS = 10
"""How often a list that changed while it was read is read again."""
NFT_S = 30.0
SETTLE_S = 3.0
"""How long links may take to become operational, and IPv6 addresses that a route wants to send from to be tried."""
SYSCTLS = "/proc/sys/net"

_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_CREATE, _EXCL, _REPLACE, _APPEND = 0x400, 0x200, 0x100, 0x800
_NEWLINK, _DELLINK, _SETLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE = 16, 17, 19, 20, 21, 24, 25
_NEWNEIGH, _DELNEIGH, _GETNEIGH, _NEWRULE, _DELRULE, _NEWQDISC, _DELQDISC = 28, 29, 30, 32, 33, 36, 37
_NEWLINKPROP, _DELLINKPROP = 108, 109
_LEFT_OUT = frozenset(["mc_forwarding", "stable_secret"])
_GLOBAL = (
    "ipv4/ip_forward",
    "ipv4/ip_nonlocal_bind",
    "ipv6/ip_nonlocal_bind",
    "ipv6/bindv6only",
    "ipv4/fib_multipath_hash_policy",
    "ipv6/fib_multipath_hash_policy",
    "ipv4/fib_multipath_use_neigh",
    "ipv4/icmp_echo_ignore_all",
    "ipv4/icmp_echo_ignore_broadcasts",
    "ipv4/ip_default_ttl",
    "bridge/bridge-nf-call-iptables",
    "bridge/bridge-nf-call-ip6tables",
    "bridge/bridge-nf-call-arptables",
)


_ALREADY = {
    False: frozenset({errno.EEXIST}),
    True: frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL}),
}
"""Answers that mean: it is so already. By whether something is to be deleted."""
_LINK_ATTRIBUTES = {
    "mtu": "IFLA_MTU",
    "mac": "IFLA_ADDRESS",
    "alias": "IFLA_IFALIAS",
    "group": "IFLA_GROUP",
    "queue": "IFLA_TXQLEN",
}
_UNWRITABLE = (TypeError, ValueError, AttributeError, struct.error)
"""What pyroute2 raises at a value that it cannot encode."""
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER, _TUNSETGROUP = 0x400454CA, 0x400454CB, 0x400454CC, 0x400454CE
"""linux/if_tun.h"""


class Unavailable(SnapcoreError):
    """The kernel's state cannot be read: pyroute2 is missing, or netlink refuses."""


def missing() -> str:
    """Why the kernel's state cannot be read here, in words; "" if it can."""
    try:
        import pyroute2  # noqa: F401
    except ImportError as error:
        return f"pyroute2 is not installed ({error})" if "'pyroute2'" in str(error) else f"pyroute2: {error}"
    return ""


def read(nft: bool = False) -> State:
    """The network state of this thread's network namespace; with `nft` also the nftables rule set.

    `Unavailable` without pyroute2, or where netlink or nft(8) refuse.
    """
    with _Session() as session:
        return session.read(nft)


def apply(actions: Sequence[Action]) -> list[str]:
    """Carries out a plan, one action after the other, also after one that fails. The troubles, in words."""
    with _Session() as session:
        session.look()
        return session.apply(actions)


def restore(
    old: State,
    new_devices: str = "delete",
    external_ports: str = "keep",
    only: Sequence[str] = (),
) -> tuple[list[Change], list[str]]:
    """Makes the kernel's state equal to `old`: read, plan, apply, until nothing differs or nothing gets better.

    What still differs, and the troubles of the last round. `Unavailable` as `read`.
    """
    with _Session() as session:
        nft = bool(old.nft)
        troubles: list[str] = []
        now = session.read(nft)
        left = netstate.differences(old, now, only, new_devices, external_ports)
        for _ in range(ROUNDS):
            actions = repair.plan(old, now, new_devices, external_ports, only) if left else []
            if not actions:
                break
            troubles = session.apply(actions)
            session.settle(old)
            now, before = session.read(nft), left
            left = netstate.differences(old, now, only, new_devices, external_ports)
            if left == before:
                break
        return left, troubles if left else []


class _Session:
    """One netlink socket, and the devices behind it by index and by name."""

    def __init__(self) -> None:
        why = missing()
        if why:
            raise Unavailable(why)
        from pyroute2 import IPRoute
        from pyroute2.netlink import exceptions

        self.error: type[Exception] = exceptions.NetlinkError
        # Not every release has it; the others do not notice.
        self.interrupted: Any = getattr(exceptions, "NetlinkDumpInterrupted", ())
        self.classes = _classes()
        try:
            self.ip = IPRoute()
            getattr(self.ip, "status", {}).setdefault(
                "nlm_generator", False
            )  # some releases of 0.9 ask for it and do not set it
        except OSError as error:
            raise Unavailable(f"netlink: {error}") from None
        self.names: dict[int, str] = {}
        self.indexes: dict[str, int] = {}

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.ip.close()

    # -- reading -----------------------------------------------------------------------------------------------

    def read(self, nft: bool) -> State:
        try:
            links = self._links()
            state = State(
                links=links,
                addresses=self._addresses(),
                routes=self._routes(),
                rules=self._rules(),
                neighbours=self._neighbours(),
                fdb=self._fdb(links),
                vlans=self._vlans(),
                sysctls=_sysctls(links),
                qdiscs=self._qdiscs(),
            )
        except OSError as error:
            raise Unavailable(f"netlink: {error}") from None
        return state._replace(nft=_nft()) if nft else state

    def _dump(self, ask: Callable[[], Any]) -> list[Any]:
        """All messages of a list; asked for again where the list changed meanwhile (NLM_F_DUMP_INTR). `Unavailable`."""
        for _ in range(READS):
            try:
                return list(ask())
            except self.interrupted:
                continue
            except self.error as error:
                raise Unavailable(f"netlink: {_reason(error)}") from None
        raise Unavailable(f"netlink: what is read keeps changing ({READS} times)")

    def look(self) -> list[Any]:
        """All links; takes down their names."""
        messages = self._dump(self.ip.get_links)
        self.names = {message["index"]: netmessage.text(message.get_attr("IFLA_IFNAME")) for message in messages}
        self.indexes = {name: index for index, name in self.names.items()}
        return messages

    def _links(self) -> dict[str, Link]:
        found = (netmessage.link(message, self.names) for message in self.look())
        return {self.names[link.ifindex]: link for link in found}

    def _addresses(self) -> dict[str, tuple[netstate.Address, ...]]:
        found: dict[str, list[netstate.Address]] = {}
        for message in self._dump(self.ip.get_addr):
            name = self.names.get(message["index"])
            if name is not None and message["family"] in netmessage.FAMILIES:
                found.setdefault(name, []).append(netmessage.address(message, name))
        return {name: tuple(group) for name, group in found.items()}

    def _by_family(self, ask: Callable[..., Any]) -> Iterator[Any]:
        for family in netmessage.FAMILIES:
            for message in self._dump(lambda family=family: ask(family=family)):  # type: ignore[misc] # bound at once
                if message["family"] == family:
                    yield message

    def _routes(self) -> tuple[netstate.Route, ...]:
        messages = self._by_family(self.ip.get_routes)
        cloned = 0x200
        return tuple(netmessage.route(m, self.names) for m in messages if not m["flags"] & cloned)

    def _rules(self) -> tuple[netstate.Rule, ...]:
        return tuple(netmessage.rule(message) for message in self._by_family(self.ip.get_rules))

    def _neighbours(self) -> tuple[Neighbour, ...]:
        messages = [m for m in self._by_family(self.ip.get_neighbours) if m["state"] & netmessage.PERMANENT]
        for family in netmessage.FAMILIES:
            fields = {"family": family, "flags": netmessage.PROXY}
            messages += [
                message
                for message in self._list("neighbour", fields, _GETNEIGH)
                if message["flags"] & netmessage.PROXY and message["family"] == family
            ]
        found = (netmessage.neighbour(message, self.names) for message in messages)
        return tuple(entry for entry in found if entry.device)

    def _list(self, what: str, fields: dict[str, Any], type_: int) -> list[Any]:
        return self._dump(lambda: self.ip.nlm_request(self._message(what, fields, []), type_, _REQUEST | _DUMP))

    def _fdb(self, links: Mapping[str, Link]) -> tuple[netstate.Fdb, ...]:
        messages = self._list("link", {"family": netmessage.BRIDGE}, _GETNEIGH)
        found = (netmessage.fdb(message, self.names, links) for message in messages)
        return tuple(entry for entry in found if entry is not None)

    def _vlans(self) -> dict[str, tuple[Vlan, ...]]:
        found = {self.names.get(m["index"], ""): netmessage.vlans(m) for m in self._dump(self.ip.get_vlans)}
        return {name: group for name, group in found.items() if name and group}

    def _qdiscs(self) -> dict[str, tuple[Qdisc, ...]]:
        found: dict[str, list[Qdisc]] = {}
        for message in self._dump(self.ip.get_qdiscs):
            qdisc = netmessage.qdisc(message)
            name = self.names.get(message["index"])
            if name is not None and qdisc is not None:
                found.setdefault(name, []).append(qdisc)
        return {name: tuple(sorted(group)) for name, group in found.items()}

    # -- repairing ---------------------------------------------------------------------------------------------

    def apply(self, actions: Sequence[Action]) -> list[str]:
        troubles = []
        for action in actions:
            if action.verb == "cannot":
                troubles.append(str(action))
                continue
            try:
                getattr(self, "_do_" + action.verb.replace("-", "_"))(action.interface, **action.arguments)
            except self.error as error:
                if getattr(error, "code", 0) not in _ALREADY[action.verb.split("-")[0] == "delete"]:
                    troubles.append(f"{action}: {_reason(error)}")
            except KeyError as error:
                troubles.append(f"{action}: {error.args[0]} is not there")
            except (OSError, Unavailable) as error:
                troubles.append(f"{action}: {error}")
            except _UNWRITABLE as error:
                troubles.append(f"{action}: this pyroute2 cannot write it ({error!r})")
        return troubles

    def _ask(self, what: str, type_: int, flags: int, fields: Mapping[str, Any], attributes: Sequence[Any]) -> None:
        list(self.ip.nlm_request(self._message(what, fields, attributes), type_, _REQUEST | _ACK | flags))

    def _message(self, what: str, fields: Mapping[str, Any], attributes: Sequence[tuple[str, Any]]) -> Any:
        message = self.classes[what]()
        for name, value in fields.items():
            message[name] = value
        message["attrs"] = list(attributes)
        return message

    def _set_link(self, name: str, attributes: Sequence[Any], flags: int = 0, change: int = 0) -> None:
        fields = {"index": self.indexes[name], "flags": flags, "change": change}
        self._ask("link", _NEWLINK, 0, fields, attributes)

    def _do_rename(self, name: str, to: str) -> None:
        try:
            self._set_link(name, [("IFLA_IFNAME", to)])
        except self.error as error:
            if getattr(error, "code", 0) != errno.EBUSY:
                raise
            self._set_link(name, [], 0, 1)  # before Linux 6.3 only what is down can be renamed
            self._set_link(name, [("IFLA_IFNAME", to)])
        self.look()

    def _do_delete_link(self, name: str) -> None:
        self._ask("link", _DELLINK, 0, {"index": self.indexes[name]}, [])
        self.look()

    def _do_add_link(self, name: str, link: Link, peer: Link | None = None) -> None:
        if link.kind == "tun":
            _make_tun(name, link)
            self.look()
            self._set_link(name, _basics(link))
            return
        info: list[Any] = [("IFLA_INFO_KIND", link.kind)]
        attributes = [("IFLA_IFNAME", name), *_basics(link)]
        options = netmessage.data_attributes(link.kind, _at_birth(link), self.indexes)
        if peer is not None:
            options = [("VETH_INFO_PEER", {"attrs": [("IFLA_IFNAME", link.parent), *_basics(peer)]})]
        elif link.parent and link.kind in netmessage.NAME_THEIR_BASE:
            options += netmessage.base_attributes(link.kind, self.indexes[link.parent])
        elif link.parent:
            attributes.append(("IFLA_LINK", self.indexes[link.parent]))
        if options:
            info.append(("IFLA_INFO_DATA", {"attrs": options}))
        self._ask("link", _NEWLINK, _CREATE | _EXCL, {}, [*attributes, ("IFLA_LINKINFO", {"attrs": info})])
        is_now = self._links()[name]
        for option, value in sorted(link.options.items()):
            if is_now.options.get(option) != value:
                try:
                    self._do_set_option(name, link.kind, option, value)
                except self.error:
                    pass  # one that is refused now is seen when all is read again

    def _do_set_link(self, name: str, **wanted: Any) -> None:
        attributes: list[Any] = []
        flags = change = 0
        for aspect, value in wanted.items():
            if aspect == "up":
                flags, change = flags | int(value), change | 1
            elif aspect == "flags":
                flags |= sum(netmessage.LINK_FLAGS[flag] for flag in value)
                change |= sum(netmessage.LINK_FLAGS.values())
            elif aspect == "master":
                attributes.append(("IFLA_MASTER", self.indexes[value] if value else 0))
            else:
                attributes.append((_LINK_ATTRIBUTES[aspect], value))
        try:
            self._set_link(name, attributes, flags, change)
        except self.error as error:
            if getattr(error, "code", 0) != errno.EBUSY or "mac" not in wanted:
                raise
            self._set_link(name, [], 0, 1)  # some drivers change their address only while they are down
            self._set_link(name, attributes)
            self._set_link(name, [], 1, 1)

    def _do_set_option(self, name: str, kind: str, option: str, value: Any) -> None:
        data = netmessage.data_attributes(kind, {option: value}, self.indexes)
        info = [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", {"attrs": data})]
        self._set_link(name, [("IFLA_LINKINFO", {"attrs": info})])

    def _do_set_port_option(self, name: str, kind: str, option: str, value: Any) -> None:
        data = netmessage.port_attributes(kind, {option: value})
        info = [("IFLA_INFO_SLAVE_KIND", kind), ("IFLA_INFO_SLAVE_DATA", {"attrs": data})]
        self._set_link(name, [("IFLA_LINKINFO", {"attrs": info})])

    def _altname(self, type_: int, name: str, altname: str) -> None:
        properties = ("IFLA_PROP_LIST", {"attrs": [("IFLA_ALT_IFNAME", altname)]})
        flags = _CREATE | _EXCL | _APPEND if type_ == _NEWLINKPROP else 0
        self._ask("link", type_, flags, {"index": self.indexes[name]}, [properties])

    def _do_add_altname(self, name: str, altname: str) -> None:
        self._altname(_NEWLINKPROP, name, altname)

    def _do_delete_altname(self, name: str, altname: str) -> None:
        self._altname(_DELLINKPROP, name, altname)

    def _do_sysctl(self, _: str, path: str, value: str) -> None:
        with open(f"{SYSCTLS}/{path}", "w", encoding="utf-8") as file:
            file.write(value + "\n")

    def _do_add_address(self, name: str, address: netstate.Address) -> None:
        message = netmessage.address_message(address, name, self.indexes[name])
        self._ask("address", _NEWADDR, _CREATE | _EXCL, *message)

    def _do_delete_address(self, name: str, address: netstate.Address) -> None:
        fields, attributes = netmessage.address_message(address, name, self.indexes[name])
        named = [(n, v) for n, v in attributes if n in ("IFA_LOCAL", "IFA_ADDRESS", "IFA_LABEL")]
        self._ask("address", _DELADDR, 0, fields, named)

    def _do_add_route(self, _: str, route: netstate.Route) -> None:
        self._add_route(route, _CREATE | (_APPEND if route.family == "v4" else 0))

    def _do_replace_route(self, _: str, route: netstate.Route) -> None:
        self._add_route(route, _CREATE | _REPLACE)

    def _add_route(self, route: netstate.Route, flags: int) -> None:
        message = netmessage.route_message(route, self.indexes)
        try:
            self._ask("route", _NEWROUTE, flags, *message)
        except self.error as error:
            if getattr(error, "code", 0) not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL):
                raise
            # The way to the gateway may have been removed after the route was made: build it for a moment.
            ways = [netmessage.route_message(way, self.indexes) for way in _ways(route)]
            if not ways:
                raise
            built = [way for way in ways if self._built(way)]
            try:
                self._ask("route", _NEWROUTE, flags, *message)
            finally:
                for way in built:
                    self._ask("route", _DELROUTE, 0, *way)

    def _built(self, way: netmessage.Message) -> bool:
        try:
            self._ask("route", _NEWROUTE, _CREATE | _EXCL, *way)
        except self.error:
            return False
        return True

    def _do_delete_route(self, _: str, route: netstate.Route) -> None:
        self._ask("route", _DELROUTE, 0, *netmessage.route_message(route, self.indexes))

    def _do_add_rule(self, _: str, rule: netstate.Rule) -> None:
        self._ask("rule", _NEWRULE, _CREATE | _EXCL, *netmessage.rule_message(rule))

    def _do_delete_rule(self, _: str, rule: netstate.Rule) -> None:
        self._ask("rule", _DELRULE, 0, *netmessage.rule_message(rule))

    def _do_add_neighbour(self, name: str, entry: Neighbour) -> None:
        message = netmessage.neighbour_message(entry, self.indexes[name])
        self._ask("neighbour", _NEWNEIGH, _CREATE | _REPLACE, *message)

    def _do_delete_neighbour(self, name: str, entry: Neighbour) -> None:
        self._ask("neighbour", _DELNEIGH, 0, *netmessage.neighbour_message(entry, self.indexes[name]))

    def _do_add_fdb(self, _: str, entry: netstate.Fdb) -> None:
        flags = _CREATE | (_APPEND if entry.destination else _REPLACE)
        self._ask("neighbour", _NEWNEIGH, flags, *netmessage.fdb_message(entry, self.indexes))

    def _do_delete_fdb(self, _: str, entry: netstate.Fdb) -> None:
        self._ask("neighbour", _DELNEIGH, 0, *netmessage.fdb_message(entry, self.indexes))

    def _do_add_vlan(self, name: str, vlan: Vlan, bridge: bool) -> None:
        self._ask("link", _SETLINK, 0, *netmessage.vlan_message(vlan, self.indexes[name], bridge))

    def _do_delete_vlan(self, name: str, vlan: Vlan, bridge: bool) -> None:
        self._ask("link", _DELLINK, 0, *netmessage.vlan_message(vlan, self.indexes[name], bridge))

    def _do_add_qdisc(self, name: str, qdisc: Qdisc) -> None:
        message = netmessage.qdisc_message(qdisc, self.indexes[name])
        self._ask("qdisc", _NEWQDISC, _CREATE | _REPLACE, *message)

    def _do_delete_qdisc(self, name: str, qdisc: Qdisc) -> None:
        self._ask("qdisc", _DELQDISC, 0, *netmessage.qdisc_message(qdisc._replace(options=""), self.indexes[name]))

    def _do_nft(self, _: str, text: str) -> None:
        _nft(text)

    # -- waiting -----------------------------------------------------------------------------------------------

    def settle(self, old: State) -> None:
        """Waits until links that have a carrier are operational, and until the addresses that routes of `old` want
        to send from are no longer tentative; at most `SETTLE_S`."""
        import select
        import socket
        import time

        senders = {route.prefsrc for route in old.routes if route.family == "v6" and route.prefsrc}
        deadline = time.monotonic() + SETTLE_S
        groups = 0x1 | 0x100  # RTMGRP_LINK, RTMGRP_IPV6_IFADDR
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as news:
            news.bind((0, groups))
            news.setblocking(False)
            poll = select.poll()
            poll.register(news, select.POLLIN)
            while self._unsettled(senders):
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                poll.poll(max(1, int(left * 1000)))
                _drain(news)

    def _unsettled(self, senders: set[str]) -> bool:
        if any(netmessage.pending(message) for message in self.look()):
            return True
        return bool(senders) and any(
            address.tentative and address.address.split("/")[0] in senders
            for group in self._addresses().values()
            for address in group
        )


def _classes() -> dict[str, Any]:
    """pyroute2's messages by what they are about."""
    from pyroute2.netlink import nlmsg
    from pyroute2.netlink.rtnl.fibmsg import fibmsg
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.ndmsg import ndmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    class qdiscmsg(nlmsg):  # type: ignore[misc]  # no types there; its own class cannot send options as they came
        prefix = "TCA_"
        fields = (
            ("family", "B"),
            ("pad1", "B"),
            ("pad2", "H"),
            ("index", "i"),
            ("handle", "I"),
            ("parent", "I"),
            ("info", "I"),
        )
        nla_map = (("TCA_UNSPEC", "none"), ("TCA_KIND", "asciiz"), ("TCA_OPTIONS", "cdata"))

    return {
        "link": ifinfmsg,
        "address": ifaddrmsg,
        "route": rtmsg,
        "rule": fibmsg,
        "neighbour": ndmsg,
        "qdisc": qdiscmsg,
    }


def _reason(error: BaseException) -> str:
    """What the kernel answered, in its words."""
    code = getattr(error, "code", None)
    said = [str(word) for word in error.args if isinstance(word, str)]
    return said[-1] if said else os.strerror(code) if code else str(error)


# -- settings ----------------------------------------------------------------------------------------------------


def _sysctls(links: Mapping[str, Link]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in _GLOBAL:
        _take(found, path)
    for family in ("ipv4", "ipv6"):
        left_out = _LEFT_OUT | ({"forwarding"} if family == "ipv4" else {"mtu"})
        for scope in ("all", "default", *links):
            try:
                names = os.listdir(f"{SYSCTLS}/{family}/conf/{scope}")
            except OSError:
                continue  # no IPv6 there
            for name in sorted(names):
                # /all/forwarding is ip_forward by another name.
                if name not in (left_out if scope == "all" or name != "forwarding" else _LEFT_OUT):
                    _take(found, f"{family}/conf/{scope}/{name}")
    return found


def _take(found: dict[str, str], path: str) -> None:
    try:
        file = os.open(f"{SYSCTLS}/{path}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # not of this kernel
    try:
        found[path] = os.read(file, 65536).decode("utf-8", "replace").strip()
    except OSError:
        pass  # write-only, or unset
    finally:
        os.close(file)


def _nft(text: str = "") -> str:
    """The rule set without what counts by itself; with `text`, puts that in its place first, all of it or nothing."""
    if text:
        _ask_nft("-f", "-", script="flush ruleset\n" + text)
    return _ask_nft("-s", "list", "ruleset") or netstate.NO_RULES


def _ask_nft(*words: str, script: str = "") -> str:
    """What nft(8) prints. Bytes stay what they are, whatever the locale is: a comment may be in any."""
    import subprocess

    try:
        done = subprocess.run(
            ["nft", *words],
            input=script,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=NFT_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"nft: {next(iter(error.stderr.strip().splitlines()), error)}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"nft: {error}") from None
    return done.stdout


# -- devices -----------------------------------------------------------------------------------------------------


def _basics(link: Link) -> list[tuple[str, Any]]:
    """What a device is made with. A bridge whose address was drawn at random takes one of its ports' (br_stp_if.c)."""
    found: list[tuple[str, Any]] = [("IFLA_MTU", link.mtu), ("IFLA_TXQLEN", link.queue)]
    if link.mac and not (link.kind == "bridge" and link.random_mac):
        found.append(("IFLA_ADDRESS", link.mac))
    return found


def _at_birth(link: Link) -> dict[str, Any]:
    """The options that a device must be made with. Those of a bridge or bond can be refused (a kernel without VLAN
    filtering, another mode) though the device has them: they are set one by one where they differ."""
    if link.kind in ("bridge", "bond"):
        return {name: value for name, value in link.options.items() if name == "mode"}
    return {name: value for name, value in link.options.items() if value not in (None, "")}


def _make_tun(name: str, link: Link) -> None:
    """A persistent tun or tap device (Documentation/networking/tuntap.rst)."""
    import fcntl

    options = link.options
    flags = options.get("type", 1) | (0 if options.get("pi") else 0x1000)
    flags |= (0x4000 if options.get("vnet_hdr") else 0) | (0x100 if options.get("multi_queue") else 0)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        for request, option in ((_TUNSETOWNER, "owner"), (_TUNSETGROUP, "group")):
            if option in options:
                fcntl.ioctl(device, request, options[option])
        fcntl.ioctl(device, _TUNSETPERSIST, 1)
    finally:
        os.close(device)


def _ways(route: netstate.Route) -> list[netstate.Route]:
    """Routes on the link to the gateways of a route."""
    found = []
    for hop in route.hops:
        if hop.gateway and hop.device and not hop.gateway.startswith("inet6 "):
            prefix = f"{hop.gateway}/{32 if route.family == 'v4' else 128}"
            scope = 253 if route.family == "v4" else 0
            way = netstate.Route(route.family, prefix, hops=(netstate.Hop(hop.device),), scope=scope)
            found.append(way._replace(table=route.table if route.table != 255 else 254))
    return found


def _drain(news: Any) -> None:
    try:
        while news.recv(65536):
            pass
    except OSError:
        pass  # nothing more, or more than could be heard: then what is there is looked at
