"""A process beside the laboratory, forked from it, that dies with it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable

from sim.world import kernel


def start(work: Callable[[socket.socket], None]) -> tuple[int, socket.socket]:
    """Runs `work(its end of a pair)` in a child; returns the process id and our end (unix(7), SOCK_SEQPACKET).

    The child is sent SIGKILL when this process ends. It should end by itself when our end is closed; reap it then
    (waitpid(2)).
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    laboratory = os.getpid()
    process = os.fork()
    if process:
        theirs.close()
        return process, ours
    status = 1
    try:
        ours.close()
        kernel.die_with_parent(signal.SIGKILL, laboratory)
        work(theirs)
        status = 0
    except BaseException:  # noqa: BLE001  # the last frame of a process: say what happened, then end it
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)
