"""CPU on the event loop, a step at a time: never two steps, of however many messages, in one turn of the loop.

Signatures are checked on the loop and not in threads: a thread that computes keeps the loop from running for up to
5 ms each time that the loop comes back from the kernel, and can't be ended. A step here is short (see the callers), so
that is how late the loop is at most; and who gives up a message gives up its steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class Turns:
    """Use one for all messages, on one loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, step: Callable[[], _T]) -> _T:
        """What `step` returns, or raises, when it is its turn."""
        async with self._lock:
            try:
                return step()
            finally:
                await asyncio.sleep(0)
