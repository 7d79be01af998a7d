"""A job that may never come back, in a thread of its own.

Promises: whoever waits does so for _PATIENCE at most; a job that is still at it is not begun a second time; the end of
the daemon waits for none. How it fails: what the job raises, or a TimeoutError, with words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from mailgate.edge.threads import begun

_PATIENCE = 30.0  # seconds for a job

T = TypeVar("T")


class Apart(Generic[T]):
    """One such job at a time."""

    def __init__(self) -> None:
        self._last: Future[T] | None = None

    async def do(self, job: Callable[[], T]) -> T | None:
        """What it gives; None while the one before is still at it."""
        if self._last and not self._last.done():
            return None
        self._last = begun(job, "mailman")
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.wrap_future(self._last)
        except TimeoutError as error:  # also the operating system's own
            raise TimeoutError(str(error) or f"not seen within {_PATIENCE:g} s") from None
