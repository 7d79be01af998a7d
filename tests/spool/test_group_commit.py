"""Messages share commits; each still succeeds, fails and is given up on its own."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import event

from mailgate.edge.spool import Database, SpoolBusy, Store
from mailgate.ports import Settlement, SpoolError, SpoolFull
from tests.spool.gate import stopped_at
from tests.spool.kit import HOST, NOW, Recorder, a_message, config, octets, put, spool, states


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
            await put(store, "two", timeout=0.5)
    finally:
        other.execute("ROLLBACK")
        other.close()
    await put(store, "three")
    assert states(store) == {"pending": 2}


async def test_a_telemetry_that_fails_does_not_undo_a_commit(
    store: Store, telemetry: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telemetry, "numbers", None)
    await put(store, "one")
    assert states(store) == {"pending": 1}
    assert "AttributeError" in caplog.text


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
    first, second = Store(config(tmp_path), HOST, Recorder()), Store(config(tmp_path), HOST, Recorder())
    await first.open()
    database = first.database
    monkeypatch.setattr("mailgate.edge.spool.store.DEADLINE", 0.1)
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
