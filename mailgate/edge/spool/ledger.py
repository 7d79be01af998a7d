"""The ledger of posts that went on without the score that they should have, as the relay meets it.

An entry is noted before the post is handed to the next hop, and written in the writer's group commits, many in one
job, while the next hop does its part. Before the sender gets its reply the entry is waited for, PATIENCE at most. So
if the gate is killed, all that was answered 250 stands in the ledger; what the next hop took in the last moment, and
nobody was told of, may not: its sender sends it again.
How it fails: never with an exception, and it never keeps mail. While it can't be written (`ledger.failed`, the cause)
nobody waits for it, up to MOST_WAITING entries are kept in memory and tried again (`ledger.written` when that was of
use), and of more, or at the end, it is said how many are not in it (`ledger.lost`). Each of these posts still has its
line `spam.unscored` in the log.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mailgate.core.fate import Fate
from mailgate.edge.spool.unscored import Note
from mailgate.ports import Post, SpoolError

PATIENCE = 0.5  # seconds that a reply waits for its entry
AGAIN = 5.0  # seconds between two attempts to write what could not be written
CALM = 60.0  # seconds without an unscored post, in which another was scored, after which an outage is over
MOST_AT_ONCE = 500  # entries in one job
MOST_WAITING = 20_000  # the same in memory
NAMED = 20  # ids that an event names


class Tell(Protocol):
    """Says an event."""

    def __call__(self, name: str, *, level: str = "error", **fields: object) -> None: ...


@dataclass(slots=True, eq=False)
class _Waiting:
    """A note on its way to the disk. `awaited` is done when it is there, or can't be brought there now. `open`: it may
    still be changed.
    """

    note: Note
    awaited: asyncio.Future[None]
    open: bool = True

    def answer(self) -> None:
        """Nobody need wait for it any more."""
        if not self.awaited.done():
            self.awaited.set_result(None)


@dataclass(slots=True, eq=False)
class _Entry:
    """See `mailgate.ports.Entry`."""

    ledger: Ledger
    begun: _Waiting

    async def became(self, fates: Mapping[str, Fate]) -> None:
        await self.ledger.became(self.begun, fates)


@dataclass(slots=True, eq=False)
class _Missed:
    """Stands for an entry where a bug kept it from being noted."""

    async def became(self, fates: Mapping[str, Fate]) -> None:
        """Nothing is left to be done: that it is missing has been said."""


@dataclass(slots=True)
class _Loss:
    entries: int = 0
    ids: list[str] = field(default_factory=list)


class Ledger:
    """See `mailgate.ports.Ledger`. `write` brings notes to the disk; it raises SpoolError."""

    def __init__(self, write: Callable[[Sequence[Note]], Awaitable[None]], tell: Tell) -> None:
        self._write = write
        self._tell = tell
        self._queue: deque[_Waiting] = deque()
        self._under_way: Sequence[_Waiting] = ()
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._trouble = ""
        self._lost = _Loss()
        self._outage = ""
        self._latest = 0.0
        self._scored = True

    # outages

    def resume(self, outage: str, latest: float) -> None:
        """An earlier process saw the last post of that outage then: it goes on if it was just now."""
        if not self._outage:
            self._outage, self._latest = outage, latest

    def scored(self) -> None:
        self._scored = True

    def outage(self, gate_id: str, received: float) -> str:
        """The outage of a post that is found to be unscored; it is the first of a new one if the last one is over."""
        if not self._outage or (self._scored and received > self._latest + CALM):
            self._outage = gate_id
        self._scored, self._latest = False, max(self._latest, received)
        return self._outage

    # entries

    def passing(self, post: Post) -> _Entry | _Missed:
        try:
            return _Entry(self, self._put(Note(post, self.outage(post.id, post.received))))
        except Exception:  # noqa: BLE001  a bug here must not keep the post
            self._tell("ledger.failed", id=post.id, trace=traceback.format_exc())
            return _Missed()

    async def became(self, begun: _Waiting, fates: Mapping[str, Fate]) -> None:
        """See `mailgate.ports.Entry.became`."""
        try:
            if begun.open:
                begun.note.fates = fates
            else:
                self._put(Note(begun.note.post, begun.note.outage, fates))
            if not begun.awaited.done() and not self._trouble:
                await asyncio.wait((begun.awaited,), timeout=PATIENCE)
                if not begun.awaited.done():
                    self._failed(f"not written within {PATIENCE:g} s")
        except Exception:  # noqa: BLE001  the post has been delivered: whatever is wrong here, its reply must say so
            self._tell("ledger.failed", id=begun.note.post.id, trace=traceback.format_exc())

    def _put(self, note: Note) -> _Waiting:
        waiting = _Waiting(note, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if len(self._queue) > MOST_WAITING:
            self._lose(self._queue.popleft())
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return waiting

    def _lose(self, waiting: _Waiting) -> None:
        waiting.open = False
        waiting.answer()
        self._lost.entries += 1
        if len(self._lost.ids) < NAMED:
            self._lost.ids.append(waiting.note.post.id)

    # writing

    async def _work(self) -> None:
        """Write until nothing waits: what comes in while a job runs goes with the next one. After a failure one entry
        is tried, and another one the next time: the fault may be with a single one.
        """
        most = MOST_AT_ONCE
        while self._queue:
            some = self._under_way = [self._queue.popleft() for _ in range(min(len(self._queue), most))]
            for waiting in some:
                waiting.open = False
            cause = await self._written([waiting.note for waiting in some])
            self._under_way = ()
            for waiting in some:
                waiting.answer()
            if not cause:
                most = MOST_AT_ONCE
                self._well(len(some))
                continue
            most = 1
            self._queue.extend(some)
            self._failed(cause)
            if self._ending.is_set():
                break
            try:
                async with asyncio.timeout(AGAIN):
                    await self._ending.wait()
            except TimeoutError:
                continue
        self._task = None

    async def _written(self, notes: Sequence[Note]) -> str:
        """Why they could not be written, "" if they are."""
        try:
            await self._write(notes)
        except SpoolError as error:
            return str(error)
        except Exception:  # noqa: BLE001  the next ones are to be tried all the same
            return traceback.format_exc()
        return ""

    def _failed(self, cause: str) -> None:
        if not self._trouble:
            self._tell("ledger.failed", cause=cause, waiting=len(self._queue))
        self._trouble = cause

    def _well(self, number: int) -> None:
        if self._trouble:
            self._tell("ledger.written", level="info", entries=number, cause=self._trouble)
        self._trouble = ""
        self._tell_loss("more than could be kept in memory")

    def _tell_loss(self, cause: str) -> None:
        if self._lost.entries:
            self._tell("ledger.lost", entries=self._lost.entries, ids=self._lost.ids, cause=cause)
            self._lost = _Loss()

    async def close(self, timeout: float) -> None:
        """Write what waits, for so many seconds; say what is lost."""
        self._ending.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=timeout)
            if self._task is not None:
                self._task.cancel()
        for waiting in (*self._under_way, *self._queue):
            self._lose(waiting)
        self._queue.clear()
        self._under_way, self._task = (), None
        self._tell_loss(f"the gate has ended before they could be written: {self._trouble}")
