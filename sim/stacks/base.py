"""What a stack is: the software that turns configuration files into kernel state at boot and on reload."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Stack:
    """A stack, as data: its files, its commands, and how netplan-style configuration is written for it.

    Commands are run by the machine's PID 1 with `/bin/sh -c`, as root, in the machine.
    """

    name: str
    patterns: tuple[str, ...]  # shell patterns (absolute) of the files that it reads: the configuration
    ignored: tuple[str, ...]  # patterns of file names that it ignores although their place fits (`*~`, …)
    start: str  # the network phase of a boot
    stop: str  # at shutdown
    reload: str  # apply the files as they are now
    render: Callable[[Mapping[str, Any]], Mapping[str, str]]
    """Pure. The `config:` of a machine (validated mapping) -> {absolute path: text}. Raises ValueError."""

    programs: Mapping[str, str] = field(default_factory=dict)  # absolute path -> text of a script, mode 0755
    builtins: Mapping[str, Callable[[Sequence[str]], int]] = field(default_factory=dict)
    """Programs that PID 1 runs itself, in a fork that has everything imported: name -> main(arguments).

    `programs` of such a stack are made by `builtin_script`; main writes to stdout/stderr, returns the exit status.
    """

    selective_reload: bool = False  # True: reload leaves interfaces alone whose configuration did not change
    missing: Callable[[], str | None] = lambda: None  # why it cannot run on this machine
    records: tuple[str, ...] = ()  # what its programs note about themselves below /etc: no configuration, not compared
    packages: tuple[str, ...] = ()  # Debian packages it needs


def builtin_script(name: str, about: str) -> str:
    """A POSIX shell program that hands its arguments to PID 1 and exits with what comes back.

    PID 1 has everything loaded, so the program costs a few milliseconds, and needs nothing of the root tree
    but a shell and mkfifo. PID 1 takes its stdout from number 3: number 1 is the request while that is written.
    """
    return f"""#!/bin/sh
# {about}
# The work is done in a fork of PID 1 of this simulated machine.
[ -e /proc/$$/fd/1 ] || exec > /dev/null
[ -e /proc/$$/fd/2 ] || exec 2> /dev/null
exec 3>&1
reply=/run/sim/reply.$$
mkfifo -m 600 "$reply" || exit 1
trap 'rm -f "$reply"' EXIT
printf '%s\\0' $$ {name} $# "$@" > /run/sim/request || exit 1
read -r status < "$reply"
exit "${{status:-1}}"
"""


DHCLIENT_CONF = """\
timeout 10;
retry 5;
initial-interval 1;
backoff-cutoff 5;
"""
"""/etc/dhcp/dhclient.conf (dhclient.conf(5)) of every machine: a boot or a reload waits ten seconds for a lease, and a
server that boots at the same time is asked again after one. Debian's own file leaves the first at five minutes."""
