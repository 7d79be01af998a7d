"""Deadlines on one timer: they end an await, and touch nothing else of the task."""

import asyncio

import pytest

from mailgate import deadlines
from mailgate.deadlines import Deadlines


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "_TICK", 0.005)


def cancelling() -> int:
    """Requests to cancel this task that nobody has taken back."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def at_once() -> str:
    return "done"


async def stubborn() -> str:
    try:
        await asyncio.sleep(5)
    except asyncio.CancelledError:
        return "done all the same"
    return ""


async def test_what_does_not_wait_is_never_cancelled() -> None:
    kind, past = Deadlines(), asyncio.get_running_loop().time() - 1
    assert await kind.wait(at_once(), past) == "done"
    await asyncio.sleep(0.01)
    assert cancelling() == 0
    with pytest.raises(TimeoutError):
        await kind.wait(asyncio.sleep(5), past)


async def test_what_ends_in_spite_of_it_leaves_no_cancellation_behind() -> None:
    kind, past = Deadlines(), asyncio.get_running_loop().time() - 1
    assert await kind.wait(stubborn(), past) == "done all the same"
    assert cancelling() == 0


async def test_a_task_that_is_cleaning_up_has_deadlines_too() -> None:
    async def cleaning() -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            with pytest.raises(TimeoutError):
                await Deadlines().wait(asyncio.sleep(5), 0)
        return f"cleaned up, {cancelling()} to go"

    task = asyncio.create_task(cleaning())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "cleaned up, 1 to go"
