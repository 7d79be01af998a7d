"""A caller that has given up, or is gone, leaves nothing behind."""

import asyncio
import sqlite3
import threading
import time
from typing import Any

import pytest
from sqlalchemy import event

from mailgate.edge.spool import Store, writer
from mailgate.ports import SpoolError
from tests.spool.gate import Gate, stopped_at
from tests.spool.kit import NOW, Recorder, put, states, wait_until


def answered(store: Store) -> threading.Event:
    """Set when the writer's thread has answered those whom it answers next."""
    writer, given = store._spool.writer, threading.Event()
    answer = writer._answer

    def answer_and_say(outcomes: Any) -> None:
        answer(outcomes)
        given.set()

    writer._answer = answer_and_say  # type: ignore[method-assign]
    return given


async def test_given_up_before_it_began_is_never_done(store: Store) -> None:
    seen: list[object] = []
    event.listen(store.database.writing, "before_cursor_execute", lambda *args: seen.append(args[3]))
    with stopped_at(store, "commit") as gate:
        first = asyncio.create_task(put(store, "first"))
        await gate.wait()
        with pytest.raises(SpoolError, match=r"storing: not begun within 0\.05 s"):
            await put(store, "waiting", timeout=0.05)
        gate.open.set()
        await first
    await put(store, "last")
    assert "first" in str(seen)
    assert "waiting" not in str(seen)
    assert states(store) == {"pending": 2}


async def test_given_up_while_it_is_committed_is_undone_before_it_is_claimed(store: Store) -> None:
    storing, undoing = Gate(), Gate()
    gates = iter((storing, undoing))
    event.listen(store.database.writing, "commit", lambda connection: next(gates, Gate.opened()).stop(connection))
    with pytest.raises(SpoolError, match=r"storing: not committed within 0\.5 s"):
        await put(store, "given up", timeout=0.5)
    assert storing.reached.is_set()
    storing.open.set()
    await undoing.wait()
    assert states(store) == {"pending": 1}, "committed, and not taken back yet"
    claiming = asyncio.create_task(store.claim(NOW, 10))
    await wait_until(lambda: store._spool.writer._queue.qsize() == 1)  # and it is next
    undoing.open.set()
    assert await claiming == []
    assert states(store) == {}
    assert store.counts().octets == 0


async def test_a_caller_that_is_cancelled_leaves_nothing(store: Store) -> None:
    with stopped_at(store, "commit") as gate:
        task = asyncio.create_task(put(store, "cancelled"))
        await gate.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open.set()
        await put(store, "other")
    assert states(store) == {"pending": 1}


async def test_cancelled_while_the_answer_is_on_its_way(store: Store) -> None:
    with stopped_at(store, "commit") as gate:
        task = asyncio.create_task(put(store, "cancelled"))
        await gate.wait()
        given = answered(store)
        gate.open.set()
        assert given.wait(60)  # and this loop, which waits for it, can't hear it yet
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await wait_until(lambda: states(store) == {})


async def test_cancelled_between_the_answer_and_its_hearing(store: Store) -> None:
    """A deadline of the caller's rings in the same turn of the loop in which the answer comes."""
    task = asyncio.create_task(put(store, "cancelled"))
    resolve = store._spool.writer._resolve

    def resolve_and_cancel(answers: Any) -> None:
        resolve(answers)
        task.cancel()

    store._spool.writer._resolve = resolve_and_cancel  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await task
    store._spool.writer._resolve = resolve  # type: ignore[method-assign]
    await wait_until(lambda: states(store) == {})


async def test_a_deadline_that_passes_while_the_answer_is_on_its_way(store: Store) -> None:
    with stopped_at(store, "commit") as gate:
        task = asyncio.create_task(put(store, "in time", timeout=1))
        await gate.wait()
        given = answered(store)
        gate.open.set()
        assert given.wait(60)
        time.sleep(1.2)  # noqa: ASYNC251 - the deadline passes; the answer was there before
        await task
    assert states(store) == {"pending": 1}


async def test_an_undoing_that_fails_is_said_and_done_later(
    store: Store, telemetry: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [True]

    def fail(*args: Any) -> None:
        if failing and str(args[2]).startswith("DELETE FROM bodies"):
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(writer, "RETRY", 0.05)
    event.listen(store.database.writing, "before_cursor_execute", fail)
    with stopped_at(store, "commit") as gate:
        with pytest.raises(SpoolError, match="not committed"):
            await put(store, "given up", timeout=0.5)
        gate.open.set()
    await wait_until(lambda: len(telemetry.named("spool.trouble")) > 1)
    assert telemetry.named("spool.trouble")[0] == {"cause": "undoing storing: disk I/O error (OperationalError)"}
    assert states(store) == {"pending": 1}
    assert await store.claim(NOW, 9) == await store.claim_those(NOW, {"given up": None}) == []
    failing.clear()
    await wait_until(lambda: states(store) == {})


async def test_claims_of_a_caller_that_is_gone_are_given_back(store: Store) -> None:
    await put(store, "one")
    with stopped_at(store, "commit") as gate:
        task = asyncio.create_task(store.claim(NOW, 10))
        await gate.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open.set()
    await put(store, "two", now=NOW + 1)  # what is undone is undone before
    [claimed] = await store.claim(NOW, 10)
    assert (claimed.id, claimed.attempts, states(store)) == ("one", (0,), {"pending": 2})
