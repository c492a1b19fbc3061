"""Differences in words."""

import copy
import json
from typing import Any

import pytest
from made_up_runs import IFCFG, state

from sim.expect import (
    file_differences,
    file_problems,
    flap_differences,
    flow_problem,
    kernel_differences,
    litter,
    output_problem,
    transaction_problem,
    without,
)


def files(**entries: Any) -> dict[str, Any]:
    return {"files": {f"/etc/{name}": entry for name, entry in entries.items()}}


def regular(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "file", "mode": "0644", "owner": "0:0", "size": len(text), "sha256": text, "text": text, **more}


def altered(**changes: Any) -> dict[str, Any]:
    """The usual state with one thing replaced: `links__eth0__mtu=1400`."""
    seen = state()
    for path, value in changes.items():
        *keys, last = path.split("__")
        place = seen["kernel"]
        for key in keys:
            place = place[key]
        place[last] = value
    return seen


def test_equal_states_have_no_differences() -> None:
    assert file_differences(state(), state()) == []
    assert kernel_differences(state(), state()) == []


def test_a_state_from_a_journal_equals_the_live_one() -> None:
    live = state()
    live["kernel"]["routes"]["v4 main"] = tuple(live["kernel"]["routes"]["v4 main"])
    assert kernel_differences(live, json.loads(json.dumps(live))) == []


def test_a_changed_line_is_told_with_its_number_and_both_texts() -> None:
    assert file_differences(state(), state("192.0.2.66")) == [
        f"{IFCFG}: line 4: 'GATEWAY=192.0.2.66', was 'GATEWAY=192.0.2.1'"
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ({}, {"a": regular("x")}, "/etc/a: is left over, a regular file"),
        ({"a": regular("x")}, {}, "/etc/a: is missing, was a regular file"),
        ({"a": regular("x\n")}, {"a": regular("x\ny\n")}, "/etc/a: line 2 is left over: 'y'"),
        ({"a": regular("x\ny\n")}, {"a": regular("x\n")}, "/etc/a: line 2 is missing: 'y'"),
        ({"a": regular("x\n")}, {"a": regular("x")}, "/etc/a: the same lines with other line ends"),
        ({"a": regular("x")}, {"a": regular("x", mode="0600")}, "/etc/a: mode 0600, was 0644"),
        ({"a": regular("x")}, {"a": regular("x", owner="0:101")}, "/etc/a: owner 0:101, was 0:0"),
        (
            {"a": regular("x")},
            {"a": {"type": "symlink", "mode": "0777", "owner": "0:0", "target": "/b"}},
            "/etc/a: is a symbolic link to '/b', was a regular file",
        ),
        (
            {"a": {"type": "symlink", "target": "/b"}},
            {"a": {"type": "symlink", "target": "/c"}},
            "/etc/a: points to '/c', was '/b'",
        ),
        (
            {"a": regular("x", xattrs={"user.n": "61"})},
            {"a": regular("x", xattrs={})},
            "/etc/a: extended attribute user.n is missing, was 61",
        ),
        (
            {"a": {"type": "file", "size": 9, "sha256": "1"}},
            {"a": {"type": "file", "size": 9, "sha256": "2"}},
            "/etc/a: other content of the same length (9 bytes)",
        ),
        ({"a": {"type": "dir", "future": 1}}, {"a": {"type": "dir", "future": 2}}, "/etc/a: future 2, was 1"),
        ({"a\n\x1b": {"type": "fifo"}}, {}, "/etc/a\\n\\x1b: is missing, was a named pipe"),
    ],
)
def test_every_kind_of_difference_between_files_has_its_words(old: Any, new: Any, line: str) -> None:
    assert file_differences(files(**old), files(**new)) == [line]


def test_a_folder_whose_size_differs_is_the_same_folder() -> None:
    assert file_differences(files(a={"type": "dir", "size": 40}), files(a={"type": "dir", "size": 60})) == []


def test_a_wholly_different_file_is_not_printed_wholly() -> None:
    old, new = ("".join(f"{word}{n}\n" for n in range(1000)) for word in ("old", "new"))
    lines = file_differences(files(a=regular(old)), files(a=regular(new)))
    assert len(lines) < 20
    assert lines[-1] == "/etc/a: … and 988 more lines"


def test_the_records_of_a_mechanism_and_the_folders_to_them_are_left_out() -> None:
    seen = {
        "files": {
            "/var/lib": {"type": "dir"},
            "/var/lib/keeper": {"type": "dir"},
            "/var/lib/keeper/1": {"type": "file"},
            "/var/lib/keepers": {"type": "file"},
        }
    }
    assert list(without(seen, ["/var/lib/keeper/"])["files"]) == ["/var/lib/keepers"]


def test_a_foreign_file_may_stay_as_it_was_or_as_it_was_changed_but_nothing_else() -> None:
    old, changed = ({"others": {"/etc/app": regular(text)}} for text in ("red\n", "blue\n"))
    assert litter(old, [changed], old) == []
    assert litter(old, [changed], changed) == []
    left = {"others": {**old["others"], "/etc/.tmp": {"type": "file"}}}
    assert litter(old, [changed], left) == ["beside the configuration: /etc/.tmp: is left over, a regular file"]
    assert litter(old, [], changed) == ["beside the configuration: /etc/app: line 1: 'blue', was 'red'"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"links__eth0__mtu": 1400}, "eth0: MTU 1400, was 1500"),
        ({"links__eth0__up": False}, "eth0: down, was up"),
        ({"links__eth0__master": "br0"}, "eth0: master br0, was none"),
        ({"links__eth0__options": {"stp_state": 1}}, "eth0: stp_state 1, was not there"),
        ({"links__br0": {"kind": "bridge"}}, "br0: the link is left over (bridge)"),
        (
            {"addresses__eth0__v4": ["192.0.2.10/24 scope global", "192.0.2.66/24"]},
            "eth0: address 192.0.2.66/24 is left over",
        ),
        ({"addresses__eth0__v4": []}, "eth0: address 192.0.2.10/24 scope global is missing"),
        (
            {"addresses__eth0__v4": ["192.0.2.10/24 scope link"]},
            "eth0: address 192.0.2.10/24 scope link, was 192.0.2.10/24 scope global",
        ),
        ({"routes__v4 main": ["192.0.2.0/24 dev eth0"]}, "route default via 192.0.2.1 dev eth0 is missing"),
        ({"routes__v4 200": ["default dev eth1"]}, "route default dev eth1 in v4 table 200 is left over"),
        ({"rules__v4": []}, "rule from all lookup main pref 32766 is missing"),
        ({"sysctls__net.ipv4.conf.eth0.rp_filter": "1"}, "net.ipv4.conf.eth0.rp_filter: 1, was 0"),
        ({"nftables": {"filter": "drop"}}, "nftables filter drop, was not there"),
    ],
)
def test_every_kind_of_difference_in_the_kernel_has_its_words(change: Any, line: str) -> None:
    assert kernel_differences(state(), altered(**change)) == [line]


def test_the_order_of_addresses_matters() -> None:
    one, two = (altered(addresses__eth0__v4=order) for order in (["a/24", "b/24"], ["b/24", "a/24"]))
    assert kernel_differences(one, two) == ["eth0: order of addresses b/24, a/24; was a/24, b/24"]


def test_what_a_missing_link_took_with_it_is_not_listed_again() -> None:
    gone = state()
    del gone["kernel"]["links"]["eth0"]
    gone["kernel"]["sysctls"] = {}
    assert kernel_differences(state(), gone) == ["eth0: the link is missing"]


def test_with_a_family_the_other_one_is_not_compared_but_links_are() -> None:
    seen = altered(
        **{
            "addresses__eth0__v6": [],
            "routes__v6 main": ["default dev eth0"],
            "rules__v6": ["x"],
            "sysctls__net.ipv6.conf.eth0.disable_ipv6": "1",
            "links__eth0__mtu": 9000,
        }
    )
    assert kernel_differences(state(), seen, "v4") == ["eth0: MTU 9000, was 1500"]
    assert len(kernel_differences(state(), seen, "v6")) == 5


def test_a_state_without_what_is_compared_is_an_error_and_not_equal() -> None:
    with pytest.raises(KeyError):
        kernel_differences({"files": {}}, {"files": {}})


def transient(seen: dict[str, Any], name: str, **values: int) -> dict[str, Any]:
    seen = copy.deepcopy(seen)
    seen["transient"]["links"][name].update(values)
    return seen


def test_a_link_that_the_change_did_not_touch_must_not_flap() -> None:
    old, changed = state(), state("192.0.2.66")
    assert flap_differences(old, changed, transient(old, "eth1", carrier_changes=4)) == [
        "eth1: its carrier changed 2 times, though the change did not touch it"
    ]
    assert flap_differences(old, changed, transient(old, "eth1", ifindex=9)) == [
        "eth1: deleted and made again, though the change did not touch it"
    ]


def test_a_link_that_the_change_touched_may_flap() -> None:
    old, changed = state(), state("192.0.2.66")  # the route names eth0
    assert flap_differences(old, changed, transient(old, "eth0", ifindex=9, carrier_changes=4)) == []


def test_a_bridge_whose_port_was_touched_may_flap() -> None:
    old = altered(links__eth0__master="br0", links__br0={"kind": "bridge"})
    old["transient"]["links"]["br0"] = {"ifindex": 5, "carrier_changes": 1}
    changed = copy.deepcopy(old)
    changed["kernel"]["links"]["eth0"]["mtu"] = 1400
    assert flap_differences(old, changed, transient(old, "br0", carrier_changes=3)) == []
    assert flap_differences(old, old, transient(old, "br0", carrier_changes=3)) != []


@pytest.mark.parametrize(
    ("outcome", "delivered", "reason", "problem"),
    [
        ("delivered", True, "", None),
        ("delivered", False, "no-route", "expected delivered; seen no-route"),
        ("unreachable", False, "timeout", None),
        ("unreachable", True, "", "expected unreachable; seen delivered"),
        ("no-route", False, "no-route", None),
        ("no-route", False, "timeout", "expected no-route; seen timeout"),
        ("no-route", True, "", "expected no-route; seen delivered"),
        ("delivered", False, "", "expected delivered; seen not delivered"),
    ],
)
def test_a_flow_is_judged_by_its_outcome(outcome: str, delivered: bool, reason: str, problem: str | None) -> None:
    assert flow_problem(outcome, delivered, reason) == problem


@pytest.mark.parametrize(
    ("entry", "wanted", "problems"),
    [
        (None, {"absent": True}, []),
        (regular("x"), {"absent": True}, ["expected /f to be absent; seen a regular file"]),
        (None, {"text": "x"}, ["expected /f to be there; it is absent"]),
        (regular("x, was y"), {"text": "x"}, ["/f: line 1: 'x, was y'; expected 'x'"]),
        (regular("x"), {"text": "x", "mode": 0o644, "owner": "root"}, []),
        (regular("x"), {"mode": "0600"}, ["expected mode 0600 of /f; seen 0644"]),
        (regular("x"), {"owner": "0:101"}, ["expected owner 0:101 of /f; seen 0:0"]),
        (regular("x"), {"owner": "root:root"}, []),
        (regular("x"), {"target": "/b"}, ["expected /f to be a symbolic link to '/b'; seen a regular file"]),
        ({"type": "symlink", "target": "/b"}, {"target": "/b"}, []),
        ({"type": "dir"}, {"text": ""}, ["expected /f to be a regular file; seen a folder"]),
        (
            {"type": "file", "size": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"},
            {"text": "x"},
            [],
        ),
        ({"type": "file", "size": 1, "sha256": "?"}, {"text": "x"}, ["/f: other content than expected (1 bytes)"]),
    ],
)
def test_a_file_is_judged_by_what_is_asked_of_it(entry: Any, wanted: Any, problems: list[str]) -> None:
    assert file_problems(entry, {"on": "server", "path": "/f", **wanted}) == problems


def test_output_and_transactions_are_judged_in_words() -> None:
    assert output_problem("open", "a transaction is open\n") is None
    assert output_problem("open", "none\n") == "expected 'open' in the output; seen 'none\\n'"
    assert transaction_problem("server", "none", "none") is None
    assert transaction_problem("server", "open", "none") == (
        "server: expected an open transaction; seen no open transaction"
    )
