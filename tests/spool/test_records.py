"""What the verdict door found is found again by the very same message, within bounds, and never in the way of mail."""

import asyncio
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select, text, update

from mailgate.core.envelope import Client
from mailgate.core.record import Miss, Record
from mailgate.core.scan import Scored
from mailgate.core.verdict import Action
from mailgate.edge.spool import Store
from mailgate.edge.spool.schema import verdicts
from mailgate.edge.spool.verdicts import AGE, HISTORY, LEAST, MOST, Kept, write
from mailgate.ports import SpoolError
from tests.spool.kit import HOST, Recorder, a_message, config, octets, put, spool, states

ID, OTHER = "1xV0Ys-0004sm-35", "1xV0Ys-0004sm-36"
BODY, CHANGED = "a" * 64, "b" * 64


def record(at: float | None = None, score: float = 0.3, report: str = "") -> Record:
    found = Scored(score, 4.0, report, "127.0.0.1:783")
    at = time.time() if at is None else at
    return Record("01m8112ytat08xvr1g", at, Client("192.0.2.7", "mx"), found, Action.ACCEPT, ())


async def test_it_is_found_by_the_same_message_again_and_again(store: Store) -> None:
    one = record()
    await store.records.keep(ID, BODY, one, 5)
    assert [await store.records.find(ID, BODY, 5) for _ in range(2)] == [one, one]


async def test_another_message_has_none(store: Store) -> None:
    await store.records.keep(ID, BODY, record(), 5)
    assert await store.records.find(OTHER, BODY, 5) is Miss.UNKNOWN
    assert await store.records.find(ID.lower(), BODY, 5) is Miss.UNKNOWN
    assert await store.records.find(ID, CHANGED, 5) is Miss.CHANGED


async def test_two_exims_may_use_the_same_id(store: Store) -> None:
    one, other = record(score=1.0), record(score=2.0)
    await store.records.keep(ID, BODY, one, 5)
    await store.records.keep(ID, CHANGED, other, 5)
    assert [await store.records.find(ID, body, 5) for body in (BODY, CHANGED)] == [one, other]


async def test_a_later_one_takes_the_place_of_an_earlier_one(store: Store) -> None:
    later = record(score=2.0)
    await asyncio.gather(*(store.records.keep(ID, BODY, one, 5) for one in (record(), record(score=1.0), later)))
    assert await store.records.find(ID, BODY, 5) == later
    assert store.database.read(lambda c: c.scalar(select(func.count()).select_from(verdicts))) == 1


async def test_it_is_too_old_after_a_day_and_forgotten_after_two(store: Store) -> None:
    now = time.time()
    await store.records.keep(ID, BODY, record(now - AGE + 60), 5)
    await store.records.keep(OTHER, BODY, record(now - AGE - 60), 5)
    await store.tend(now)
    assert isinstance(await store.records.find(ID, BODY, 5), Record)
    assert await store.records.find(OTHER, BODY, 5) is Miss.EXPIRED
    await store.tend(now - AGE - 60 + HISTORY + 1)
    assert await store.records.find(OTHER, BODY, 5) is Miss.UNKNOWN
    assert isinstance(await store.records.find(ID, BODY, 5), Record)


async def test_it_outlives_the_process(tmp_path: Path) -> None:
    one = record()
    async with spool(tmp_path) as store:
        await store.records.keep(ID, BODY, one, 5)
    async with spool(tmp_path) as store:
        assert await store.records.find(ID, BODY, 5) == one


def fill(store: Store, count: int, size: int) -> None:
    """Records in the table, as if they had been kept, one a second, the newest now."""
    now = time.time()
    some = [Kept(f"{number:016}", BODY, now - number, "x" * size) for number in range(count)]
    for start in range(0, count, 1000):
        part = some[start : start + 1000]
        store.database.write(lambda c, part=part: write(c, part))  # type: ignore[misc]


def kept(store: Store) -> tuple[int, int]:
    """How many records there are, and the octets that they count for."""
    row = store.database.read(lambda c: c.execute(select(func.count(), func.sum(verdicts.c.size))).one())
    return row[0], row[1] or 0


async def test_many_small_ones_or_a_few_large_ones_the_oldest_go(store: Store) -> None:
    large = 60 * 1024
    fill(store, MOST // large, large)
    newest = record()
    await store.records.keep(ID, BODY, newest, 5)
    assert kept(store)[1] <= MOST
    for _ in range(12):
        await store.records.keep(OTHER, BODY, record(report="é" * 15000), 5)
    assert kept(store)[1] <= MOST
    assert await store.records.find(ID, BODY, 5) == newest
    assert await store.records.find(f"{MOST // large - 1:016}", BODY, 5) is Miss.UNKNOWN
    assert await store.records.find(f"{0:016}", BODY, 5) is Miss.TROUBLE  # is there still; x is no record


async def test_their_number_is_bounded_too(store: Store) -> None:
    most = MOST // LEAST
    fill(store, most, 10)
    assert kept(store) == (most, MOST)
    await store.records.keep(ID, BODY, record(), 5)
    assert most // 2 < kept(store)[0] < most
    assert isinstance(await store.records.find(ID, BODY, 5), Record)


async def test_where_the_disk_is_short_of_room_none_is_written(tmp_path: Path) -> None:
    telemetry = Recorder()
    async with spool(tmp_path, telemetry) as store:
        await store.records.keep(ID, BODY, record(), 5)
        store.config = config(tmp_path, min_free="99.9%")
        for _ in range(3):
            await store.records.keep(OTHER, BODY, record(), 5)
        assert await store.records.find(OTHER, BODY, 5) is Miss.UNKNOWN
        assert isinstance(await store.records.find(ID, BODY, 5), Record)
        [said] = telemetry.named("records.failed")
        assert "spool.min_free" in str(said["cause"])
        store.config = config(tmp_path)
        await store.records.keep(OTHER, BODY, record(), 5)
        assert isinstance(await store.records.find(OTHER, BODY, 5), Record)
        await store.close()
        await store.records.keep(OTHER, BODY, record(), 5)
        assert len(telemetry.named("records.failed")) == 2


async def test_without_a_spool_there_is_trouble_and_no_exception(tmp_path: Path) -> None:
    telemetry = Recorder()
    store = Store(config(tmp_path / "nowhere"), HOST, telemetry)
    with pytest.raises(SpoolError):
        await store.open()
    await store.records.keep(ID, BODY, record(), 5)
    assert await store.records.find(ID, BODY, 5) is Miss.TROUBLE
    assert len(telemetry.named("records.failed")) == 1


async def test_a_spool_that_is_busy_is_not_waited_for(store: Store, telemetry: Recorder) -> None:
    began = time.monotonic()
    with store.database.reading.connect() as other:
        other.exec_driver_sql("ROLLBACK")
        other.exec_driver_sql("BEGIN IMMEDIATE")  # the writer can't write as long as we hold this
        await store.records.keep(ID, BODY, record(), 0.3)
        assert 0.2 < time.monotonic() - began < 20
        other.exec_driver_sql("ROLLBACK")
    assert len(telemetry.named("records.failed")) == 1


async def test_a_record_that_somebody_else_wrote_is_trouble(store: Store, telemetry: Recorder) -> None:
    await store.records.keep(ID, BODY, record(), 5)
    store.database.write(lambda c: c.execute(update(verdicts).values(record='{"version": 9}')))
    assert await store.records.find(ID, BODY, 5) is Miss.TROUBLE
    assert ID in str(telemetry.named("records.failed")[0]["cause"])


async def test_mail_that_shares_their_commit_does_not_suffer_from_them(store: Store, telemetry: Recorder) -> None:
    store.database.write(lambda c: c.execute(text("DROP TABLE verdicts")))
    await asyncio.gather(
        *(put(store, f"m{number}") for number in range(20)),
        *(store.records.keep(f"{number:016}", BODY, record(), 5) for number in range(20)),
    )
    assert states(store) == {"pending": 20}
    assert telemetry.named("records.failed")


async def test_a_spool_of_version_2_opens(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put(store, "one")
    engine = create_engine(f"sqlite:///{tmp_path}/spool.db")
    with engine.begin() as connection:  # as version 2 made it
        connection.execute(text("DROP TABLE verdicts"))
        connection.execute(text("UPDATE meta SET value = '2' WHERE key = 'version'"))
    engine.dispose()
    one = record()
    async with spool(tmp_path) as store:
        await store.records.keep(ID, BODY, one, 5)
        assert await store.records.find(ID, BODY, 5) == one
        assert octets(await store.load("one")) == octets(a_message())
