"""A CancelledError that comes out of an await although nobody cancelled the task that waits: a fault like any other."""

import asyncio

import pytest

from mailgate.core.reply import Reply
from mailgate.strays import Stray, caught
from tests.edge import test_own_faults as relay_door
from tests.edge.failures import A, B
from tests.edge.test_own_faults import GOES_ON, NOT_NOW
from tests.verdict import test_own_faults as verdict_door
from tests.verdict.asking import lines
from tests.verdict.test_own_faults import NO_VERDICT

TROUBLE = "trouble of our own, try again"


async def cancelled(*_: object) -> tuple[Reply, ...]:
    """What awaits somebody else's task, which somebody else has cancelled."""
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task
    raise AssertionError("it was cancelled")


async def test_somebody_elses_cancellation_is_an_exception() -> None:
    with pytest.raises(Stray):
        await caught(cancelled())


async def test_ones_own_cancellation_is_none() -> None:
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(caught(wait()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadlines_cancellation_is_none() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await caught(asyncio.Event().wait())


@pytest.mark.parametrize("lmtp", [True, False])
async def test_in_the_relay_it_is_replies_and_a_line_in_the_log(lmtp: bool) -> None:
    upstream = relay_door.Upstream(cancelled)  # type: ignore[arg-type]  # it returns nothing
    async with relay_door._door(upstream) as door:
        assert await door.say(A, B, A, lmtp=lmtp) == [NOT_NOW] * (3 if lmtp else 1) + [GOES_ON]
        [(name, fields)] = door.telemetry.events
        assert (name, "CancelledError" in str(fields["trace"])) == ("message.failed", True)
        upstream.fault = None
        assert await door.say(A) == ["250 2.0.0 delivered: Ok", GOES_ON]


async def test_beyond_the_relay_it_is_replies_and_a_line_in_the_log() -> None:
    async with relay_door._door() as door:
        door.listener.handle = cancelled
        assert await door.say(A, B, A) == [f"451 4.3.0 {TROUBLE}"] * 3 + [f"421 4.3.0 {TROUBLE}"]
        [(name, fields)] = door.telemetry.events
        assert (name, "CancelledError" in str(fields["trace"])) == ("session.failed", True)
        door.listener.handle = door.handle
        assert await door.say(A) == ["250 2.0.0 delivered: Ok", GOES_ON]
        assert door.listener.in_flight == 0


async def test_at_the_verdict_door_it_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    async with verdict_door.opened() as door:
        with monkeypatch.context() as patch:
            patch.setattr(door.story.checking, "check", cancelled)
            assert await door.ask() == NO_VERDICT
        [event] = door.telemetry.events("verdict.failed")
        assert "CancelledError" in event["trace"]
        assert lines(await door.ask())["Action"] == "reject"


async def test_beyond_the_verdicts_story_it_is_no_verdict() -> None:
    async with verdict_door.opened() as door:
        door.door.judge = cancelled  # type: ignore[assignment]  # it returns nothing
        assert await door.ask() == NO_VERDICT
        [event] = door.telemetry.events("session.failed")
        assert "CancelledError" in event["trace"]
        door.door.judge = door.story.judge
        assert lines(await door.ask())["Action"] == "reject"


async def test_in_the_records_it_costs_the_record_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with verdict_door.opened() as door:
        monkeypatch.setattr(door.records, "keep", cancelled)
        assert lines(await door.ask())["Action"] == "reject"
        assert len(door.telemetry.events("verdict.not_kept")) == 1
