"""All files of the ifcfg family -> the interfaces that they ask for. Pure.

The semantics are those of RHEL's network-scripts (initscripts: sysconfig.txt, rc.d/init.d/network, ifup, ifup-eth,
ifup-aliases, ifup-ipv6, ifup-routes, ifup-post, network-functions). Where this differs, a comment says why:

* files are read, never executed (`sim.stacks.ifcfg.parse`);
* no zeroconf route (169.254.0.0/16): its metric is made of the interface index, so it differs from boot to boot;
* no ARP check for duplicate addresses, no gratuitous ARP, no LINKDELAY: they only cost time here;
* init.ipv6-global is left out, and `forwarding` is set only where IPV6FORWARDING is written: whether a machine
  forwards is not this stack's business;
* a missing /etc/sysconfig/network counts as an empty one, so that a file tree without it boots.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sim.stacks.ifcfg import iproute
from sim.stacks.ifcfg.iproute import Route, Rule
from sim.stacks.ifcfg.parse import Message, Value, argument_lines, is_false, is_true, read_assignments

FOLDER = "/etc/sysconfig/network-scripts"
NETWORK = "/etc/sysconfig/network"
IGNORED_SUFFIXES = ("~", ".bak", ".orig", ".rpmnew", ".rpmorig", ".rpmsave")

_SUPPORTED_TYPES = ("", "Ethernet", "Bridge", "Bond", "Vlan", "Wireless", "Token Ring")
_OTHER_TYPES = ("CIPE", "IPSEC", "Modem", "xDSL", "ISDN", "CTC", "GRE", "IPIP", "IPIP6", "SIT", "sit", "InfiniBand",
                "infiniband", "Tap", "Team", "OVSBridge", "OVSPort", "OVSIntPort", "OVSBond", "OVSTunnel")  # fmt: skip
_LEFT_OUT = {
    "ETHTOOL_OPTS": "there is no hardware to set",
    "ETHTOOL_DELAY": "there is no hardware to set",
    "BRIDGING_OPTS": "not supported; STP, DELAY, PRIO and AGEING are",
    "TEAM_CONFIG": "teams are not supported",
    "TEAM_MASTER": "teams are not supported",
}


@dataclass(frozen=True)
class Files:
    """What the stack reads: name -> text of the regular files in FOLDER, and two files outside of it."""

    scripts: Mapping[str, str]
    network: str | None = None
    tables: str = ""  # /etc/iproute2/rt_tables
    messages: tuple[Message, ...] = ()  # what could not be read


@dataclass(frozen=True)
class Address:
    """An address as it is handed to the kernel."""

    family: int
    address: str
    prefix: int
    broadcast: str | None = None
    label: str | None = None
    scope: int = 0


@dataclass(frozen=True)
class Interface:
    """What one ifcfg file, with its route, rule and alias files, asks for."""

    name: str  # ifcfg-NAME
    device: str  # may be empty where HWADDR is given
    kind: str = "ethernet"  # ethernet | bridge | vlan | bond
    onboot: bool = True
    hwaddr: str | None = None
    macaddr: str | None = None
    mtu: int | None = None
    port_of: str = ""  # bridge | bond: then it has no addresses, routes and names of its own
    master: str | None = None
    bridge: tuple[tuple[str, int], ...] = ()  # stp_state, forward_delay, priority, ageing_time as the kernel counts
    physdev: str | None = None
    vlan_id: int | None = None
    bonding: tuple[tuple[str, str], ...] = ()
    addresses: tuple[Address, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()  # below net.ipv6.conf.DEVICE
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    dns: tuple[str, ...] = ()
    domain: str = ""
    dhcp4: bool = False
    dhcp6: bool = False
    skip: Message | None = field(default=None, compare=False)  # why it cannot be brought up at all
    messages: tuple[Message, ...] = field(default=(), compare=False)

    @property
    def file(self) -> str:
        return f"{FOLDER}/ifcfg-{self.name}"

    @property
    def software(self) -> bool:
        """Bringing it up makes the device."""
        return self.kind != "ethernet"

    @property
    def order(self) -> tuple[int, str, float, str]:
        """Its place in a boot: plain devices, VLANs, bridges; each as `sort -k 1,1 -k 2n` puts the names."""
        by_name = "." in self.device or self.device.startswith("vlan")
        rank = 2 if self.kind == "bridge" else 1 if self.kind == "vlan" or by_name else 0
        match = re.match(r"([^0-9]*)([0-9]*\.?[0-9]*)", self.name)
        letters, digits = match.groups() if match else (self.name, "")
        return rank, letters, float(digits.rstrip(".") or "0"), self.name

    @property
    def failed(self) -> bool:
        return self.skip is not None or any(message.failed for message in self.messages)


@dataclass(frozen=True)
class Configuration:
    """Everything that the files ask for; `interfaces` in the order of a boot, bond ports (which their bond brings
    up) and those with ONBOOT=no among them."""

    interfaces: tuple[Interface, ...]
    messages: tuple[Message, ...] = ()
    networking: bool = True

    @property
    def at_boot(self) -> tuple[Interface, ...]:
        """What `network start` brings up, in order. Ports of a bond come up with their bond, whatever they say."""
        wanted = [one for one in self.interfaces if one.onboot and one.port_of != "bond"]
        bonds = {one.device for one in wanted if one.kind == "bond"}
        found: list[Interface] = []
        for one in wanted:
            found.append(one)
            if one.device in bonds:
                found += [port for port in self.interfaces if port.port_of == "bond" and port.master == one.device]
        return tuple(found)

    def find(self, word: str) -> Interface | None:
        """As `need_config`: ifcfg-WORD, WORD itself (also as a path), then DEVICE=WORD."""
        word = word.rpartition("/")[2]
        word = word[len("ifcfg-") :] if word.startswith("ifcfg-") else word
        for one in self.interfaces:
            if one.name == word:
                return one
        return next((one for one in self.interfaces if one.device == word), None)


def is_ignored(name: str) -> bool:
    """A backup or package manager's copy, which the scripts pass over."""
    return name.endswith(IGNORED_SUFFIXES)


def configuration(files: Files, macs: Mapping[str, str] | None = None) -> Configuration:
    """The interfaces that the files ask for. Never raises: what makes no sense is a message.

    `macs`: device -> MAC address as it is without this stack, to find interfaces by HWADDR; None: HWADDR is not
    looked at.
    """
    names, messages = read_assignments(files.network or "", NETWORK)
    messages = [*files.messages, *messages]
    tables = iproute.read_tables(files.tables)
    readers: list[_Reader] = []
    for script in sorted(files.scripts):
        name = script.removeprefix("ifcfg-")
        if not script.startswith("ifcfg-") or is_ignored(script) or name == "lo" or ":" in name:
            continue
        if "-range" in name:
            messages.append(Message("ranges of aliases are not supported; left out", f"{FOLDER}/{script}"))
        elif not name or name.split() != [name]:
            messages.append(Message(f"{name!r} cannot be the name of an interface; left out", f"{FOLDER}/{script}"))
        else:
            readers.append(_Reader(name, files, names, tables))
    named = frozenset(reader.text("DEVICE") for reader in readers)
    interfaces = [reader.interface(macs, named) for reader in readers]
    interfaces.sort(key=lambda one: one.order)
    networking = names.get("NETWORKING")
    return Configuration(
        tuple(_tell_twins(interfaces)), tuple(messages), not (networking and is_false(networking.text))
    )


def _tell_twins(interfaces: list[Interface]) -> list[Interface]:
    first: dict[str, Interface] = {}
    told: list[Interface] = []
    for one in interfaces:
        other = first.setdefault(one.device, one) if one.device else one
        if other is not one:
            text = f"DEVICE={one.device} is also in {other.file}; both are applied"
            one = replace(one, messages=(*one.messages, Message(text, one.file, failed=False)))
        told.append(one)
    return told


def default_prefix(address: str) -> int:
    """The prefix length of an IPv4 address' class, as `ipcalc --prefix` gives it."""
    first = int(address.partition(".")[0])
    return 8 if first < 128 else 16 if first < 192 else 24 if first < 224 else 32


def mask_prefix(text: str) -> int:
    """255.255.255.0 (or 24) -> 24. Raises ValueError."""
    if iproute.is_number(text) and int(text) <= 32:
        return int(text)
    try:
        bits = int(ipaddress.IPv4Address(text))
    except ValueError:
        raise ValueError("is no netmask, e.g. 255.255.255.0") from None
    prefix = bin(bits).count("1")
    if bits != (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF:
        raise ValueError("is no netmask: its bits have gaps")
    return prefix


def broadcast_of(address: str, prefix: int) -> str:
    """The broadcast address as `ipcalc --broadcast` gives it (255.255.255.255 for /31 and /32, RFC 3021)."""
    if prefix > 30:
        return "255.255.255.255"
    return str(ipaddress.IPv4Network(f"{address}/{prefix}", strict=False).broadcast_address)


class _Reader:
    """Reads one ifcfg file and what belongs to it."""

    def __init__(self, name: str, files: Files, network: Mapping[str, Value], tables: Mapping[str, int]) -> None:
        self.name, self.files, self.tables = name, files, tables
        self.file = f"{FOLDER}/ifcfg-{name}"
        self.messages: list[Message] = []
        self.values = self._read(f"ifcfg-{name}", network)
        if f"keys-{name}" in files.scripts:
            self.values = self._read(f"keys-{name}", self.values)

    def _read(self, script: str, names: Mapping[str, Value]) -> dict[str, Value]:
        values, messages = read_assignments(self.files.scripts[script], f"{FOLDER}/{script}", names)
        self.messages += messages
        return values

    def text(self, name: str) -> str:
        value = self.values.get(name)
        return value.text if value else ""

    def tell(self, name: str, why: str, values: Mapping[str, Value] | None = None, failed: bool = True) -> None:
        value = (values or self.values)[name]
        self.messages.append(
            Message(f"{name}={value.text!r}{'' if why[:1] == ':' else ' '}{why}", value.file, value.line, failed)
        )

    def skip(self, one: Interface, why: str, name: str = "") -> Interface:
        value = self.values.get(name)
        message = Message(why, value.file, value.line) if value else Message(f"{why}; skipped", self.file)
        return replace(one, skip=message)

    def number(self, name: str, low: int, high: int) -> int | None:
        text = self.text(name)
        if not text:
            return None
        if iproute.is_number(text) and low <= int(text) <= high:
            return int(text)
        self.tell(name, f"is no number from {low} to {high}; left out")
        return None

    def mac(self, name: str) -> str | None:
        text = self.text(name).lower()
        if not text:
            return None
        if re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", text) and not (name == "MACADDR" and int(text[:2], 16) & 1):
            return text
        self.tell(name, "is no MAC address of a station; left out")
        return None

    def interface(self, macs: Mapping[str, str] | None, named: frozenset[str]) -> Interface:
        """`named`: the devices that some file names."""
        one = self._device(Interface(self.name, self.text("DEVICE"), onboot=not is_false(self.text("ONBOOT"))))
        for name, why in _LEFT_OUT.items():
            if self.text(name):
                self.tell(name, f"is left out: {why}", failed=False)
        if not one.skip:
            one = replace(one, hwaddr=self.mac("HWADDR"), macaddr=self.mac("MACADDR"), mtu=self._mtu())
            one = self._by_mac(self._port(self._kind(one)), macs, named)
        if not one.skip:
            one = replace(one, sysctls=self._sysctls(one))
            if one.port_of:
                self._tell_unused(one)
            else:
                one = self._layer3(one)
        return replace(one, messages=tuple(self.messages))

    def _device(self, one: Interface) -> Interface:
        if not one.device:
            return one if self.text("HWADDR") else self.skip(one, "neither DEVICE nor HWADDR is set")
        if one.device == "lo":
            return self.skip(one, "DEVICE=lo belongs to the machine, not to this stack", "DEVICE")
        if not iproute.is_device_name(one.device):
            return self.skip(one, f"DEVICE={one.device!r} cannot be the name of a device; skipped", "DEVICE")
        return one

    def _by_mac(self, one: Interface, macs: Mapping[str, str] | None, named: frozenset[str]) -> Interface:
        """HWADDR wins over DEVICE, as where udev renames devices by it; but never takes another file's device."""
        if macs is None or not one.hwaddr or one.skip:
            return one
        if one.device in macs and macs[one.device] in (one.hwaddr, one.macaddr):
            return one
        free = [name for name, mac in macs.items() if mac == one.hwaddr and name not in named and name != "lo"]
        if not free or one.software:
            if one.device in macs:
                why = f"device {one.device} has MAC address {macs[one.device]}, not HWADDR={one.hwaddr}"
            else:
                why = f"no device has HWADDR={one.hwaddr}" + (f", and there is no {one.device}" if one.device else "")
            return self.skip(one, f"{why}; skipped", "HWADDR")
        if one.device:
            self.tell("HWADDR", f"is {free[0]}, not {one.device}; {free[0]} is configured", failed=False)
        return replace(one, device=free[0])

    def _mtu(self) -> int | None:
        mtu = self.number("MTU", 68, 65535)
        if not is_false(self.text("IPV6INIT")) and self.text("IPV6_MTU"):
            return self.number("IPV6_MTU", 1280, 65535) or mtu
        return mtu

    def _kind(self, one: Interface) -> Interface:
        kind = self.text("TYPE")
        if kind in _OTHER_TYPES:
            return self.skip(one, f"TYPE={kind} is not supported; skipped", "TYPE")
        if kind not in _SUPPORTED_TYPES:
            self.tell("TYPE", "is not known (Ethernet, Bridge, Bond, Vlan); taken as Ethernet", failed=False)
        if kind == "Bridge":
            return replace(one, kind="bridge", bridge=self._bridge())
        if is_true(self.text("VLAN")):
            return self._vlan(one)
        if kind == "Bond" or self.text("BONDING_OPTS"):
            return replace(one, kind="bond", bonding=self._bonding())
        return one

    def _bridge(self) -> tuple[tuple[str, int], ...]:
        options: list[tuple[str, int]] = []
        for name, attribute, high in (("DELAY", "forward_delay", 30), ("AGEING", "ageing_time", 1_000_000)):
            text = self.text(name)
            if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII) and float(text) <= high:
                options.append((attribute, round(float(text) * 100)))  # the kernel counts in USER_HZ
            elif text:
                self.tell(name, f"is no time from 0 to {high} seconds; left out")
        priority = self.number("PRIO", 0, 65535)
        if priority is not None:
            options.append(("priority", priority))
        stp = self.text("STP")
        if is_true(stp) or is_false(stp):
            options.append(("stp_state", int(is_true(stp))))
        elif stp:
            self.tell("STP", "is neither on nor off; left out")
        return tuple(options)

    def _vlan(self, one: Interface) -> Interface:
        physdev, written = self.text("PHYSDEV"), self.text("VID") or self.text("VLAN_ID")
        by_name = re.fullmatch(r"(.+)\.([0-9]{1,4})", one.device)
        if not written and by_name:
            physdev, written = by_name.groups()
        elif not written and re.match(r"vlan[0-9]", one.device):
            written = one.device[len("vlan") :]
        if not iproute.is_number(written) or int(written) > 4094:
            return self.skip(one, f"{written or one.device!r} gives no VLAN id from 0 to 4094; skipped", "VLAN")
        if not iproute.is_device_name(physdev):
            return self.skip(one, f"PHYSDEV should be set for device {one.device}; skipped", "VLAN")
        return replace(one, kind="vlan", physdev=physdev, vlan_id=int(written))

    def _bonding(self) -> tuple[tuple[str, str], ...]:
        options: list[tuple[str, str]] = []
        for word in self.text("BONDING_OPTS").split():
            key, sign, value = word.partition("=")
            if sign and value:
                options.append((key, value))
            else:
                self.tell("BONDING_OPTS", f"{word!r} is no KEY=VALUE; left out")
        return tuple(options)

    def _port(self, one: Interface) -> Interface:
        master = self.text("MASTER")
        if is_true(self.text("SLAVE")) and master:
            one = replace(one, port_of="bond", master=master)
        elif self.text("BRIDGE"):
            one = replace(one, port_of="bridge", master=self.text("BRIDGE"))
        if one.port_of and not iproute.is_device_name(one.master or ""):
            name = "MASTER" if one.port_of == "bond" else "BRIDGE"
            return self.skip(one, f"{name}={one.master!r} cannot be the name of a device; skipped", name)
        return one

    def _sysctls(self, one: Interface) -> tuple[tuple[str, str], ...]:
        """IPV6INIT=no: no IPv6 at all. Else as ifup-ipv6, which ports never reach."""
        if is_false(self.text("IPV6INIT")):
            return (("disable_ipv6", "1"),)
        if one.port_of or self.text("IPV6_SET_SYSCTLS") == "no":
            return ()
        autoconf, forwarding = self.text("IPV6_AUTOCONF"), self.text("IPV6FORWARDING")
        found: list[tuple[str, str]] = []
        if forwarding == "yes":
            found.append(("forwarding", "0" if self.text("IPV6_ROUTER") == "no" else "1"))
            automatic, accept_ra = ("1", "2") if autoconf == "yes" else ("0", "0")
        else:
            if forwarding:
                found.append(("forwarding", "0"))
            automatic = "0" if autoconf == "no" else "1"
            forced = autoconf == "no" and self.text("IPV6_FORCE_ACCEPT_RA") == "yes"
            accept_ra = "1" if forced else automatic
        found += [("accept_ra", accept_ra), ("accept_redirects", automatic), ("autoconf", automatic)]
        if self.text("IPV6_PRIVACY") == "rfc3041":
            found.append(("use_tempaddr", "2"))
        return tuple(found)

    def _tell_unused(self, one: Interface) -> None:
        for name in ("IPADDR", "IPADDR0", "IPV6ADDR"):
            value = self.values.get(name)
            if value and value.text and value.file == self.file:
                self.tell(name, f"is not used: {one.name} is a port of {one.master}", failed=False)

    def _layer3(self, one: Interface) -> Interface:
        v4 = self._addresses4(one)
        aliases = self._aliases(one)
        v6 = [] if is_false(self.text("IPV6INIT")) else self._addresses6()
        routes = [*self._gateway4(one, v4), *aliases[1], *self._gateway6(one, v6)]
        one = replace(
            one,
            addresses=(*v4, *(a for a in aliases[0] if a.family == 4), *v6, *(a for a in aliases[0] if a.family == 6)),
            dhcp4=self.text("BOOTPROTO") in ("dhcp", "bootp"),
            dhcp6=is_true(self.text("DHCPV6C")) and not is_false(self.text("IPV6INIT")),
        )
        if not is_true(self.text("NOROUTESET")):
            routes += self._route_files(one)
            one = replace(one, rules=tuple(self._rule_files(one)))
        if not is_false(self.text("PEERDNS")):
            one = replace(one, dns=self._dns(), domain=" ".join(self.text("DOMAIN").split()))
        return replace(one, routes=tuple(routes))

    def _addresses4(self, one: Interface) -> list[Address]:
        """expand_config: IPADDR, IPADDR0, IPADDR1, IPADDR2, …; from 2 on the first gap ends the list."""
        if not any(self.text(f"IPADDR{index}") for index in ("", 0, 1, 2)):
            return []
        found: list[Address] = []
        for suffix in ("", *map(str, range(256))):
            if not self.text(f"IPADDR{suffix}"):
                if suffix and int(suffix) >= 2:
                    break
                continue
            address = self._address4(self.values, suffix, one.device or None)
            if address and (address.address, address.prefix) not in [(a.address, a.prefix) for a in found]:
                found.append(address)
        return found

    def _address4(self, values: Mapping[str, Value], suffix: str, label: str | None) -> Address | None:
        def given(name: str) -> str:
            value = values.get(name + suffix)
            return value.text if value else ""

        try:
            address = iproute.address(given("IPADDR"), 4, "")
        except ValueError:
            self.tell(f"IPADDR{suffix}", "is no IPv4 address; left out", values)
            return None
        prefix, culprit = default_prefix(address), ""
        try:
            for culprit in ("NETMASK", "PREFIX"):  # PREFIX wins over NETMASK
                if given(culprit):
                    prefix = mask_prefix(given(culprit)) if culprit == "NETMASK" else _prefix(given(culprit), 32)
            culprit = "BROADCAST"
            broadcast = iproute.address(given(culprit), 4, "") if given(culprit) else broadcast_of(address, prefix)
        except ValueError as error:
            why = str(error) if culprit != "BROADCAST" else "is no IPv4 address"
            self.tell(culprit + suffix, f"{why}; the address is left out", values)
            return None
        words = self.text("SCOPE").split()
        scope = iproute.SCOPES.get(words[-1], 0) if words else 0
        return Address(4, address, prefix, broadcast, label, scope)

    def _aliases(self, one: Interface) -> tuple[list[Address], list[Route]]:
        """ifup-aliases: ifcfg-DEVICE:NAME, with PREFIX, NETMASK and BROADCAST of the parent where it has none."""
        addresses: list[Address] = []
        routes: list[Route] = []
        inherited: dict[str, Value] = {n: self.values[n] for n in ("PREFIX", "NETMASK") if n in self.values}
        for script in sorted(self.files.scripts):
            if not one.device or not script.startswith(f"ifcfg-{one.device}:") or is_ignored(script):
                continue
            values = self._read(script, inherited)
            label = values["DEVICE"].text if "DEVICE" in values else script.removeprefix("ifcfg-")
            if not re.fullmatch(r"[^:]*:[0-9A-Za-z_]*", label):
                self.messages.append(Message(f"{label!r} has an invalid alias number; left out", f"{FOLDER}/{script}"))
                continue
            if "ONPARENT" in values and values["ONPARENT"].text in ("no", "NO"):
                continue
            has_address = "IPADDR" in values and values["IPADDR"].text
            address = self._address4(values, "", label) if has_address else None
            v6 = [] if "IPV6INIT" in values and is_false(values["IPV6INIT"].text) else self._address6(values)
            if not has_address and not v6:
                self.messages.append(Message("an alias needs IPADDR; left out", f"{FOLDER}/{script}"))
            addresses += ([address] if address else []) + v6
            gateway = values.get("GATEWAY")
            if address and gateway and gateway.text and gateway.text != self.text("GATEWAY"):
                routes += self._route(["default", "via", gateway.text, "dev", one.device], gateway, "replace")
        return addresses, routes

    def _address6(self, values: Mapping[str, Value]) -> list[Address]:
        found: list[Address] = []
        for name in ("IPV6ADDR", "IPV6ADDR_SECONDARIES"):
            words = values[name].text.split() if name in values else []
            for word in words:
                text, _, length = word.partition("/")
                try:
                    found.append(Address(6, iproute.address(text, 6, ""), _prefix(length or "64", 128)))
                except ValueError:
                    shown = "" if word == values[name].text else f": {word!r} "
                    self.tell(name, f"{shown}is no IPv6 address with prefix length; left out".lstrip(), values)
        return found

    def _addresses6(self) -> list[Address]:
        return list(dict.fromkeys(self._address6(self.values)))

    def _route(self, words: list[str], value: Value, mode: str, family: int = 4) -> list[Route]:
        where = f"{value.file}:{value.line}"
        try:
            return [replace(iproute.parse_route(words, family, self.tables, where), mode=mode)]
        except ValueError as error:
            self.messages.append(Message(f"{' '.join(words)!r}: {error}; left out", value.file, value.line))
            return []

    def _gateway4(self, one: Interface, addresses: list[Address]) -> list[Route]:
        """GATEWAY counts only where it is in the network of the first address (ifup-eth)."""
        device, gateway_device = one.device, self.text("GATEWAYDEV")
        ours = not gateway_device or gateway_device == device
        if not addresses or is_false(self.text("DEFROUTE")) or not ours:
            return []
        gateway = self.values.get("GATEWAY")
        extra = self.text("EXTRA_ROUTE_OPTS").split()
        for name, word in (("METRIC", "metric"), ("WINDOW", "window"), ("SRCADDR", "src")):
            extra += [word, self.text(name)] if self.text(name) else []
        if gateway and gateway.text:
            first = ipaddress.IPv4Interface(f"{addresses[0].address}/{addresses[0].prefix}").network
            try:
                inside = ipaddress.IPv4Address(gateway.text) in first
            except ValueError:
                self.tell("GATEWAY", "is no IPv4 address; no default route")
                return []
            if inside:
                onto = ["dev", gateway_device] if gateway_device else []
                return self._route(["default", "via", gateway.text, *extra, *onto], gateway, "replace")
            if gateway.file == self.file and not gateway_device:
                self.tell("GATEWAY", f"is not in {first}, the network of the first address; no default route")
        if gateway_device:
            return self._route(["default", *extra, "dev", device], self.values["GATEWAYDEV"], "replace")
        return []

    def _gateway6(self, one: Interface, addresses: list[Address]) -> list[Route]:
        """ipv6_set_default_route: GATEWAY[%DEVICE], metric 1; a device that is another's means nothing here."""
        value = self.values.get("IPV6_DEFAULTGW")
        if not value or not value.text or is_false(self.text("IPV6INIT")):
            return []
        gateway, _, scope = value.text.partition("%")
        device = scope or self.text("IPV6_DEFAULTDEV")
        if device and device != one.device:
            return []
        try:
            parsed = ipaddress.IPv6Address(gateway)
        except ValueError:
            self.tell("IPV6_DEFAULTGW", "is no IPv6 address; no default route")
            return []
        if parsed.is_link_local and not device:
            self.tell("IPV6_DEFAULTGW", "is link-local, so it needs a device (%DEVICE); no default route")
            return []
        near = any(parsed in ipaddress.IPv6Interface(f"{a.address}/{a.prefix}").network for a in addresses)
        if value.file == NETWORK and not device and not near:
            return []  # written for all interfaces: it belongs to the one whose network it is in
        words = ["default", "via", str(parsed), "metric", "1", *(["dev", device] if device else [])]
        return self._route(words, value, "keep", 6)

    def _scripts(self, one: Interface, *kinds: str) -> list[tuple[str, int]]:
        """The route or rule files of this interface: by device, then by the name of its ifcfg file."""
        names = list(dict.fromkeys(name for name in (one.device, self.name) if name))
        found = [(f"{kind}-{name}", 6 if kind.endswith("6") else 4) for name in names for kind in kinds]
        return [(script, family) for script, family in found if script in self.files.scripts]

    def _route_files(self, one: Interface) -> list[Route]:
        found: list[Route] = []
        for script, family in self._scripts(one, "route", "route6"):
            text = self.files.scripts[script]
            if re.search(r"^[ \t]*ADDRESS[0-9]+=", text, re.MULTILINE):
                found += self._numbered_routes(script, one)
                continue
            for line, words in argument_lines(text):
                found += self._route(words, Value("", f"{FOLDER}/{script}", line), "add", family)
        return found

    def _numbered_routes(self, script: str, one: Interface) -> list[Route]:
        """ADDRESSn= NETMASKn= GATEWAYn=, from 0 to the first gap; always on this device, always IPv4."""
        values = self._read(script, {})
        found: list[Route] = []
        count = 0
        while (address := values.get(f"ADDRESS{count}")) and address.text:
            mask, gateway = values.get(f"NETMASK{count}"), values.get(f"GATEWAY{count}")
            count += 1
            try:
                first = iproute.address(address.text, 4, "ADDRESS")
                length = mask_prefix(mask.text) if mask and mask.text else default_prefix(first)
            except ValueError as error:
                text = f"{address.text} {mask.text if mask else ''}".strip()
                self.messages.append(Message(f"{text!r}: {error}; left out", address.file, address.line))
                continue
            words = [f"{first}/{length}", *(["via", gateway.text] if gateway and gateway.text else [])]
            found += self._route([*words, "dev", one.device], address, "add")
        numbers = [int(name[len("ADDRESS") :]) for name in values if re.fullmatch(r"ADDRESS[0-9]+", name)]
        for number in sorted(number for number in numbers if number > count):
            value = values[f"ADDRESS{number}"]
            text = f"ADDRESS{number} is never reached: ADDRESS{count} is missing"
            self.messages.append(Message(text, value.file, value.line))
        return found

    def _rule_files(self, one: Interface) -> list[Rule]:
        found: list[Rule] = []
        for script, family in self._scripts(one, "rule", "rule6"):
            for line, words in argument_lines(self.files.scripts[script]):
                file = f"{FOLDER}/{script}"
                try:
                    found.append(iproute.parse_rule(words, family, self.tables, f"{file}:{line}"))
                except ValueError as error:
                    self.messages.append(Message(f"{' '.join(words)!r}: {error}; left out", file, line))
        return found

    def _dns(self) -> tuple[str, ...]:
        found: list[str] = []
        for name in ("DNS1", "DNS2", "DNS3"):
            text = self.text(name)
            try:
                if text and text not in found:
                    ipaddress.ip_address(text)
                    found.append(text)
            except ValueError:
                self.tell(name, "is no IP address; left out")
        return tuple(found)


def _prefix(text: str, high: int) -> int:
    if iproute.is_number(text) and int(text) <= high:
        return int(text)
    raise ValueError(f"is no prefix length from 0 to {high}")
