"""A cancellation that nobody asked for is a fault like any other.

CancelledError is no Exception. Where it comes out of an await although nobody cancelled the task that waits (somebody
else's task or future was awaited, and cancelled), it would pass every `except Exception`, and end a session without a
reply and without a line in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


class Stray(Exception):
    """Something that was awaited had been cancelled, and the task that waited had not."""


async def caught(awaitable: Awaitable[_T]) -> _T:
    """What `awaitable` returns or raises; but Stray for a cancellation that is not of the task which waits."""
    try:
        return await awaitable
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Stray("what was awaited had been cancelled by somebody else") from error
