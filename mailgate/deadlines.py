"""Deadlines for awaits that end in time by themselves, but for a bug: many of them on one timer.

`asyncio.timeout` makes and cancels a timer for each await, at a twentieth of what a message costs. Here a deadline is
an entry that is looked at a few times a second, so it may ring late by _TICK.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")
_TICK = 0.25  # seconds between two looks


class Deadlines:
    """Use one for all awaits of a kind, on one loop."""

    def __init__(self) -> None:
        self._due: dict[asyncio.Task[object], float] = {}
        self._rung: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, awaitable: Awaitable[_T], deadline: float) -> _T:
        """What `awaitable` returns. Raises TimeoutError soon after `deadline` (of the loop's clock)."""
        task = asyncio.current_task()
        assert task is not None
        self._due[task] = deadline
        if self._timer is None:  # not a look at once: this task runs, and what it awaits may never give way
            self._timer = asyncio.get_running_loop().call_later(_TICK, self._look)
        before = task.cancelling()
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self._taken_back(task) and task.cancelling() <= before:
                raise TimeoutError from None
            raise
        finally:
            del self._due[task]
            self._taken_back(task)

    def _taken_back(self, task: asyncio.Task[object]) -> bool:
        """True if it was cancelled from here; then it is not any more."""
        if task not in self._rung:
            return False
        self._rung.discard(task)
        task.uncancel()
        return True

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, deadline in self._due.items():
            if deadline <= now and task not in self._rung:
                self._rung.add(task)
                task.cancel()
        self._timer = loop.call_later(_TICK, self._look) if self._due else None
