"""The ledger of posts that went on without the score that they should have, as the relay meets it.

An entry is noted before the post is handed to the next hop, and written in the writer's group commits, many in one
job, while the next hop does its part. Before the sender gets its reply the entry is waited for, PATIENCE at most. So
if the gate is killed, all that was answered 250 stands in the ledger: with what became of it, or for the last LAZY
seconds as `begun`. What the next hop took in the last moment, and nobody was told of, may be missing: its sender sends
it again.
How it fails: never with an exception, and it never keeps mail. While it can't be written (`ledger.failed`, the cause)
nobody waits for it, up to MOST_WAITING entries are kept in memory and tried again (`ledger.written` when that was of
use), and of more, or at the end, it is said how many are not in it (`ledger.lost`). Each of these posts still has its
line `spam.unscored` in the log.
"""

from __future__ import annotations

import asyncio
import itertools
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mailgate.core.fate import Fate
from mailgate.edge.spool.unscored import Note
from mailgate.ports import Post, SpoolError

PATIENCE = 0.5  # seconds that a reply waits for its entry
PACE = 0.005  # seconds between the beginnings of two jobs while many entries come in: they are to share them
LAZY = 0.5  # seconds between two jobs in which what became of posts is written as well
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
    """An entry on its way to the disk. `answered` is done when it is there, or can't be brought there now. `open`: what
    became of it can still go with it.
    """

    note: Note
    answered: asyncio.Future[None]
    open: bool = True

    def answer(self) -> None:
        """Nobody need wait for it any more."""
        if not self.answered.done():
            self.answered.set_result(None)


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
        self._entries: deque[_Waiting] = deque()
        self._words: deque[Note] = deque()  # what became of posts whose entry had gone already
        self._task: asyncio.Task[None] | None = None
        self._under_way: Sequence[Note] = ()
        self._wanted = asyncio.Event()  # there is an entry, or the end
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
            waiting = _Waiting(Note(post, self.outage(post.id, post.received)), asyncio.Future())
            self._entries.append(waiting)
            self._wanted.set()
            self._see_to_it()
            return _Entry(self, waiting)
        except Exception:  # noqa: BLE001  a bug here must not keep the post
            self._tell("ledger.failed", id=post.id, trace=traceback.format_exc())
            return _Missed()

    async def became(self, begun: _Waiting, fates: Mapping[str, Fate]) -> None:
        """See `mailgate.ports.Entry.became`."""
        try:
            if begun.open:
                begun.note.fates = fates
            else:
                self._words.append(Note(begun.note.post, begun.note.outage, fates, again=True))
                self._see_to_it()
            if not begun.answered.done() and not self._trouble:
                async with asyncio.timeout(PATIENCE):
                    await begun.answered
        except TimeoutError:
            self._failed(f"not written within {PATIENCE:g} s")
        except Exception:  # noqa: BLE001  the post has been delivered: whatever is wrong here, its reply must say so
            self._tell("ledger.failed", id=begun.note.post.id, trace=traceback.format_exc())

    def _see_to_it(self) -> None:
        if len(self._entries) + len(self._words) > MOST_WAITING:
            self._lose(self._taken(1) or self._told(1))
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    def _lose(self, notes: Sequence[Note]) -> None:
        self._lost.entries += len(notes)
        self._lost.ids.extend(note.post.id for note in notes[: NAMED - len(self._lost.ids)])

    # writing

    async def _work(self) -> None:
        """Write until nothing waits: what comes in while a job runs goes with the next one. After a failure one entry
        is tried, and another one the next time: the fault may be with a single one.
        """
        loop, most, began = asyncio.get_running_loop(), MOST_AT_ONCE, 0.0
        told = loop.time()
        while self._entries or self._words:
            await self._gathered(began, told)
            began = loop.time()
            entries = list(itertools.islice(self._entries, most))
            self._under_way = self._taken(most)
            if began >= told + LAZY or not entries:
                self._under_way += self._told(most - len(entries))
                told = told if self._words else began
            cause = await self._written(self._under_way)
            for waiting in entries:
                waiting.answer()
            if not cause:
                most = MOST_AT_ONCE
                self._well(len(self._under_way))
                continue
            most = 1
            self._entries.extend(entries)
            self._words.extend(self._under_way[len(entries) :])
            self._under_way = ()
            self._failed(cause)
            if self._ending.is_set():
                break
            await _within(AGAIN, self._ending)
        self._under_way, self._task = (), None

    async def _gathered(self, began: float, told: float) -> None:
        """One entry goes at once, several wait for others to come, and what became of them waits longer."""
        now = asyncio.get_running_loop().time()
        if not self._entries and not self._ending.is_set():
            self._wanted.clear()
            await _within(told + LAZY - now, self._wanted)
        elif len(self._entries) > 1:
            await _within(began + PACE - now, self._ending)

    def _taken(self, most: int) -> list[Note]:
        """The entries that are written next: they are not `open` any more."""
        taken = [self._entries.popleft() for _ in range(min(most, len(self._entries)))]
        for waiting in taken:
            waiting.open = False
        return [waiting.note for waiting in taken]

    def _told(self, most: int) -> list[Note]:
        """The same of what became of others."""
        return [self._words.popleft() for _ in range(min(most, len(self._words)))]

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
            self._tell("ledger.failed", cause=cause, waiting=len(self._entries) + len(self._words))
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
        self._wanted.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=timeout)
            if self._task is not None:
                self._task.cancel()
        self._lose((*self._under_way, *self._taken(MOST_WAITING), *self._told(MOST_WAITING)))
        self._under_way, self._task = (), None
        self._tell_loss(f"the gate has ended before they could be written: {self._trouble}")


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Until the event, or so many seconds."""
    if seconds <= 0:
        return
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
