"""A tree and its store, open for one verb."""

from __future__ import annotations

from snapcore.host import Host
from snapcore.store import Store


class Opened:
    """`with Opened(root) as (host, store)`: no longer than one verb, since a lock lasts as long as they are open."""

    def __init__(self, root: str) -> None:
        self.host = Host(root)
        try:
            self.store = Store(self.host.tree)
        except BaseException:
            self.host.close()  # a watcher tries again each second
            raise

    def __enter__(self) -> tuple[Host, Store]:
        return self.host, self.store

    def __exit__(self, *_: object) -> None:
        self.store.close()
        self.host.close()
