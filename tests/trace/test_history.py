"""The history: written in a moment and in few commits, bounded, never in the way of mail, and honest about what it
lacks.
"""

import asyncio
import contextlib
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import event

from mailgate.config import HistoryConfig
from mailgate.core import story
from mailgate.edge.spool import Database, Store, tracing
from mailgate.edge.spool import history as module
from mailgate.edge.spool.chronicle import Event, pack, unpack
from mailgate.edge.spool.database import READERS
from mailgate.edge.spool.errors import SpoolDamaged
from mailgate.edge.spool.listing import Selection
from mailgate.edge.spool.verbs import drop, hold, replay
from mailgate.edge.spool.work import PARTS
from mailgate.ports import SpoolError
from tests.spool.gate import stopped_at
from tests.spool.kit import HOST, NOW, Recorder, config, put, spool, wait_until

LIST = "announce@lists.test"
DAY = 86400.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER", 0.02)
    monkeypatch.setattr(module, "AGAIN", 0.02)


def happened(store: Store, number: int, recipients: int = 1) -> None:
    """A message was delivered."""
    people = {f"{n}-{LIST}": "delivered: 250 Ok" for n in range(recipients)}
    told = story.of_message({"id": f"m{number}", "recipients": people})
    assert told
    store.history.note("message.delivered", told, "info")


async def happened_long_ago(store: Store, parts: int) -> None:
    """As many messages were delivered a minute after each other, the first at NOW, and each is a row."""
    for number in range(parts):
        fields = {"id": f"m{number}", "recipients": {LIST: "delivered: 250 Ok"}}
        await store._chronicle([Event(NOW + 60 * number, "message.delivered", "info", fields)])


def known(store: Store, what: str) -> list[str]:
    """The events of the stories of that name."""
    return [event.name for one in tracing.find(store.database, what, 0.0, 10).stories for event in one.events]


def ids(store: Store) -> list[object]:
    """The ids in all events, row by row."""
    with contextlib.closing(sqlite3.connect(store.database.path)) as database:
        (heads,) = database.execute("SELECT count(*) FROM history").fetchone()
        parts = database.execute("SELECT events FROM history_events ORDER BY id").fetchall()
    assert heads == len(parts)
    return [event.fields["id"] for (octets,) in parts for event in unpack(octets)]


async def written(store: Store) -> None:
    """Until nothing waits to be written."""
    await wait_until(lambda: not store.history._waiting)


async def test_events_are_on_disk_in_a_moment_and_share_commits(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        commits: list[object] = []
        event.listen(store.database.writing, "commit", commits.append)
        for number in range(1000):
            happened(store, number)
            await asyncio.sleep(0)
        await written(store)
        assert known(store, "m999") == ["message.delivered"]
        assert ids(store) == [f"m{number}" for number in range(1000)]
        assert len(commits) <= 8


async def test_what_is_noted_at_the_end_is_written(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        happened(store, 1)
    async with spool(tmp_path) as store:
        assert known(store, "m1") == ["message.delivered"]


async def test_mail_does_not_wait_for_it_when_the_disk_hangs(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        with stopped_at(store, "commit") as gate:
            happened(store, 0)
            await gate.wait()
            for number in range(1, 1000):
                happened(store, number)  # were it waited for, it would never come
            gate.open.set()
            await written(store)
        assert len(ids(store)) == 1000


async def test_more_than_memory_may_hold_is_counted_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 20)
    told = Recorder()
    async with spool(tmp_path, told) as store:
        for number in range(9):
            happened(store, number, recipients=4)  # five each
        await wait_until(lambda: bool(told.named("history.lost")))
        assert ids(store) == ["m0", "m1", "m2", "m3"]
        [lost] = told.named("history.lost")
        assert lost["events"] == 5
        assert ("history_lost", 5, {}) in told.numbers


async def test_while_it_cannot_be_written_events_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Recorder()
    async with spool(tmp_path, told) as store:
        writes = store.history._write

        async def fail(_: object) -> None:
            raise SpoolError("no room")

        monkeypatch.setattr(store.history, "_write", fail)
        happened(store, 1)
        await wait_until(lambda: bool(told.named("history.failed")))
        happened(store, 2)
        monkeypatch.setattr(store.history, "_write", writes)
        await wait_until(lambda: bool(told.named("history.written")))
        await written(store)
        assert ids(store) == ["m1", "m2"]
    assert [one["cause"] for one in told.named("history.failed")] == ["no room"]
    assert told.named("history.lost") == []


async def test_while_the_file_is_exchanged_events_wait(tmp_path: Path) -> None:
    """Its threads are busy, so what is to pack the events is cancelled before it has begun; later there are none."""
    told = Recorder()
    async with spool(tmp_path, told) as store:
        before = store._spool
        go_on = threading.Event()
        for _ in range(READERS):
            before.threads.submit(go_on.wait)
        happened(store, 1)
        await wait_until(lambda: before.threads._work_queue.qsize() == 1)
        letting_go = asyncio.create_task(store._let_go())
        await wait_until(lambda: before.threads._shutdown)
        go_on.set()
        await letting_go
        await wait_until(lambda: bool(told.named("history.failed")))
        with pytest.raises(SpoolError, match="the spool is closed"):
            await before.aside(lambda: None)
        happened(store, 2)
        await store.open()
        await written(store)
        assert ids(store) == ["m1", "m2"]
    assert told.named("history.lost") == []


async def test_a_gate_without_a_spool_says_what_it_lost(tmp_path: Path) -> None:
    told = Recorder()
    store = Store(config(tmp_path / "nowhere"), HOST, told)
    with pytest.raises(SpoolError):
        await store.open()
    happened(store, 1)
    await store.close()
    [lost] = told.named("history.lost")
    assert lost["events"] == 1


async def test_no_room_is_taken_that_mail_needs(tmp_path: Path) -> None:
    told = Recorder()
    async with spool(tmp_path, told) as store:
        store.config = config(tmp_path, min_free="100000GiB")
        happened(store, 1)
        await wait_until(lambda: bool(told.named("history.failed")))
        assert ids(store) == []


async def test_nothing_is_kept_if_the_operator_says_so(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        store.history.config = HistoryConfig.model_validate({"keep": "0s"})
        happened(store, 1)
        assert not store.history._waiting
        await put(store, "one", LIST)
        assert list(hold(store.database, Selection(), NOW))
        assert known(store, "one") == ["operator.hold"]
        await store.tend(NOW + 1)
        assert known(store, "one") == []


# bounds


async def test_it_is_forgotten_when_it_is_old(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await happened_long_ago(store, PARTS + 3)
        await store.tend(NOW + 14 * DAY)
        assert len(ids(store)) == PARTS + 3
        await store.tend(NOW + 14 * DAY + 60 * (PARTS + 1))
        assert ids(store) == [f"m{PARTS + 1}", f"m{PARTS + 2}"]
        await store.tend(NOW + 15 * DAY)
        assert ids(store) == []


async def test_its_octets_are_bounded_and_the_oldest_go_first(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await happened_long_ago(store, 60)
        store.history.config = HistoryConfig.model_validate({"max_bytes": "4KiB"})
        await store.tend(NOW)
        left = ids(store)
        assert 5 < len(left) < 40
        assert left == [f"m{number}" for number in range(60 - len(left), 60)]
        with contextlib.closing(sqlite3.connect(store.database.path)) as database:
            (octets,) = database.execute(
                "SELECT sum(length(names) + length(events) + 100) FROM history JOIN history_events USING (id)"
            ).fetchone()
            (size,) = database.execute("SELECT value FROM meta WHERE key = 'history_octets'").fetchone()
        assert octets == int(size) <= 4096


# what the spool and its operators do


async def test_operators_are_told_of_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ida")
    async with spool(tmp_path) as store:
        await put(store, "one", LIST, "dev@lists.test")
        assert list(hold(store.database, Selection(recipient=LIST), NOW, reason="a flood"))
        assert list(replay(store.database, Selection(ids=("one",)), NOW + 1))
        assert list(drop(store.database, Selection(ids=("one",)), NOW + 2))
        assert list(drop(store.database, Selection(ids=("one",)), NOW + 3)) == []
        [story] = tracing.find(store.database, "one", 0.0, 1).stories
    assert [(one.at, one.name, dict(one.fields)) for one in story.events] == [
        (
            NOW,
            "operator.hold",
            {"id": "one", "by": "ida", "reason": "a flood", "recipients": {LIST: "pending -> held"}},
        ),
        (
            NOW + 1,
            "operator.replay",
            {"id": "one", "by": "ida", "recipients": {"dev@lists.test": "pending -> pending"}},
        ),
        (
            NOW + 2,
            "operator.drop",
            {
                "id": "one",
                "by": "ida",
                "recipients": {LIST: "held -> dropped", "dev@lists.test": "pending -> dropped"},
            },
        ),
    ]


async def test_a_dry_run_is_nothing_that_happened(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put(store, "one", LIST)
        assert list(drop(store.database, Selection(), NOW, dry=True))
        assert known(store, "one") == []


async def test_a_gate_that_died_while_it_delivered_is_told_of(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put(store, "one", LIST)
        await store.claim(NOW, 10)
    async with spool(tmp_path) as store:
        assert known(store, "one") == ["spool.uncertain"]


async def test_what_the_history_lacks_the_spool_still_tells(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put(store, "one", LIST)
        [story] = tracing.find(store.database, "exim-one", 0.0, 1).stories
        assert (story.events, [one.id for one in story.spooled]) == ((), ["one"])


# the file


async def test_a_spool_of_version_3_is_brought_forward(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put(store, "one", LIST)
    with contextlib.closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as database:
        for statement in (
            "DROP TABLE history",
            "DROP TABLE history_events",
            "UPDATE meta SET value = '3' WHERE key = 'version'",
        ):
            database.execute(statement)
    database_beside = Database(tmp_path / "spool.db", HOST, serve=False)
    assert tracing.find(database_beside, "one", 0.0, 1).stories[0].spooled
    database_beside.close()
    async with spool(tmp_path) as store:
        happened(store, 1)
        await written(store)
        assert known(store, "m1") == ["message.delivered"]
        assert [one.id for one in await store.claim(NOW, 10)] == ["one"]


async def test_damage_costs_a_part_only(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        for number in range(3):
            happened(store, number)
            await written(store)
        with contextlib.closing(sqlite3.connect(store.database.path, isolation_level=None)) as database:
            database.execute("UPDATE history_events SET events = x'00ff' WHERE id = 2")
        found = tracing.find(store.database, f"0-{LIST}", 0.0, 10)
        assert (len(found.stories), found.damaged) == (2, 1)


@pytest.mark.parametrize("octets", [b"", b"x", pack([Event(1.0, "a.b", "info", {"id": "x"})]).events[:-8], b"\x78\x9c"])
def test_what_is_no_part_of_a_history_is_damage(octets: bytes) -> None:
    with pytest.raises(SpoolDamaged):
        unpack(octets)


def test_any_fields_come_back_as_they_were() -> None:
    fields = {"id": "x", "sender": 'a"b\u2028ü@x', "recipients": {"\udcff@x": "1\n2"}, "score": 1.5, "none": None}
    written = Event(time.time(), "message.held", "info", fields)
    assert unpack(pack([written]).events) == [written]
