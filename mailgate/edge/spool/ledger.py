"""The ledger of posts that went on without the score that they should have, as the relay meets it.

No mail waits for it. An entry is noted before the post is handed to the next hop, and written beside that in the
writer's group commits: the first one at once, others no sooner than LINGER after it, together. What is spooled is in
the ledger by the same commit. So if the gate is killed, what may be missing are entries of the last moment: a commit,
and LINGER where there are more than a few posts a second; their senders may have got a 250. What became of posts in
the last LAZY seconds is not known then, and they are called uncertain.
How it fails: never with an exception, and it never keeps mail. While it can't be written (`ledger.failed`, the cause)
up to MOST_WAITING entries are kept in memory and tried again (`ledger.written` when that was of use); of more, or at
the end, it is said how many are not in it (`ledger.lost`). The final line of each of these posts in the log says
that it is unscored.
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

LINGER = 0.05  # seconds between two jobs at least: one for each entry would cost more than passing the message
LAZY = 0.5  # seconds that what became of a post waits if its entry has been written without it
AGAIN = 5.0  # seconds between two attempts to write what could not be written
CALM = 60.0  # seconds without an unscored post, in which another was scored, after which an outage is over
MOST_AT_ONCE = 500  # entries in one job
MOST_WAITING = 20_000  # the same in memory
NAMED = 20  # ids that an event names


class Tell(Protocol):
    """Says an event."""

    def __call__(self, name: str, *, level: str = "error", **fields: object) -> None: ...


@dataclass(slots=True, eq=False)
class _Entry:
    """See `mailgate.ports.Entry`. `open`: what became of it can still go with it."""

    ledger: Ledger
    note: Note
    open: bool = True

    def became(self, fates: Mapping[str, Fate]) -> None:
        self.ledger.became(self, fates)


@dataclass(slots=True)
class _Loss:
    entries: int = 0
    ids: list[str] = field(default_factory=list)


class Ledger:
    """See `mailgate.ports.Ledger`. `write` brings notes to the disk; it raises SpoolError."""

    def __init__(self, write: Callable[[Sequence[Note]], Awaitable[None]], tell: Tell) -> None:
        self._write = write
        self._tell = tell
        self._entries: deque[_Entry] = deque()
        self._words: deque[Note] = deque()  # what became of posts whose entry had gone already
        self._task: asyncio.Task[None] | None = None
        self._under_way: Sequence[Note] = ()
        self._wanted = asyncio.Event()  # there is an entry, or the end
        self._ending = asyncio.Event()
        self._trouble = ""
        self._lost = _Loss()
        self._began = 0.0  # the last job
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

    def passing(self, post: Post) -> _Entry:
        """See `mailgate.ports.Ledger.passing`."""
        entry = _Entry(self, Note(post, ""))
        try:
            entry.note.outage = self.outage(post.id, post.received)
            self._entries.append(entry)
            self._wanted.set()
            self._see_to_it()
        except Exception:  # noqa: BLE001  a bug here must not keep the post
            self._tell("ledger.failed", id=post.id, trace=traceback.format_exc())
        return entry

    def became(self, entry: _Entry, fates: Mapping[str, Fate]) -> None:
        """See `mailgate.ports.Entry.became`."""
        try:
            if entry.open:
                entry.note.fates = fates
            else:
                self._words.append(Note(entry.note.post, entry.note.outage, fates, again=True))
                self._see_to_it()
        except Exception:  # noqa: BLE001  the post has been delivered: whatever is wrong here, its reply must say so
            self._tell("ledger.failed", id=entry.note.post.id, trace=traceback.format_exc())

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
        loop, most = asyncio.get_running_loop(), MOST_AT_ONCE
        told = loop.time()
        while self._entries or self._words:
            await self._gathered(told + LAZY - loop.time())
            self._began = loop.time()
            entries = list(itertools.islice(self._entries, most))
            self._under_way = self._taken(most)
            if loop.time() >= told + LAZY or not entries:
                self._under_way += self._told(most - len(entries))
                told = told if self._words else loop.time()
            cause = await self._written(self._under_way)
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
            await within(AGAIN, self._ending)
        self._under_way, self._task = (), None

    async def _gathered(self, lazily: float) -> None:
        """Until there is enough for a job."""
        if not self._entries and not self._ending.is_set():
            self._wanted.clear()
            await within(lazily, self._wanted)
        if len(self._entries) < MOST_AT_ONCE:
            await within(self._began + LINGER - asyncio.get_running_loop().time(), self._ending)

    def _taken(self, most: int) -> list[Note]:
        """The entries that are written next: they are not `open` any more."""
        taken = [self._entries.popleft() for _ in range(min(most, len(self._entries)))]
        for entry in taken:
            entry.open = False
        return [entry.note for entry in taken]

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


async def within(seconds: float, event: asyncio.Event) -> None:
    """Until the event, or so many seconds."""
    if seconds <= 0:
        return
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
