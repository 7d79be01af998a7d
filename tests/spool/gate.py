"""Stopping the writer's thread at a place, so that what happens meanwhile is no accident."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from mailgate.edge.spool import Store
from tests.spool.kit import wait_until


class Gate:
    """Stops the writer's thread where `stop` is called, until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    @staticmethod
    def opened() -> "Gate":
        """One that stops nobody."""
        gate = Gate()
        gate.open.set()
        return gate

    def stop(self, *_: Any) -> None:
        self.reached.set()
        assert self.open.wait(60)

    async def wait(self) -> None:
        """Until the thread stands there."""
        await wait_until(self.reached.is_set)


@contextmanager
def stopped_at(store: Store, what: str) -> Iterator[Gate]:
    """The writer stops at each event of that name of its engine. (Listeners are not removed: the thread may just be
    going through them.)
    """
    gate = Gate()
    event.listen(store.database.writing, what, gate.stop)
    try:
        yield gate
    finally:
        gate.open.set()
