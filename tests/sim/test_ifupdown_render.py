"""netplan's subset -> /etc/network/interfaces: the text that an administrator would write."""

from __future__ import annotations

from typing import Any

import pytest

from sim.stacks import ifupdown
from sim.stacks.ifupdown.render import INTERFACES, RESOLV_CONF, render


def written(config: dict[str, Any]) -> str:
    return render(config)[INTERFACES]


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def test_a_server_is_written_as_an_administrator_would() -> None:
    settings = {
        "addresses": ["192.0.2.10/24"],
        "routes": [{"to": "default", "via": "192.0.2.1"}],
        "nameservers": {"addresses": ["192.0.2.1", "192.0.2.2"], "search": ["example.org"]},
    }
    assert render({"ethernets": {"eth0": settings}}) == {
        INTERFACES: "source-directory /etc/network/interfaces.d\n\nauto eth0\niface eth0 inet static\n"
        "    address 192.0.2.10/24\n    gateway 192.0.2.1\n",
        RESOLV_CONF: "search example.org\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n",
    }


def test_without_name_servers_the_resolver_is_left_alone() -> None:
    assert RESOLV_CONF not in render({"ethernets": {"eth0": {"addresses": ["192.0.2.10/24"]}}})


def test_the_gateway_stands_with_the_address_whose_network_it_is_in() -> None:
    text = written(
        {
            "ethernets": {
                "eth0": {
                    "addresses": ["192.0.2.10/24", "198.51.100.10/24"],
                    "routes": [{"to": "default", "via": "198.51.100.1", "metric": 5}],
                }
            }
        }
    )
    assert lines(text)[-4:] == [
        "iface eth0 inet static",
        "address 198.51.100.10/24",
        "gateway 198.51.100.1",
        "metric 5",
    ]


def test_routes_and_policies_have_a_way_back() -> None:
    text = written(
        {
            "ethernets": {
                "eth0": {
                    "addresses": ["192.0.2.10/24", "2001:db8::10/64"],
                    "routes": [
                        {"to": "default", "via": "192.0.2.1", "table": 200},
                        {"to": "2001:db8:7::/48", "via": "2001:db8::1"},
                    ],
                    "routing-policy": [{"from": "192.0.2.0/24", "table": 200, "priority": 9, "mark": 3}],
                }
            }
        }
    )
    assert "up ip route add default via 192.0.2.1 dev eth0 table 200" in lines(text)
    assert "down ip route del default via 192.0.2.1 dev eth0 table 200 || true" in lines(text)
    assert "up ip -6 route add 2001:db8:7::/48 via 2001:db8::1 dev eth0" in lines(text)
    assert "up ip rule add from 192.0.2.0/24 fwmark 3 table 200 priority 9" in lines(text)


def test_what_a_device_is_made_of_comes_before_it() -> None:
    text = written(
        {
            "ethernets": {"eth0": {}, "eth1": {}},
            "bridges": {"br0": {"interfaces": ["bond0"], "parameters": {"stp": True, "forward-delay": "4s"}}},
            "bonds": {"bond0": {"interfaces": ["eth0", "eth1"], "parameters": {"mode": "active-backup"}}},
            "vlans": {"mgmt": {"id": 7, "link": "br0"}},
        }
    )
    order = [line.split()[1] for line in lines(text) if line.startswith("auto ")]
    assert order.index("eth0") < order.index("bond0") < order.index("br0") < order.index("mgmt")
    assert "pre-up ip link add name br0 type bridge stp_state 1 forward_delay 400" in lines(text)
    assert "post-down ip link delete dev br0" in lines(text)
    assert "pre-up ip link add link br0 name mgmt type vlan id 7" in lines(text)


def test_dhcp_and_advertisements_have_their_methods() -> None:
    text = written({"ethernets": {"eth0": {"dhcp4": True, "accept-ra": True}, "eth1": {"dhcp6": True}}})
    assert "iface eth0 inet dhcp" in lines(text)
    assert "iface eth0 inet6 auto" in lines(text)
    assert "iface eth1 inet6 dhcp" in lines(text)


@pytest.mark.parametrize(
    "config, named",
    [
        ({"ethernets": {"eth0": {"link-local": ["ipv4"]}}}, "ethernets.eth0.link-local"),
        ({"bonds": {"bond0": {"parameters": {"arp-interval": 1}}}}, "bonds.bond0.parameters: arp-interval"),
        ({"tunnels": {}}, "tunnels"),
    ],
)
def test_what_the_format_cannot_say_is_named(config: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        render(config)


def test_what_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ifupdown.shutil, "which", lambda name, path: None if name == "ifup" else f"/sbin/{name}")
    assert ifupdown.STACK.missing() == "ifup not installed (Debian package ifupdown)"
