"""The ledger beside the spool's own work: what is stored unscored stands in it, and what became of it is true."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from mailgate.core.fate import Fate
from mailgate.core.spam import AWAITS_SCORE
from mailgate.edge.spool import Store, housekeeping, outages, unscored
from mailgate.edge.spool.listing import Selection
from mailgate.edge.spool.outages import Choice
from mailgate.edge.spool.verbs import drop, hold, release
from mailgate.ports import Parked, Settlement, SpoolError
from tests.spool.gate import stopped_at
from tests.spool.kit import NOW, UNSCORED, Recorder, a_post, ledger, put, put_unscored, spool, sql, states

A, B, C = "a@lists.test", "b@lists.test", "c@lists.test"
SCORED = 'scored:[7.25, 5.0, "", "127.0.0.1:783"]'
DAY = 86400.0


def pending(*people: str) -> tuple[Parked, ...]:
    return tuple(Parked(one, "pending", "") for one in people)


async def settle(store: Store, scanned: str, *settlements: Settlement, now: float = NOW) -> None:
    """Claim what is due, and settle it so."""
    [claimed] = await store.claim(now, 10) or await store.claim_awaiting(now, now + 1, 10)
    await store.settle(claimed.id, settlements, now, scanned)


def delivered(number: int) -> Settlement:
    return Settlement(number, "delivered", "250 Ok")


def deferred(number: int, *, uncertain: bool = False) -> Settlement:
    return Settlement(number, "pending", "450 later", uncertain=uncertain, next_attempt=NOW)


def passed(store: Store) -> dict[str, dict[str, str]]:
    """The posts that went on unscored, as `list` shows them when nothing else is asked for."""
    return ledger(store, everything=False)


async def test_an_entry_has_all_that_is_known(store: Store) -> None:
    await put_unscored(store, "one", *pending(A, B))
    [one] = outages.posts(store.database, Choice(everything=True))
    assert (one.id, one.outage, one.received, one.size, one.sender) == ("one", "one", NOW, 300, "ann@example.org")
    assert (one.exim_id, one.message_id, one.client) == ("exim-one", "<one@example.org>", "ip=192.0.2.7")
    assert (one.reason, one.detail, one.score) == ("timeout", "127.0.0.1:783: no answer", None)
    assert [(person.address, person.state) for person in one.recipients] == [(A, "pending"), (B, "pending")]


async def test_what_came_with_a_score_is_not_in_it(store: Store) -> None:
    await put(store, "one", A)
    assert ledger(store) == {}


@pytest.mark.parametrize(
    ("settlement", "scanned", "state", "went_on"),
    [
        (delivered(0), UNSCORED, "delivered", True),
        (deferred(0, uncertain=True), UNSCORED, "uncertain", True),
        (deferred(0), UNSCORED, "pending", False),
        (delivered(0), "", "delivered", True),  # whoever says nothing of a score had none
        (delivered(0), SCORED, "scored", False),
        (deferred(0, uncertain=True), SCORED, "pending", False),
        (Settlement(0, "held", "spam-hold"), SCORED, "held", False),
        (Settlement(0, "failed", "550 no"), SCORED, "failed", False),
        (Settlement(0, "dropped", "spam-reject"), SCORED, "dropped", False),
    ],
)
async def test_what_a_replay_makes_of_it(
    store: Store, settlement: Settlement, scanned: str, state: str, *, went_on: bool
) -> None:
    await put_unscored(store, "one", *pending(A))
    await settle(store, scanned, settlement)
    assert ledger(store) == {"one": {A: state}}
    assert passed(store) == ({"one": {A: state}} if went_on else {})
    [one] = outages.posts(store.database, Choice(everything=True))
    assert one.score == (7.25 if scanned == SCORED else None)


async def test_what_one_recipient_got_unscored_the_other_need_not(store: Store) -> None:
    await put_unscored(store, "one", *pending(A, B), Parked(C, "failed", "550 no"))
    await settle(store, UNSCORED, delivered(0), deferred(1))
    await settle(store, SCORED, delivered(1))
    assert ledger(store) == {"one": {A: "delivered", B: "scored", C: "failed"}}
    assert passed(store) == {"one": {A: "delivered"}}


async def test_who_may_have_it_unscored_stays_so_when_it_comes_again_with_a_score(store: Store) -> None:
    await put_unscored(store, "one", *pending(A))
    await settle(store, UNSCORED, deferred(0, uncertain=True))
    await settle(store, SCORED, delivered(0))
    assert passed(store) == {"one": {A: "uncertain"}}


async def test_what_broke_off_before_it_was_spooled_may_be_there(store: Store) -> None:
    await put_unscored(store, "one", Parked(A, "pending", "", uncertain=True), *pending(B))
    assert ledger(store) == {"one": {A: "uncertain", B: "pending"}}
    assert passed(store) == {"one": {A: "uncertain"}}


async def test_held_until_hold_at_most_has_run_out(store: Store) -> None:
    await put_unscored(store, "one", Parked(A, "held", AWAITS_SCORE))
    assert ledger(store) == {"one": {A: "held"}}
    await settle(store, UNSCORED, Settlement(0, "held", "", next_attempt=NOW, tried=False))
    assert ledger(store) == {"one": {A: "held"}}
    await settle(store, UNSCORED, delivered(0))
    assert passed(store) == {"one": {A: "delivered"}}


async def test_an_operator_who_releases_holds_and_drops(store: Store) -> None:
    await put_unscored(store, "one", Parked(A, "held", AWAITS_SCORE))
    for verb, state in ((release, "pending"), (hold, "held"), (drop, "dropped")):
        assert list(verb(store.database, Selection(ids=("one",)), NOW))
        assert ledger(store) == {"one": {A: state}}


async def test_an_entry_outlives_the_message(store: Store) -> None:
    await put_unscored(store, "two", *pending(A), now=NOW - 1)
    await settle(store, "", delivered(0))
    await put_unscored(store, "one", *pending(A, B, C))
    await settle(store, UNSCORED, delivered(0), deferred(1), deferred(2))
    await settle(store, SCORED, delivered(1), Settlement(2, "dropped", "no"))
    before = ledger(store)
    assert (await store.tend(NOW + 2 * DAY)).purged == 2
    assert states(store) == {}
    assert ledger(store) == before
    assert before == {"two": {A: "delivered"}, "one": {A: "delivered", B: "scored", C: "dropped"}}


async def test_a_gate_that_died_while_it_sent_it(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put_unscored(store, "one", *pending(A))
        await put_unscored(store, "two", *pending(B))
        await store.claim(NOW, 1)  # and no more was heard of it
    async with spool(tmp_path) as store:
        assert ledger(store) == {"one": {A: "uncertain"}, "two": {B: "pending"}}


async def test_a_gate_that_died_while_it_sent_what_has_a_score_by_now(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put_unscored(store, "one", *pending(A))
        await settle(store, SCORED, deferred(0))
        await store.claim(NOW, 1)
    async with spool(tmp_path) as store:
        assert ledger(store) == {"one": {A: "pending"}}
        assert states(store) == {"uncertain": 1}


async def test_a_store_that_was_given_up_leaves_no_entry(store: Store) -> None:
    with stopped_at(store, "commit") as gate:
        given_up = asyncio.create_task(put_unscored(store, "one", *pending(A), timeout=1))
        await gate.wait()
        with pytest.raises(SpoolError, match="not committed within"):
            await given_up
        gate.open.set()
    await put_unscored(store, "two", *pending(B))
    assert ledger(store) == {"two": {B: "pending"}}


async def test_what_mailman_may_have_stays_when_the_store_was_given_up(store: Store) -> None:
    entry = store.ledger.passing(a_post("one", A, B))
    with stopped_at(store, "commit") as gate:
        parked = (Parked(A, "pending", "", uncertain=True), *pending(B))
        given_up = asyncio.create_task(put_unscored(store, "one", *parked, timeout=1))
        await gate.wait()
        with pytest.raises(SpoolError, match="not committed within"):
            await given_up
        gate.open.set()
    entry.became({A: Fate.UNCERTAIN, B: Fate.REFUSED})
    await store.ledger.close(5)
    assert ledger(store) == {"one": {A: "uncertain"}}


async def test_no_statement_goes_through_all_that_was_delivered(store: Store, tmp_path: Path) -> None:
    """The index on states has a hundred thousand of these after an outage of Mailman."""
    said: list[tuple[str, Any]] = []
    for engine in (store.database.writing, store.database.reading):
        event.listen(engine, "before_cursor_execute", lambda _c, _cursor, text, values, *_: said.append((text, values)))
    await put_unscored(store, "one", *pending(A, B))
    await settle(store, UNSCORED, delivered(0), deferred(1, uncertain=True))
    await settle(store, SCORED, delivered(1))
    store.database.write(lambda connection: unscored.abandoned(connection, "run", ["one"]))
    store.database.write(lambda connection: unscored.outlived(connection, ["one"]))
    assert ledger(store)
    assert outages.outages(store.database, Choice(recipient="a@*"))
    about = [(text, values) for text, values in said if "unscored_recipients" in text and text[:6] != "INSERT"]
    assert len(about) > 6
    connection = sqlite3.connect(tmp_path / "spool.db")
    for text, values in about:
        one = values[0] if isinstance(values, list) else values
        plan = "\n".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", one))
        assert "recipients_queue" not in plan, f"{text}\n{plan}"
        assert "SCAN recipients" not in plan, f"{text}\n{plan}"
    connection.close()


# damage: the ledger is no reason to refuse or to keep mail


@pytest.mark.parametrize("table", ["unscored", "unscored_recipients"])
async def test_without_its_tables_mail_is_stored_and_settled(
    store: Store, tmp_path: Path, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    sql(tmp_path, f"DROP TABLE {table}")
    await put_unscored(store, "one", *pending(A))
    await settle(store, UNSCORED, deferred(0))
    await settle(store, UNSCORED, delivered(0))
    await put_unscored(store, "two", *pending(A))
    await store.claim(NOW, 1)
    assert states(store) == {"delivered": 1, "pending": 1}
    assert (await store.tend(NOW + 2 * DAY)).purged == 1
    assert f"no such table: {table}" in caplog.text


async def test_without_its_tables_a_spool_opens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with spool(tmp_path) as store:
        await put_unscored(store, "one", *pending(A))
        await store.claim(NOW, 1)
    sql(tmp_path, "DROP TABLE unscored")
    sql(tmp_path, "DROP TABLE unscored_recipients")
    async with spool(tmp_path) as store:
        assert states(store) == {"uncertain": 1}
        assert len(await store.claim(NOW, 1)) == 1


# bounds


async def test_old_entries_are_forgotten_but_not_those_of_what_is_there(store: Store, telemetry: Recorder) -> None:
    for number, age in enumerate((31, 31, 29)):
        await put_unscored(store, f"m{number}", *pending(A), now=NOW - age * DAY)
    claimed = await store.claim(NOW, 3)
    for one in claimed[1:]:
        await store.settle(one.id, [delivered(0)], NOW, UNSCORED)
    await store.tend(NOW)
    assert list(ledger(store)) == ["m0", "m2"]
    assert telemetry.named("ledger.forgotten") == [{"posts": 1, "younger": 0, "kept": 2}]


async def test_of_too_many_the_oldest_are_forgotten(
    store: Store, telemetry: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "FEWEST", 3)
    monkeypatch.setattr(housekeeping, "SHARE", store.config.max_bytes // 3)
    entries = [store.ledger.passing(a_post(f"m{n}", A, now=NOW - n)) for n in range(1200)]
    for entry in entries:
        entry.became({A: Fate.DELIVERED})
    await store.ledger.close(5)
    await store.tend(NOW)
    assert sorted(ledger(store)) == ["m0", "m1", "m2"]
    assert sql(store.database.path.parent, "SELECT count(*) FROM unscored_recipients") == [(3,)]
    assert telemetry.named("ledger.forgotten") == [{"posts": 1197, "younger": 1197, "kept": 3}]
