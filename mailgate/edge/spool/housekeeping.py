"""What a spool needs every few seconds: lifetimes that are over, history and verdicts that are old, space given back,
the ballast.

All in small transactions, so that messages find their turn between them. What damage keeps from being done is said
(`spool.trouble`), and the rest is done all the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mailgate.config import SpoolConfig
from mailgate.edge.spool import place
from mailgate.edge.spool.errors import SpoolDamaged
from mailgate.edge.spool.opening import Serving
from mailgate.edge.spool.work import BATCH
from mailgate.edge.spool.writer import Operation

A = TypeVar("A")
R = TypeVar("R")

HISTORY = 86400.0  # seconds that settled messages are remembered
DEADLINE = 30.0  # seconds for one transaction
MOST_SHRINKING = 20  # transactions in one go


@dataclass(frozen=True, slots=True)
class Tended:
    """What was done: recipients that failed of age, messages forgotten, and whether the ballast is there."""

    expired: int
    purged: int
    ballast: bool


class Tell(Protocol):
    """Says an event."""

    def __call__(self, name: str, *, level: str = "error", **fields: object) -> None: ...


async def tend(serving: Serving, config: SpoolConfig, now: float, tell: Tell) -> Tended:
    """Do it. Raises SpoolError."""
    work = serving.work

    async def do(operation: Operation[A, R], argument: A) -> R:
        return await serving.writer.do(operation, argument, DEADLINE)

    expired: Counter[str] = Counter()
    with _telling_damage(tell):
        full = True
        while full:
            ids = await do(work.expire, now)
            expired.update(ids)
            full = len(ids) == BATCH
    for gate_id, number in expired.items():
        tell("spool.expired", level="warning", id=gate_id, recipients=number)
    purged = 0
    with _telling_damage(tell):
        full = True
        while full:
            some = await do(work.purge, now - HISTORY)
            purged += some
            full = some == BATCH
    with _telling_damage(tell):
        await do(work.trim, now)
    with _telling_damage(tell):
        for _ in range(MOST_SHRINKING):
            if not await do(work.shrink, None):
                break
    ballast = place.Ballast(serving.database.path)
    kept = await asyncio.get_running_loop().run_in_executor(serving.threads, ballast.take, config)
    return Tended(expired.total(), purged, kept)


@contextmanager
def _telling_damage(tell: Tell) -> Iterator[None]:
    try:
        yield
    except SpoolDamaged as error:
        tell("spool.trouble", cause=str(error))
