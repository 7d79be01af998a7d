"""What the tests of the spool share: messages to store, a telemetry that remembers, spools that are closed again."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mailgate.config import SpoolConfig
from mailgate.core.envelope import Envelope
from mailgate.core.message import Message
from mailgate.edge.spool import Database, Store, outages
from mailgate.ports import Facts, Parked, Post
from tests.stack.waiting import PATIENCE

HOST = "gate.lists.test"
NOW = 1_700_000_000.0


class Recorder:
    """A telemetry that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Mapping[str, object]]] = []
        self.numbers: list[tuple[str, float, Mapping[str, str]]] = []

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self.numbers.append((name, amount, labels))

    def observe(self, name: str, value: float, exemplar: str = "", **labels: str) -> None:  # noqa: ARG002
        self.numbers.append((name, value, labels))

    def event(self, name: str, fields: Mapping[str, object], *, level: str = "info") -> None:
        self.events.append((name, level, fields))

    def named(self, name: str) -> list[Mapping[str, object]]:
        """The events of a name."""
        return [fields for event, _, fields in self.events if event == name]


def config(directory: Path, **keys: Any) -> SpoolConfig:
    """A configuration of a spool in `directory`, as its file would say it."""
    return SpoolConfig(**{"url": f"sqlite:///{directory}/spool.db", "min_free": "1MiB"} | keys)


@asynccontextmanager
async def spool(directory: Path, telemetry: Recorder | None = None, **keys: Any) -> AsyncIterator[Store]:
    """An open spool."""
    store = Store(config(directory, **keys), HOST, telemetry or Recorder())
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def a_message(size: int = 300, fill: bytes = b"x") -> Message:
    """A message of that many octets, in pieces of 64 KiB."""
    head = b"Subject: spooled\r\nMessage-ID: <1@example.org>\r\n\r\n"
    body = fill * (size - len(head) - 2) + b"\r\n"
    return Message(head, tuple(body[at : at + 65536] for at in range(0, len(body), 65536)))


def octets(message: Message | None) -> bytes:
    """The whole of it; the message must be there."""
    assert message is not None
    return b"".join(message.chunks)


async def put(
    store: Store,
    gate_id: str,
    *people: str | Parked,
    message: Message | None = None,
    sender: str = "ann@example.org",
    now: float = NOW,
    timeout: float = 30.0,
) -> None:
    """Store a message for these recipients, pending unless they say otherwise."""
    named: Sequence[str | Parked] = people or ("list@lists.test",)
    parked = [one if isinstance(one, Parked) else Parked(one, "pending", "451 4.3.0 later") for one in named]
    envelope = Envelope(sender, tuple(one.recipient for one in parked))
    facts = Facts(f"exim-{gate_id}", f"<{gate_id}@example.org>", "192.0.2.7")
    await store.store(gate_id, envelope, message or a_message(), parked, facts, now, timeout)


async def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for a condition, in this loop."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        await asyncio.sleep(0.005)


def states(store: Store) -> dict[str, int]:
    """Recipients by shown state, without the empty ones."""
    return {state: number for state, number in store.counts().recipients.items() if number}


UNSCORED = "unscored:timeout: 127.0.0.1:783: no answer"


def a_post(gate_id: str, *recipients: str, now: float = NOW) -> Post:
    """What the ledger is told of a message that has no score."""
    envelope = Envelope("ann@example.org", recipients or ("list@lists.test",))
    facts = Facts(f"exim-{gate_id}", f"<{gate_id}@example.org>", "ip=192.0.2.7", UNSCORED)
    return Post(gate_id, envelope, 300, facts, now)


async def put_unscored(store: Store, gate_id: str, *parked: Parked, now: float = NOW, timeout: float = 5) -> None:
    """Store a message that came in unscored, pending unless it is said otherwise."""
    people = parked or (Parked("list@lists.test", "pending", ""),)
    post = a_post(gate_id, *(one.recipient for one in people), now=now)
    await store.store(gate_id, post.envelope, a_message(), people, post.facts, now, timeout)


def ledger(where: Store | Path, **asked: Any) -> dict[str, dict[str, str]]:
    """What stands in the ledger: the state of each recipient of each post. `asked`: see `outages.Choice`."""
    database = where.database if isinstance(where, Store) else Database(where / "spool.db", HOST)
    try:
        found = outages.posts(database, outages.Choice(**{"everything": True} | asked))
        return {one.id: {person.address: person.state for person in one.recipients} for one in found}
    finally:
        if not isinstance(where, Store):
            database.close()


def sql(directory: Path, statement: str, *values: Any) -> list[Any]:
    """Run a statement behind the spool's back."""
    connection = sqlite3.connect(directory / "spool.db", isolation_level=None)
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.close()
