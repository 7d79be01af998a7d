"""Waiting for an event of another process: ask again until it is so, or the deadline has passed.

Such a deadline ends a test that would hang, and proves nothing: it is far beyond what a busy machine takes.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
PATIENCE = 60.0  # seconds
_PAUSE = 0.02


def wait_until(condition: Callable[[], Value], what: str, *, deadline: float = PATIENCE) -> Value:
    """The first true value of `condition`, within `deadline` seconds. Else TimeoutError, saying `what` was not so."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline:g} s: {what} (last seen: {value!r})")
        time.sleep(_PAUSE)
    return value


async def until(condition: Callable[[], Value], what: str, *, deadline: float = PATIENCE) -> Value:
    """The same beside an event loop that has to go on."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline:g} s: {what} (last seen: {value!r})")
        await asyncio.sleep(_PAUSE / 4)
    return value
