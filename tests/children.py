"""Work that is done in another process, for its namespaces' sake, and whose value or exception comes back."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any

from sim.world import kernel


def answer(work: Callable[[], Any], start: Callable[[Callable[[], None]], int]) -> Any:
    """The value of `work()`; `start` has a function done in a child and returns the child's process id."""
    reading, writing = os.pipe()

    def inside() -> None:
        try:
            told = (True, work())
        except Exception as error:  # noqa: BLE001 (it is handed to the caller, which raises)
            told = (False, f"{error}\n{traceback.format_exc()}")
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(told, pipe)

    child = start(inside)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    assert data, "this machine does not let tests have namespaces of their own"
    good, value = pickle.loads(data)
    if not good:
        raise AssertionError(value)
    return value


def in_namespaces(work: Callable[[], Any], flags: int = kernel.NEWNET) -> Any:
    """The value of `work()`, done in new namespaces of these kinds (unshare(2))."""

    def start(inside: Callable[[], None]) -> int:
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        try:
            kernel.unshare(flags)
            inside()
        finally:
            os._exit(1)

    return answer(work, start)
