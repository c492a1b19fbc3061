"""Laboratories for callers that must not fork, because they have threads or much memory: pytest and its plugins.

    caller ── server ── keeper ── laboratory ── machines

The server is this module run as a program. It ends with the caller's end of its socket, by whatever cause, and
everything below ends with it (`sim.world.sandbox`). A task gets a socket of its own, over which the two sides send
pickled values; its end tells the caller that nothing of the laboratory is left.
"""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from typing import Any, Literal

from sim.errors import LabError
from sim.planned import Plan

Task = Literal["run", "lab"]


class Server:
    """Starts tasks. The process behind it is started with the first one, and again when it was killed."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, task: Task, plan: Plan) -> Connection[Any, Any]:
        """Begin a task. `run`: its events come back; `lab`: it answers calls (`sim.served`)."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._launch()
        assert self._socket is not None
        ours, theirs = Pipe()
        try:
            socket.send_fds(self._socket, [task.encode()], [theirs.fileno()])
        except OSError as error:
            raise LabError(f"the process that starts laboratories is gone: {error.strerror}") from error
        finally:
            theirs.close()
        ours.send(plan)
        return ours

    def _launch(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [sys.executable, "-P", "-m", "sim.remote", str(theirs.fileno())]
        # -P: a folder `sim` in the working directory is somebody else's. A session of its own: Ctrl-C is the caller's.
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()

    def close(self) -> None:
        """End the process, and with it every laboratory that it has started."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.wait()
        self._socket = self._process = None


def received(connection: Connection[Any, Any]) -> Iterator[Any]:
    """What comes over a connection until its other side is gone."""
    with connection:
        while True:
            try:
                yield connection.recv()
            except (EOFError, ConnectionResetError):
                return


# -- the server --------------------------------------------------------------------------------------------------------


def serve(control: socket.socket) -> None:
    """Start what is asked for, until the caller is gone."""
    from sim.world import sandbox

    while True:
        task, fds, _, _ = socket.recv_fds(control, 64, 1)
        _reap()
        if not task:
            return
        connection: Connection[Any, Any] = Connection(fds[0])
        with connection:
            work = functools.partial(_work, task.decode(), connection)
            sandbox.spawn(work, functools.partial(_refused, task.decode(), connection))


def _reap() -> None:
    """Keepers that have ended. They end by themselves; nothing waits for their exit status."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _work(task: str, connection: Connection[Any, Any]) -> None:
    from sim import run, served

    plan = connection.recv()
    if task == "run":
        run.execute(plan, connection.send)
    else:
        served.serve(plan, connection)


def _refused(task: str, connection: Connection[Any, Any], why: str) -> None:
    from sim import served
    from sim.events import RunEnded

    connection.send(RunEnded(0.0, missing=why) if task == "run" else served.Reply(why, "missing"))


if __name__ == "__main__":
    # everything that a laboratory needs is loaded once, here, and not in each of them
    import sim.run
    import sim.served  # noqa: F401

    serve(socket.socket(fileno=int(sys.argv[1])))
