"""Networks: a bridge in a network namespace of its own, and cables from it to machines.

A cable (a veth pair) belongs to its network: its MAC addresses are derived from names and are the same after a
reboot. The machine's end lives in the machine's namespace and vanishes with it; the next boot gets a new pair under
the next generation's name, because the old one goes asynchronously (net/core/net_namespace.c, cleanup_net).
"""

from __future__ import annotations

import errno
import hashlib
import os

from pyroute2 import IPRoute, NetlinkError

from sim.errors import Missing
from sim.scenario import Network
from sim.world import kernel, sysctls

BRIDGE = "br0"
_FIRST = 1000
"""Above the ifindexes that the kernel gives in a new namespace: ours are chosen, so that none is looked up."""


class Switch:
    """One network. Owns its namespace: `close` (or the end of the process) ends it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.cables: dict[tuple[str, str], int] = {}  # (machine, port) -> ifindex of the end at the bridge
        self._made = 0
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.unshare(kernel.NEWNET)
            self.netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            sysctls.write({f"net/ipv6/conf/{scope}/disable_ipv6": "1" for scope in ("all", "default")})
            self.ip = IPRoute()
        finally:
            kernel.setns(home, kernel.NEWNET)
            os.close(home)
        self._make_bridge()

    def _make_bridge(self) -> None:
        options = {"br_stp_state": int(self.network.stp), "br_mcast_snooping": 0}
        try:
            self.ip.link("add", ifname=BRIDGE, kind="bridge", **options)
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:  # nor could it load the module for this user
                raise Missing("this kernel has no bridges (the module bridge)") from error
            raise
        self.bridge = self.ip.link_lookup(ifname=BRIDGE)[0]
        self.ip.link("set", index=self.bridge, state="up", mtu=self.network.mtu)

    def attach(self, machine: str, port: str, mac: str, netns: int) -> None:
        """Make the cable for one port of a machine that is about to boot, and plug it in."""
        self._made += 1
        end, index = f"p{self._made}", _FIRST + self._made
        self.ip.link(
            "add",
            ifname=end,
            index=index,
            kind="veth",
            address=far_mac(mac),
            mtu=self.network.mtu,
            master=self.bridge,
            state="up",
            peer={"ifname": port, "address": mac, "mtu": self.network.mtu, "net_ns_fd": netns},
        )
        self.cables[machine, port] = index

    def carry(self, machine: str, port: str, on: bool) -> None:
        """Plug the cable in (True) or pull it out (False): the machine sees its carrier come or go."""
        self.ip.link("set", index=self.cables[machine, port], state="up" if on else "down")

    def detach(self, machine: str, port: str) -> None:
        """The machine is off: no carrier, and the bridge forgets what it learned on that port."""
        index = self.cables.pop((machine, port), None)
        try:
            if index is not None:
                self.ip.link("set", index=index, state="down")
        except NetlinkError as error:
            if error.code != errno.ENODEV:  # it went with the machine's namespace
                raise

    def close(self) -> None:
        """End the network."""
        self.ip.close()
        os.close(self.netns)


def far_mac(mac: str) -> str:
    """The MAC address of the other end of a cable, derived from that of the machine's end."""
    digest = hashlib.sha256(mac.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x06, *digest[:5]))
