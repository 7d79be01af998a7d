"""The history: what happened to each message, for `mailgate trace`, as the telemetry meets it.

No mail waits for it, and an event costs the one who tells it an append to a list. What has come is written LINGER
seconds later in the writer's group commits, many events in a row (`chronicle`). So if the gate is killed, what may be
missing are the events of the last LINGER and a commit; the log has them.
How it fails: never with an exception, and it never keeps mail. While it can't be written (`history.failed`, the cause)
events are kept in memory, as many as MOST_WAITING says, and tried again (`history.written` when that was of use). Of
more, or at the end, it is counted (`mailgate_history_lost_total`) and said how many it lacks (`history.lost`).
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from mailgate.config import HistoryConfig
from mailgate.core.story import Told
from mailgate.edge.spool.chronicle import Event
from mailgate.edge.spool.ledger import Tell, within
from mailgate.ports import SpoolError

LINGER = 1.0  # seconds between two jobs at least
AGAIN = 5.0  # seconds between two attempts to write what could not be written
MOST_AT_ONCE = 1000  # events in one job: all of them are on disk after it, or none
MOST_WAITING = 20_000  # events in memory, and recipients in them


class History:
    """`write` brings events to the disk; it raises SpoolError. `lose` counts those that are lost. `config` may be
    replaced. `note` is for the thread of the event loop.
    """

    def __init__(
        self,
        config: HistoryConfig,
        write: Callable[[Sequence[Event]], Awaitable[None]],
        tell: Tell,
        lose: Callable[[int], None],
    ) -> None:
        self.config = config
        self._write = write
        self._tell = tell
        self._lose = lose
        self._waiting: deque[tuple[Event, int]] = deque()  # and how much memory it takes
        self._weight = 0
        self._lost = 0
        self._trouble = ""
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def note(self, name: str, fields: Told, level: str) -> None:
        """Keep an event of a message."""
        if self._weight >= MOST_WAITING:
            self._lost += 1
        elif self.config.keep:
            self._weight += fields.weight
            self._waiting.append((Event(time.time(), name, level, fields), fields.weight))

    def start(self) -> None:
        """Write from now on what comes. Does nothing if that is done already."""
        if self._task is None:
            self._ending.clear()
            self._task = asyncio.create_task(self._work())

    async def close(self, timeout: float) -> None:
        """Write what waits, for so many seconds; say what is lost."""
        self._ending.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=timeout)
            self._task.cancel()
            self._task = None
        self._lost += len(self._waiting)
        self._waiting.clear()
        self._weight = 0
        self._tell_loss(f"the gate has ended before they could be written: {self._trouble}")

    async def _work(self) -> None:
        while True:
            await within(AGAIN if self._trouble else LINGER, self._ending)
            left = len(self._waiting)
            while left > 0 and await self._next():
                left -= MOST_AT_ONCE
            self._tell_loss("more than could be kept in memory")
            if self._ending.is_set():
                return

    async def _next(self) -> bool:
        """Write the oldest of what waits. False if that failed."""
        some = [event for event, _ in islice(self._waiting, MOST_AT_ONCE)]
        try:
            await self._write(some)
        except SpoolError as error:
            if not self._trouble:
                self._tell("history.failed", cause=str(error), waiting=len(self._waiting))
            self._trouble = str(error)
            return False
        except Exception:  # noqa: BLE001  the next ones are to be written all the same
            self._tell("history.failed", trace=traceback.format_exc())
            self._lost += len(some)
        for _ in some:
            self._weight -= self._waiting.popleft()[1]
        if self._trouble:
            self._tell("history.written", level="info", events=len(some), cause=self._trouble)
        self._trouble = ""
        return True

    def _tell_loss(self, cause: str) -> None:
        if self._lost:
            self._lose(self._lost)
            self._tell("history.lost", level="warning", events=self._lost, cause=cause)
            self._lost = 0
