"""What a spool needs every few seconds: history, ledger and verdicts that are old are forgotten, space is given back,
the ballast kept.

All in small transactions, so that messages find their turn between them. What damage keeps from being done is said
(`spool.trouble`), and the rest is done all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mailgate.config import HistoryConfig, SpoolConfig
from mailgate.edge.spool import place, unscored
from mailgate.edge.spool.errors import SpoolDamaged
from mailgate.edge.spool.opening import Serving
from mailgate.edge.spool.work import BATCH, PARTS
from mailgate.edge.spool.writer import Operation
from mailgate.ports import SpoolError

A = TypeVar("A")
R = TypeVar("R")

SETTLED = 86400.0  # seconds that settled messages are remembered
LEDGER = 30 * 86400.0  # the same for posts in the ledger
SHARE = 20 * 2**10  # octets of spool.max_bytes for which the ledger may have a post: by default it has up to a million
FEWEST = 10_000  # posts that it may have in any case
DEADLINE = 30.0  # seconds for one transaction
MOST_SHRINKING = 20  # transactions in one go


@dataclass(frozen=True, slots=True)
class Tended:
    """What was done: messages forgotten, and whether the ballast is there."""

    purged: int
    ballast: bool


class Tell(Protocol):
    """Says an event."""

    def __call__(self, name: str, *, level: str = "error", **fields: object) -> None: ...


async def tend(serving: Serving, config: SpoolConfig, history: HistoryConfig, now: float, tell: Tell) -> Tended:
    """Do it. Raises SpoolError."""
    work = serving.work

    async def do(operation: Operation[A, R], argument: A) -> R:
        return await serving.writer.do(operation, argument, DEADLINE)

    purged = 0
    with _telling_damage(tell):
        full = True
        while full:
            some = await do(work.purge, now - SETTLED)
            purged += some
            full = some == BATCH
    try:
        await _forget(serving, max(FEWEST, config.max_bytes // SHARE), now, tell)
    except SpoolError as error:
        tell("ledger.failed", cause=str(error))
    with _telling_damage(tell):
        while await do(work.fade, (now - history.keep, history.max_bytes)) == PARTS:
            pass
    with _telling_damage(tell):
        await do(work.trim, now)
    with _telling_damage(tell):
        for _ in range(MOST_SHRINKING):
            if not await do(work.shrink, None):
                break
    ballast = place.Ballast(serving.database.path)
    kept = await serving.aside(lambda: ballast.take(config))
    return Tended(purged, kept)


async def _forget(serving: Serving, most: int, now: float, tell: Tell) -> None:
    """Keep the ledger within its bounds."""

    async def forget(before: float | None, number: int) -> int:
        """How many were forgotten, of so many that may be."""
        forgotten = 0
        while forgotten < number:
            some = await serving.writer.do(serving.work.forget, (before, min(BATCH, number - forgotten)), DEADLINE)
            forgotten += some
            if not some:
                break
        return forgotten

    def count() -> int:
        return serving.database.read(unscored.count, "counting the ledger")

    posts = await serving.aside(count)
    if not posts:
        return
    aged = await forget(now - LEDGER, posts)
    crowded = await forget(None, posts - aged - most)
    if aged or crowded:
        level = "warning" if crowded else "info"
        tell("ledger.forgotten", level=level, posts=aged + crowded, younger=crowded, kept=posts - aged - crowded)


@contextmanager
def _telling_damage(tell: Tell) -> Iterator[None]:
    try:
        yield
    except SpoolDamaged as error:
        tell("spool.trouble", cause=str(error))
