"""What is on disk is not what was written: the message is set aside and named, all others go on."""

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from mailgate.edge.spool import Database, Store, upkeep, verbs
from mailgate.edge.spool.listing import Selection, listed
from mailgate.ports import Claimed, Parked, Settlement, SpoolError
from tests.spool.kit import HOST, NOW, Recorder, a_message, config, octets, put, spool, sql, states

PAGE = 4096


def damage(directory: Path, name: str, kind: str, number: int) -> None:
    """Write garbage over the n-th page of that kind ("leaf", "overflow") of a table. Nobody may have it open."""
    pages = sql(directory, "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = ? ORDER BY path", name, kind)
    with (directory / "spool.db").open("r+b") as file:
        file.seek((pages[number][0] - 1) * PAGE)
        file.write(os.urandom(PAGE))


async def replay(store: Store) -> list[str]:
    """Deliver all that can be; the ids."""
    delivered: list[str] = []

    async def deliver(claimed: Claimed) -> None:
        if await store.load(claimed.id):
            await store.settle(claimed.id, [Settlement(n, "delivered", "") for n in claimed.numbers], NOW)
            delivered.append(claimed.id)

    for _ in range(100):
        claims = await store.claim(NOW, 7)
        if not claims:
            return delivered
        await asyncio.gather(*(deliver(claimed) for claimed in claims))
    raise AssertionError("the queue does not end")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE bodies SET data = zeroblob(length(data)) WHERE message_id = 'm1'", "SHA-256 differs"),
        ("UPDATE bodies SET data = 'text' WHERE message_id = 'm1' AND part = 1", "never written there"),
        ("DELETE FROM bodies WHERE message_id = 'm1' AND part = 1", "piece 2 of 3 is missing"),
        ("DELETE FROM bodies WHERE message_id = 'm1'", "piece 1 of 3 is missing"),
        ("UPDATE messages SET digest = 'x' WHERE id = 'm1'", "SHA-256 differs"),
        ("UPDATE messages SET size = 7 WHERE id = 'm1'", "SHA-256 differs"),
        ("UPDATE messages SET parts = 2 WHERE id = 'm1'", "SHA-256 differs"),
        ("UPDATE messages SET sender = 'text' WHERE id = 'm1'", "never written there"),
        ("UPDATE recipients SET address = 'text' WHERE message_id = 'm1'", "never written there"),
        ("UPDATE recipients SET next_attempt = 'x', attempts = 'y' WHERE message_id = 'm1'", "never written there"),
    ],
)
async def test_a_damaged_message_is_set_aside_and_the_rest_goes_on(
    store: Store, telemetry: Recorder, tmp_path: Path, statement: str, reason: str
) -> None:
    for n in range(3):
        await put(store, f"m{n}", "a@lists.test", "b@lists.test", message=a_message(2_500_000), now=NOW + n - 9)
    sql(tmp_path, statement)

    assert sorted(await replay(store)) == ["m0", "m2"]

    [fields] = telemetry.named("spool.corrupt")
    assert fields["id"] == "m1"
    assert reason in str(fields["cause"])
    assert states(store) == {"corrupt": 2, "delivered": 4}
    assert sql(tmp_path, "SELECT DISTINCT reply FROM recipients WHERE message_id = 'm1'") == [(fields["cause"],)]


async def test_recipients_without_their_message_keep_nobody_up_and_can_be_dropped(
    store: Store, telemetry: Recorder, tmp_path: Path
) -> None:
    for n in range(4):
        await put(store, f"m{n}", now=NOW + n - 9)
    sql(tmp_path, "DELETE FROM messages WHERE id IN ('m1', 'm3')")
    list(verbs.hold(store.database, Selection(ids=("m2",)), NOW))
    sql(tmp_path, "UPDATE recipients SET state = 'held' WHERE message_id = 'm3'")  # so that only `verify` finds it

    assert await replay(store) == ["m0"]
    assert [fields["id"] for fields in telemetry.named("spool.corrupt")] == ["m1"]
    found = [(one.id, one.done) for one in upkeep.verify(store.database)]
    assert found == [("m3", "set aside"), ("m1", ""), ("m3", "")]
    assert [change.id for change in verbs.drop(store.database, Selection(states=("corrupt",)), NOW)] == ["m1", "m3"]
    assert list(upkeep.verify(store.database)) == []
    assert (await store.tend(NOW + 2 * 86400)).purged == 3


async def many(directory: Path, number: int, size: int = 3000) -> list[str]:
    """That many messages in a closed spool; their ids."""
    ids = [f"m{n:03}" for n in range(number)]
    async with spool(directory) as store:
        await asyncio.gather(
            *(put(store, gate_id, message=a_message(size), now=NOW - number + n) for n, gate_id in enumerate(ids))
        )
    return ids


@pytest.mark.parametrize(
    ("table", "kind", "most"),
    [("bodies", "leaf", 8), ("bodies", "overflow", 1), ("messages", "leaf", 40), ("recipients", "leaf", 90)],
)
async def test_a_damaged_page(tmp_path: Path, table: str, kind: str, most: int) -> None:
    ids = await many(tmp_path, 100, 9000 if kind == "overflow" else 1000)
    damage(tmp_path, table, kind, 1)
    telemetry = Recorder()
    async with spool(tmp_path, telemetry) as store:
        delivered = await replay(store)
        lost = {str(fields["id"]) for fields in telemetry.named("spool.corrupt")}
        assert 0 < len(lost) <= most
        assert sorted(lost | set(delivered)) == ids
        assert not lost & set(delivered)
        await put(store, "fresh", now=NOW)
        assert await replay(store) == ["fresh"]


async def test_a_damaged_index_of_the_queue(tmp_path: Path) -> None:
    """Then the table is gone through; whose entry can't be rewritten stays, the rest goes on."""
    ids = await many(tmp_path, 150)
    damage(tmp_path, "recipients_queue", "leaf", 1)
    telemetry = Recorder()
    async with spool(tmp_path, telemetry) as store:
        delivered = await replay(store)
    lost = {str(fields["id"]) for fields in telemetry.named("spool.corrupt")}
    assert 0 < len(lost) < 120
    assert sorted(lost | set(delivered)) == ids


async def test_when_not_even_that_can_be_written_it_is_said(store: Store, telemetry: Recorder, tmp_path: Path) -> None:
    await put(store, "m1")
    sql(tmp_path, "DELETE FROM bodies")
    sql(tmp_path, "CREATE TRIGGER stop BEFORE UPDATE OF state ON recipients BEGIN SELECT RAISE(FAIL, 'no'); END")
    assert await replay(store) == []
    [fields] = telemetry.named("spool.corrupt")
    assert "setting aside: no" in str(fields["not_marked"])
    assert await store.claim(NOW + 9999, 9) == []


async def test_verify_finds_sets_aside_and_restores(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        for n in range(4):
            await put(store, f"m{n}", now=NOW + n)
        await store.claim(NOW, 1)  # m0 is being tried
    # The lease has to stay while verify runs: open it beside a process that serves.
    async with spool(tmp_path) as store:
        await store.claim(NOW, 1)
        database = Database(tmp_path / "spool.db", HOST)
        [(good,)] = sql(tmp_path, "SELECT data FROM bodies WHERE message_id = 'm1'")
        sql(tmp_path, "UPDATE bodies SET data = zeroblob(9) WHERE message_id IN ('m0', 'm1')")
        steps: list[tuple[int, int]] = []

        found = list(upkeep.verify(database, lambda done, total: steps.append((done, total))))

        assert [(one.id, one.done) for one in found] == [("m0", ""), ("m1", "set aside")]
        assert all("SHA-256 differs" in one.problem for one in found)
        assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert states(store) == {"uncertain": 1, "corrupt": 1, "pending": 2}
        [one] = listed(database, Selection(ids=("m1",)))
        assert "SHA-256 differs" in one.trouble

        sql(tmp_path, "UPDATE bodies SET data = ? WHERE message_id = 'm1'", good)
        found = list(upkeep.verify(database))
        assert [(one.id, one.done) for one in found] == [("m0", ""), ("m1", "restored")]
        assert states(store) == {"uncertain": 1, "held": 1, "pending": 2}
        assert octets(await store.load("m1")) == octets(a_message())
        database.close()


async def test_verify_condemns_nothing_that_it_could_not_read(store: Store) -> None:
    await put(store, "one")

    def fail(*args: Any) -> None:
        if "bodies" in str(args[2]):
            raise sqlite3.OperationalError("disk I/O error")

    event.listen(store.database.reading, "before_cursor_execute", fail)
    [finding] = upkeep.verify(store.database)
    assert ("not checked: " in finding.problem, finding.done, states(store)) == (True, "", {"pending": 1})


async def test_verify_leaves_what_is_being_tried_whatever_the_others_wait_for(store: Store, tmp_path: Path) -> None:
    await put(store, "one", "a@lists.test", Parked("b@lists.test", "pending", "", next_attempt=NOW + 900))
    [claimed] = await store.claim(NOW, 9)
    sql(tmp_path, "UPDATE bodies SET data = zeroblob(9)")
    assert [one.done for one in upkeep.verify(store.database)] == [""]
    await store.settle("one", [Settlement(claimed.numbers[0], "delivered", "250")], NOW)
    assert states(store) == {"delivered": 1, "pending": 1}
    assert [one.done for one in upkeep.verify(store.database)] == ["set aside"]


async def test_verify_names_a_damaged_structure(tmp_path: Path) -> None:
    await many(tmp_path, 100)
    damage(tmp_path, "recipients_queue", "leaf", 0)
    database = Database(tmp_path / "spool.db", HOST)
    found = list(upkeep.verify(database))
    database.close()
    assert found
    assert {one.id for one in found} == {""}


@pytest.mark.parametrize("content", [b"", b"not a database at all " * 400, os.urandom(8192)])
async def test_a_file_that_is_no_spool(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spool.db").write_bytes(content)
    store = Store(config(tmp_path), HOST, Recorder())
    if not content:  # a file that was only just made when the machine went down
        await store.open()
        await put(store, "one")
        await store.close()
        return
    with pytest.raises(SpoolError, match=r"spool\.db: not a database"):
        await store.open()
    with pytest.raises(SpoolError, match=r"the spool is not open: .*not a database"):
        await put(store, "one")
    assert "not a database" in store.trouble
    assert (tmp_path / "spool.db").read_bytes() == content
