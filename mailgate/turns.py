"""CPU on the event loop, a step at a time: of however many messages, no more than one step beyond _ENOUGH in a turn.

Signatures are checked on the loop and not in threads: a thread that computes keeps the loop from running for up to
5 ms each time that the loop comes back from the kernel, and can't be ended. A step here is short (see the callers), so
that is how late the loop is at most; and who gives up a message gives up its steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

_ENOUGH = 0.002  # seconds
_T = TypeVar("_T")


class Turns:
    """Use one for all steps of a kind, on one loop: `async with turns:` around a step, or `take`."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._began = 0.0
        self._spent = 0.0  # seconds, since the loop was last let go

    async def take(self, step: Callable[[], _T]) -> _T:
        """What `step` returns, or raises, when it is its turn."""
        async with self:
            return step()

    async def __aenter__(self) -> None:
        await self._lock.acquire()
        self._began = time.perf_counter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spent += time.perf_counter() - self._began
        try:
            if self._spent > _ENOUGH:
                self._spent = 0.0
                await asyncio.sleep(0)
        finally:
            self._lock.release()
