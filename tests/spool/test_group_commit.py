"""Messages share commits; each still succeeds, fails and is given up on its own."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from mailgate.edge.spool import Database, SpoolBusy, Store, writer
from mailgate.ports import Settlement, SpoolError, SpoolFull
from tests.spool.kit import HOST, NOW, Recorder, a_message, config, octets, put, spool, states, wait_until


class Gate:
    """Stops the writer's thread where `stop` is called, until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def stop(self, *_: Any) -> None:
        self.reached.set()
        assert self.open.wait(20)

    async def wait(self) -> None:
        """Until the thread stands there."""
        await wait_until(self.reached.is_set)


@contextmanager
def stopped_at(store: Store, what: str) -> Iterator[Gate]:
    """The writer stops at each event of that name of its engine. (Listeners are not removed: the thread may just be
    going through them.)
    """
    gate = Gate()
    event.listen(store.database.writing, what, gate.stop)
    try:
        yield gate
    finally:
        gate.open.set()


async def test_fifty_messages_share_a_few_commits(store: Store) -> None:
    commits: list[object] = []
    event.listen(store.database.writing, "commit", commits.append)
    with stopped_at(store, "commit") as gate:
        first = asyncio.create_task(put(store, "first"))
        await gate.wait()
        rest = [asyncio.create_task(put(store, f"m{n}")) for n in range(50)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, *rest)
    assert len(commits) == 2
    assert states(store) == {"pending": 51}


async def test_a_failing_job_fails_alone(store: Store) -> None:
    await put(store, "taken", message=a_message(fill=b"1"))
    with stopped_at(store, "commit") as gate:
        first = asyncio.create_task(put(store, "first"))
        await gate.wait()
        ids = ["a", "taken", "b", "c", "c"]
        rest = [asyncio.create_task(put(store, gate_id)) for gate_id in ids]
        await asyncio.sleep(0)
        gate.open.set()
        results = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [isinstance(result, SpoolError) for result in results] == [False, False, True, False, False, True]
    assert states(store) == {"pending": 5}
    assert octets(await store.load("taken")) == octets(a_message(fill=b"1"))


async def test_the_large_one_that_does_not_fit_fails_alone(store: Store) -> None:
    """The engine itself says "full" in the middle of a batch."""
    with store.database.writing.connect() as connection:
        pages = int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())
    with stopped_at(store, "commit") as gate:
        first = asyncio.create_task(put(store, "first"))
        await gate.wait()
        rest = [
            asyncio.create_task(put(store, f"m{n}", message=a_message(9000000 if n == 3 else 300))) for n in range(6)
        ]
        await asyncio.sleep(0)
        event.listen(
            store.database.writing, "begin", lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages + 100}")
        )
        gate.open.set()
        results = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 4 + [SpoolFull] + [type(None)] * 2
    assert "no space left" in str(results[4])
    assert states(store) == {"pending": 6}


async def test_a_commit_that_fails_fails_all_of_it_and_leaves_nothing(store: Store) -> None:
    failing: list[bool] = []

    def fail(_: object) -> None:
        if failing:
            failing.clear()
            raise sqlite3.OperationalError("disk I/O error")

    await put(store, "before")
    event.listen(store.database.writing, "commit", fail)
    with stopped_at(store, "commit") as gate:
        first = asyncio.create_task(put(store, "first"))
        await gate.wait()
        rest = [asyncio.create_task(put(store, f"m{n}")) for n in range(3)]
        await asyncio.sleep(0)
        failing.append(True)
        gate.open.set()
        results = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), SpoolError, SpoolError, SpoolError]
    assert states(store) == {"pending": 2}
    assert "disk I/O" in store.trouble
    await put(store, "after")
    assert store.trouble == ""


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
    with stopped_at(store, "commit") as gate:
        with pytest.raises(SpoolError, match=r"storing: not committed within 0\.05 s"):
            await put(store, "given up", timeout=0.05)
        assert gate.reached.is_set()
        claiming = asyncio.create_task(store.claim(NOW, 10))
        await asyncio.sleep(0)
        gate.open.set()
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
        gate.open.set()
        time.sleep(0.3)  # noqa: ASYNC251 - the answer is given meanwhile, and this loop can't hear it yet
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await wait_until(lambda: states(store) == {})


async def test_a_deadline_that_passes_while_the_answer_is_on_its_way(store: Store) -> None:
    with stopped_at(store, "commit") as gate:
        task = asyncio.create_task(put(store, "in time", timeout=0.2))
        await gate.wait()
        gate.open.set()
        time.sleep(0.4)  # noqa: ASYNC251 - see above
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
            await put(store, "given up", timeout=0.05)
        gate.open.set()
    await wait_until(lambda: len(telemetry.named("spool.trouble")) > 1)
    assert telemetry.named("spool.trouble")[0] == {"cause": "undoing storing: disk I/O error (OperationalError)"}
    assert states(store) == {"pending": 1}
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
        [claimed] = await store.claim(NOW, 10)
    assert (claimed.id, states(store)) == ("one", {"pending": 1})


async def test_a_settlement_that_failed_may_be_made_again(store: Store) -> None:
    await put(store, "one")
    await store.claim(NOW, 1)

    failing = [True]

    def fail(_: object) -> None:
        if failing:
            raise sqlite3.OperationalError("disk I/O error")

    event.listen(store.database.writing, "commit", fail)
    settlement = [Settlement(0, "pending", "451 again", next_attempt=NOW)]
    with pytest.raises(SpoolError, match="settling: disk I/O error"):
        await store.settle("one", settlement, NOW)
    failing.clear()
    assert await store.claim(NOW, 1) == []
    await store.settle("one", settlement, NOW)
    [claimed] = await store.claim(NOW, 1)
    assert claimed.attempts == (1,)


async def test_another_process_that_writes_for_too_long(store: Store, tmp_path: Path) -> None:
    await put(store, "one")
    other = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(SpoolError, match="not committed within"):
            await put(store, "two", timeout=0.1)
    finally:
        other.execute("ROLLBACK")
        other.close()
    await put(store, "three")
    assert states(store) == {"pending": 2}


async def test_what_was_submitted_is_done_before_it_closes(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        tasks = [asyncio.create_task(put(store, f"m{n}")) for n in range(20)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    with pytest.raises(SpoolError, match="closed"):
        await put(store, "late")
    async with spool(tmp_path) as store:
        assert states(store) == {"pending": 20}


async def test_a_writer_that_does_not_end_keeps_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailgate.edge.spool.store.DEADLINE", 0.1)
    first, second = Store(config(tmp_path), HOST, Recorder()), Store(config(tmp_path), HOST, Recorder())
    await first.open()
    database = first.database
    with stopped_at(first, "commit") as gate:
        task = asyncio.create_task(put(first, "one"))
        await gate.wait()
        await first.close()
        with pytest.raises(SpoolBusy):
            Database(tmp_path / "spool.db", HOST, serve=True)
        gate.open.set()
        await task
    database.close()
    monkeypatch.setattr("mailgate.edge.spool.store.DEADLINE", 30.0)
    await second.open()
    assert states(second) == {"pending": 1}
    await second.close()
