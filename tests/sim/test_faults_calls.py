"""Which calls change a disk, and how two recordings of a program are compared."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sim.faults.calls import DISK_CALLS, REGULAR_ONLY, changes, masked

NEW = os.O_WRONLY | os.O_CREAT
EMPTY = os.O_WRONLY | os.O_TRUNC


@pytest.mark.parametrize(
    ("flags", "exists", "size", "changed"),
    [
        (NEW, False, 0, True),
        (NEW, True, 5, False),  # it is there: nothing is made, nothing is emptied
        (NEW | os.O_TRUNC, True, 5, True),
        (NEW | os.O_TRUNC, True, 0, False),  # empty already
        (EMPTY, True, 5, True),
        (EMPTY, False, 0, False),  # fails with ENOENT
        (os.O_RDWR | os.O_TRUNC, True, 5, True),
        (os.O_RDONLY, True, 5, False),
        (os.O_WRONLY, True, 5, False),  # writes are calls of their own
        (os.O_TMPFILE | os.O_RDWR, True, 0, False),  # a file without a name
        (os.O_RDONLY | os.O_DIRECTORY, True, 0, False),
    ],
)
def test_an_open_changes_the_disk_when_it_makes_or_empties_a_file(
    flags: int, exists: bool, size: int, changed: bool
) -> None:
    assert changes(flags, exists, size) is changed


def test_process_ids_and_random_names_do_not_tell_two_recordings_apart() -> None:
    one = "mv /var/lib/x/tmp.Xa81PqLw /var/lib/x/snapshot.1234"
    two = "mv /var/lib/x/tmp.hG6tRe2Q /var/lib/x/snapshot.77"
    assert masked(one) == masked(two) == "mv /var/lib/x/tmp.* /var/lib/x/snapshot.#"


@pytest.mark.parametrize(
    "text", ["cp -p /etc/network/interfaces /var/lib/saved/", "sync -f /etc/sysconfig/network-scripts"]
)
def test_names_that_mean_something_stay_as_they_are(text: str) -> None:
    assert masked(text) == text


def test_different_programs_stay_different() -> None:
    assert masked("rm -rf /var/lib/a") != masked("rm -rf /var/lib/b")


def test_every_call_says_where_its_path_or_descriptor_is() -> None:
    for call in DISK_CALLS.values():
        assert bool(call.paths) + (call.fd is not None) + call.always == 1, call.name
    assert set(DISK_CALLS) | {"ioctl"} >= REGULAR_ONLY


def test_the_table_is_loaded_without_libseccomp() -> None:
    code = "import sim.faults.calls, sys; sys.exit('sim.faults.filter' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
