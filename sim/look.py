"""Look at what an interruption left: the machine after its boot, with a shell on the user's terminal."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import termios
import tty
from typing import IO

from sim.crash import Bench, gather
from sim.errors import LabError
from sim.struck import Report, Strike
from sim.world.machine import Machine


def stand(report: Report, strike: Strike) -> None:
    """Interrupt once more as for `strike`, boot, and let the user in until the shell ends.

    Raises LabError, Missing. Standard input and output must be a terminal.
    """
    point = report.points[strike.at - 1] if strike.at <= len(report.points) else None
    settings = termios.tcgetattr(sys.stdin)

    def work(_out: IO[str]) -> None:
        bench = Bench(report.campaign)
        bench.prepare()
        bench.stand(point, strike.image)
        wire(bench.machine, ["/usr/bin/env", f"TERM={os.environ.get('TERM', 'dumb')}", "/bin/sh", "-i"])

    try:
        gather(work)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)


def wire(machine: Machine, words: list[str]) -> None:
    """Run a program on a terminal of the machine, which is wired to this process's own until the program ends."""
    theirs, _ = machine.on_terminal(words)
    tty.setraw(0)  # what control characters mean is decided at their end

    def same_size(*_: object) -> None:
        termios.tcsetwinsize(theirs, termios.tcgetwinsize(0))

    same_size()
    signal.signal(signal.SIGWINCH, same_size)
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ, theirs)
        selector.register(theirs, selectors.EVENT_READ, 1)
        while True:
            for key, _ in selector.select():
                try:
                    data = os.read(key.fd, 1 << 14)
                except OSError:
                    data = b""  # EIO: nobody has the other end open any more
                if not data:
                    if key.fd == theirs:
                        return
                    raise LabError("the terminal is gone")
                os.write(key.data, data)
