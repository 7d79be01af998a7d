"""Choosing, showing and handling spooled recipients, alone and beside a gate at work."""

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from mailgate.core.addresses import list_of
from mailgate.core.envelope import Envelope
from mailgate.core.spam import AWAITS_SCORE
from mailgate.edge.spool import Database, Store, content, verbs
from mailgate.edge.spool.errors import SpoolDamaged
from mailgate.edge.spool.listing import Listed, Selection, listed, resolve
from mailgate.edge.spool.schema import STATES
from mailgate.edge.spool.stats import BUCKETS, Row, stats
from mailgate.edge.spool.verbs import Change
from mailgate.ports import Facts, Parked, Settlement
from tests.spool.kit import HOST, NOW, a_message, octets, put, put_unscored, spool, states, wait_until
from tests.spool.processes import child

DAY = 86400.0


@pytest.fixture
async def full(store: Store) -> Store:
    """A spool with something of everything."""
    await put(store, "m1", "dev@lists.test", "Ops@lists.test", now=NOW + 1)
    await put(store, "m2", "dev@lists.test", sender="", now=NOW + 2)
    await put(store, "m3", Parked("d_v@lists.test", "held", "450 why"), sender="Bob@example.net", now=NOW + 3)
    await put(store, "m4", Parked("dev@other.test", "failed", "550 no"), now=NOW + 4)
    await put(store, "m5", Parked("100%@lists.test", "pending", "", uncertain=True), now=NOW + 5)
    await put(store, "m6", "gone@lists.test", now=NOW - 1)
    await store.claim(NOW - 1, 1)
    await store.settle("m6", [Settlement(0, "delivered", "250")], NOW)
    return store


def shown(store: Store, selection: Selection) -> list[tuple[str, list[str]]]:
    """Ids and states of what is chosen."""
    return [(row.id, [person.state for person in row.recipients]) for row in listed(store.database, selection)]


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        (Selection(), "m6 m1 m2 m3 m4 m5"),
        (Selection(ids=("m5", "m1", "nothing")), "m1 m5"),
        (Selection(ids=("exim-m2",)), "m2"),
        (Selection(ids=("<m3@example.org>", "m3")), "m3"),
        (Selection(recipient="dev@*"), "m1 m2 m4"),
        (Selection(recipient="DEV@lists.test"), "m1 m2"),
        (Selection(recipient="d_v@lists.test"), "m3"),
        (Selection(recipient="d?v@lists.test"), "m1 m2 m3"),
        (Selection(recipient="1*%@*"), "m5"),
        (Selection(sender=""), "m2"),
        (Selection(sender="bob@*"), "m3"),
        (Selection(after=NOW + 3), "m3 m4 m5"),
        (Selection(before=NOW + 3), "m6 m1 m2"),
        (Selection(states=("held", "failed")), "m3 m4"),
        (Selection(states=("pending",)), "m1 m2"),
        (Selection(states=("uncertain",)), "m5"),
        (Selection(states=("delivered",)), "m6"),
        (Selection(states=("odd",)), ""),
        (Selection(recipient="dev@*", states=("pending",), after=NOW + 2), "m2"),
    ],
)
async def test_choosing(full: Store, selection: Selection, ids: str) -> None:
    assert [gate_id for gate_id, _ in shown(full, selection)] == ids.split()


async def test_only_chosen_recipients_are_shown(full: Store) -> None:
    [row] = listed(full.database, Selection(ids=("m1",), recipient="ops@*"))
    person = row.recipients[0]
    assert (row.sender, row.size, row.received, row.settled, row.trouble) == ("ann@example.org", 300, NOW + 1, None, "")
    assert (row.exim_id, row.message_id, row.client) == ("exim-m1", "<m1@example.org>", "192.0.2.7")
    assert dataclasses.asdict(person) == {
        "number": 1,
        "address": "Ops@lists.test",
        "state": "pending",
        "uncertain": False,
        "busy": False,
        "alone": False,
        "attempts": 0,
        "since": NOW + 1,
        "next_attempt": NOW + 1,
        "last_attempt": None,
        "reply": "451 4.3.0 later",
    }


async def test_many_pages_and_many_ids(store: Store) -> None:
    ids = [f"m{n:04}" for n in range(450)]
    await asyncio.gather(*(put(store, gate_id, now=NOW + n // 7) for n, gate_id in enumerate(ids)))
    assert [row.id for row in listed(store.database, Selection())] == ids
    asked = Selection(ids=tuple(ids) * 3 + tuple(f"x{n}" for n in range(2000)))
    assert sorted(row.id for row in listed(store.database, asked)) == ids
    assert len(list(verbs.hold(store.database, Selection(), NOW))) == 450
    assert states(store) == {"held": 450}


Verb = Callable[..., Any]


@pytest.mark.parametrize(
    ("verb", "selection", "changes"),
    [
        (verbs.hold, Selection(), "m1.0 m1.1 m2.0 m4.0 m5.0: held"),
        (verbs.release, Selection(), "m1.0 m1.1 m2.0 m3.0 m4.0: pending, m5.0: uncertain"),
        (verbs.replay, Selection(), "m1.0 m1.1 m2.0: pending, m5.0: uncertain"),
        (verbs.replay, Selection(states=("failed",)), "m4.0: pending"),
        (verbs.replay, Selection(ids=("m4", "m3")), "m4.0: pending"),
        (verbs.drop, Selection(recipient="dev@*"), "m1.0 m2.0 m4.0: dropped"),
        (verbs.drop, Selection(ids=("m6",)), ""),
    ],
)
async def test_verbs_and_their_dry_runs(full: Store, verb: Verb, selection: Selection, changes: str) -> None:
    before = list(listed(full.database, Selection()))
    dry = list(verb(full.database, selection, NOW + 9, dry=True))
    assert list(listed(full.database, Selection())) == before

    done = list(verb(full.database, selection, NOW + 9))

    assert done == dry
    after = {part.partition(": ")[2]: part.partition(": ")[0].split() for part in changes.split(", ") if part}
    assert sorted(f"{one.id}.{one.number}" for one in done) == sorted(
        name for names in after.values() for name in names
    )
    for state, names in after.items():
        assert {one.after for one in done if f"{one.id}.{one.number}" in names} == {state}
    now_shown = {
        (row.id, person.number): person for row in listed(full.database, Selection()) for person in row.recipients
    }
    for one in done:
        person = now_shown[one.id, one.number]
        assert (person.state, one.refused) == (one.after, "")
        if verb in {verbs.release, verbs.replay}:
            assert person.next_attempt == NOW + 9


async def test_a_release_begins_the_lifetime_anew(full: Store) -> None:
    list(verbs.release(full.database, Selection(ids=("m1", "m3", "m4")), NOW + 5 * DAY))
    since = {claimed.id: claimed.since for claimed in await full.claim(NOW + 5 * DAY, 9)}
    assert since == {
        "m1": (NOW + 1,) * 2,
        "m2": (NOW + 2,),
        "m3": (NOW + 5 * DAY,),
        "m4": (NOW + 5 * DAY,),
        "m5": (NOW + 5,),
    }


async def test_what_awaits_a_score_can_be_held(store: Store) -> None:
    await put_unscored(store, "one", Parked("a@lists.test", "held", AWAITS_SCORE))
    await put_unscored(store, "two", Parked("a@lists.test", "held", "asked the moderators"))
    [change] = verbs.hold(store.database, Selection(), NOW, reason="looks odd")
    assert (change.id, change.before, change.after) == ("one", "held", "held")
    assert await store.claim_awaiting(NOW + 1, NOW + 1, 9) == []


async def test_no_sender_can_give_his_message_the_name_of_another(store: Store) -> None:
    """Who knows a gate id, as every sender knows that of his own message, may write it into a Message-ID."""
    await put(store, "victim")
    for gate_id, facts in (("other", Facts("", "victim", "")), ("third", Facts("victim", "", ""))):
        parked = [Parked("l@lists.test", "held", "")]
        await store.store(gate_id, Envelope("", ("l@lists.test",)), a_message(), parked, facts, NOW, 5)
    assert [change.id for change in verbs.release(store.database, Selection(ids=("victim",)), NOW)] == ["victim"]
    assert [resolve(store.database, text) for text in ("vic*", "?????", "_ictim", "vic")] == [[], [], [], ["victim"]]


async def test_a_reason_is_kept_as_the_reply(full: Store) -> None:
    list(verbs.hold(full.database, Selection(ids=("m2",)), NOW, reason="list is moving"))
    [row] = listed(full.database, Selection(ids=("m2",)))
    assert row.recipients[0].reply == "list is moving"


async def test_what_is_being_tried_is_busy(full: Store) -> None:
    [claimed] = await full.claim(NOW + 1, 1)
    for verb in (verbs.hold, verbs.release, verbs.drop, verbs.replay):
        done = list(verb(full.database, Selection(ids=("m1",)), NOW))
        assert done == [
            Change("m1", 0, "dev@lists.test", "pending", "pending", "busy"),
            Change("m1", 1, "Ops@lists.test", "pending", "pending", "busy"),
        ]
    await full.settle("m1", [Settlement(n, "delivered", "250") for n in claimed.numbers], NOW)
    assert shown(full, Selection(ids=("m1",))) == [("m1", ["delivered", "delivered"])]


async def test_what_a_dead_gate_was_trying_is_not_busy_for_ever(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put(store, "one")
        await store.claim(NOW, 1)
        lock = store.database._lock
        assert lock
        lock.release()  # as its death would
        store.database._lock = None
        beside = Database(tmp_path / "spool.db", HOST)
        [change] = verbs.hold(beside, Selection(), NOW)
        beside.close()
        assert change == Change("one", 0, "list@lists.test", "uncertain", "held", "")


async def test_what_is_corrupt_can_only_be_dropped(full: Store) -> None:
    with full.database.writing.connect() as connection, connection.begin():
        connection.exec_driver_sql("DELETE FROM bodies WHERE message_id = 'm2'")
    assert await full.load("m2") is None
    [change] = verbs.release(full.database, Selection(ids=("m2",)), NOW)
    assert (change.before, change.after, change.refused) == ("corrupt", "corrupt", "corrupt")
    [change] = verbs.drop(full.database, Selection(ids=("m2",)), NOW)
    assert (change.before, change.after, change.refused) == ("corrupt", "dropped", "")


async def test_the_content_goes_with_the_last_one_dropped(full: Store) -> None:
    before = full.counts().octets
    list(verbs.drop(full.database, Selection(recipient="ops@*"), NOW))
    assert full.counts().octets == before
    list(verbs.drop(full.database, Selection(recipient="dev@lists.test", ids=("m1",)), NOW))
    assert full.counts().octets == before - 300
    with pytest.raises(SpoolDamaged, match="every recipient is settled"):
        list(content.octets(full.database, "m1"))


async def test_exporting_octets(store: Store) -> None:
    message = a_message(2_300_000)
    await put(store, "one", message=message)
    pieces = list(content.octets(store.database, "one"))
    assert b"".join(pieces) == octets(message)
    assert max(map(len, pieces)) <= 2**20


async def test_ages_by_list_and_domain(store: Store) -> None:
    for minutes, *people in (
        (4, "dev@lists.test", "dev-bounces+ann=example.org@lists.test"),
        (7, "dev@lists.test"),
        (1000, "ops@lists.test"),
        (5000, "dev-request@lists.test", "dev@other.test", Parked("held@lists.test", "held", "")),
    ):
        await put(store, f"m{minutes}", *people, now=NOW - 60 * minutes)
    assert BUCKETS == (5, 10, 20, 40, 80, 160, 320, 1280)
    assert stats(store.database, NOW) == [
        Row("dev@lists.test", 4, (2, 1, 0, 0, 0, 0, 0, 0, 1)),
        Row("dev@other.test", 1, (0, 0, 0, 0, 0, 0, 0, 0, 1)),
        Row("ops@lists.test", 1, (0, 0, 0, 0, 0, 0, 0, 1, 0)),
    ]
    assert [(row.name, row.total) for row in stats(store.database, NOW, by="domain", states=("pending", "held"))] == [
        ("lists.test", 6),
        ("other.test", 1),
    ]
    assert list_of("a-b-owner@lists.test") == "a-b@lists.test"


async def test_no_verb_takes_longer_the_more_is_waiting(full: Store) -> None:
    """Where messages are named, nothing goes through the queue: SQLite tells how it would answer each statement."""
    seen: list[tuple[str, Any]] = []
    for engine in (full.database.writing, full.database.reading):
        event.listen(engine, "before_cursor_execute", lambda *args: seen.append((args[2], args[3])))
    [claimed] = await full.claim(NOW + 1, 1)
    await full.load(claimed.id)
    await full.settle(claimed.id, [Settlement(0, "delivered", ""), Settlement(1, "failed", "")], NOW)
    full.counts()
    daily = len(seen)
    for verb in (verbs.hold, verbs.release, verbs.drop):
        list(verb(full.database, Selection(ids=("m4", "m5")), NOW))
    for state in STATES:
        list(listed(full.database, Selection(states=(state,))))
    with full.database.reading.connect() as connection:
        for number, (statement, values) in enumerate(tuple(seen)):
            if statement.startswith(("SELECT", "UPDATE", "DELETE")):
                one = values[0] if isinstance(values, list) else values
                plan = [row[3] for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, one)]
                scanned = [line for line in plan if line.startswith(("SCAN messages", "SCAN recipients"))]
                assert number >= daily or not scanned, (statement, plan)
                if "message_id = " in statement or "message_id IN" in statement:
                    assert not any("recipients_queue (state" in line for line in plan), (statement, plan)


async def test_a_gate_and_an_operator_at_once(tmp_path: Path) -> None:
    """Two processes write for a while: everything is delivered or dropped, and only what was said to be dropped."""
    stored: set[str] = set()
    delivered: set[str] = set()

    async def storing(store: Store, client: int) -> None:
        for number in range(40):
            kind = "drop" if number % 3 == 0 else "keep"
            await put(store, f"{kind}-{client}-{number}", f"{kind}@lists.test")
            stored.add(f"{kind}-{client}-{number}")
            await asyncio.sleep(0.01)

    async def replaying(store: Store) -> None:
        claims = await store.claim(NOW, 5)
        await asyncio.sleep(0.005)
        await asyncio.gather(*(store.settle(one.id, [Settlement(0, "delivered", "")], NOW) for one in claims))
        delivered.update(one.id for one in claims)

    async with spool(tmp_path) as store:
        await put(store, "keep-first", "keep@lists.test")
        stored.add("keep-first")
        with child("operate", tmp_path) as operator:
            assert operator.hear() == "ready"
            clients = asyncio.gather(*(storing(store, client) for client in range(4)))
            while not clients.done():
                await replaying(store)
            await put(store, "drop-last", "drop@lists.test")
            stored.add("drop-last")
            await wait_until(lambda: states(store).get("dropped", 0) > 0, 20)
            said = (await asyncio.to_thread(operator.process.communicate, timeout=60))[0].splitlines()
        list(verbs.release(store.database, Selection(), NOW))
        while store.counts().recipients["pending"]:
            await replaying(store)
        dropped = {line.split()[1] for line in said if line.startswith("dropped ")}
        assert dropped
        assert not dropped & delivered
        assert dropped | delivered == stored
        assert states(store) == {"dropped": len(dropped), "delivered": len(delivered)}
        assert {row.id for row in _all(store) if row.recipients[0].state == "dropped"} == dropped


def _all(store: Store) -> list[Listed]:
    return list(listed(store.database, Selection()))
