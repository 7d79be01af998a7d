"""The ledger as the relay meets it: on disk before the reply, in few commits, and never in the way of mail."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import event

from mailgate.core.fate import Fate
from mailgate.edge.spool import Store, outages
from mailgate.edge.spool.ledger import CALM, PATIENCE, Ledger
from mailgate.edge.spool.outages import Choice
from mailgate.edge.spool.unscored import Note
from mailgate.ports import Parked, SpoolError
from tests.spool.gate import stopped_at
from tests.spool.kit import (
    HOST,
    NOW,
    Recorder,
    a_post,
    config,
    ledger,
    put,
    put_unscored,
    spool,
    states,
    wait_until,
)
from tests.spool.test_every_step import Fault

A, B, C = "a@lists.test", "b@lists.test", "c@lists.test"


async def pass_on(store: Store, gate_id: str, fate: Fate = Fate.DELIVERED, now: float = NOW) -> None:
    """A post on its way past the spool."""
    await store.ledger.passing(a_post(gate_id, A, now=now)).became({A: fate})


async def written(store: Store) -> None:
    """Until nothing is under way to the ledger."""
    await wait_until(lambda: store.ledger._task is None)


async def test_an_entry_is_on_disk_before_the_reply(store: Store, tmp_path: Path) -> None:
    await pass_on(store, "one")
    assert "one" in ledger(tmp_path)
    await written(store)
    assert ledger(store) == {"one": {A: "delivered"}}


async def test_an_entry_is_there_before_the_next_hop_has_answered(store: Store) -> None:
    entry = store.ledger.passing(a_post("one", A, B))
    await written(store)
    assert ledger(store, everything=False) == {"one": {A: "uncertain", B: "uncertain"}}
    await entry.became({A: Fate.DELIVERED, B: Fate.REFUSED})
    await written(store)
    assert ledger(store) == {"one": {A: "delivered"}}


@pytest.mark.parametrize("early", [True, False], ids=["the entry goes first", "the message goes first"])
async def test_some_are_delivered_some_spooled_some_refused(store: Store, *, early: bool) -> None:
    entry = store.ledger.passing(a_post("one", A, B, C))
    if early:
        await written(store)
    parked = (Parked(B, "pending", "450 later"), Parked("d@lists.test", "failed", "550 no"))
    await put_unscored(store, "one", *parked)
    fates = {A: Fate.DELIVERED, B: Fate.SPOOLED, C: Fate.REFUSED, "d@lists.test": Fate.REFUSED}
    await entry.became(fates)
    await written(store)
    assert ledger(store) == {"one": {A: "delivered", B: "pending", "d@lists.test": "failed"}}


async def test_what_was_not_accepted_leaves_no_entry(store: Store) -> None:
    first = store.ledger.passing(a_post("one", A, B))
    await written(store)
    second = store.ledger.passing(a_post("two", A))
    for entry in (first, second):
        await entry.became({A: Fate.REFUSED, B: Fate.REFUSED})
    await written(store)
    assert ledger(store) == {}


async def test_a_thousand_entries_share_a_few_commits(store: Store) -> None:
    commits: list[object] = []
    event.listen(store.database.writing, "commit", commits.append)
    await asyncio.gather(*(pass_on(store, f"m{n}") for n in range(1000)))
    await written(store)
    assert len(ledger(store)) == 1000
    assert len(commits) <= 4


async def test_mail_and_entries_share_commits(store: Store) -> None:
    commits: list[object] = []
    event.listen(store.database.writing, "commit", commits.append)
    with stopped_at(store, "commit") as gate:
        first = asyncio.create_task(put(store, "first"))
        await gate.wait()
        rest = [asyncio.create_task(put(store, f"m{n}")) for n in range(20)]
        noted = [asyncio.create_task(pass_on(store, f"u{n}")) for n in range(20)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, *rest, *noted)
    assert len(commits) == 2
    assert len(ledger(store)) == 20


# trouble


async def test_a_disk_that_hangs_keeps_the_first_reply_for_a_moment_and_no_other(
    store: Store, telemetry: Recorder
) -> None:
    with stopped_at(store, "commit") as gate:
        began = time.monotonic()
        await asyncio.gather(*(pass_on(store, f"first{n}") for n in range(5)))
        first = time.monotonic() - began
        for n in range(100):
            await pass_on(store, f"m{n}")
        rest = time.monotonic() - began - first
        gate.open.set()
        await written(store)
    assert PATIENCE <= first < PATIENCE + 0.4
    assert rest < 0.4
    assert len(ledger(store, everything=False)) == 105
    [failed] = telemetry.named("ledger.failed")
    assert failed["cause"] == "not written within 0.5 s"
    assert len(telemetry.named("ledger.written")) == 1
    await pass_on(store, "after")
    assert "after" in ledger(store)


async def test_while_the_spool_is_not_open_entries_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailgate.edge.spool.ledger.AGAIN", 0.05)
    telemetry = Recorder()
    store = Store(config(tmp_path), HOST, telemetry)
    began = time.monotonic()
    for n in range(50):
        await pass_on(store, f"m{n}")
    assert time.monotonic() - began < PATIENCE
    assert [one["cause"] for one in telemetry.named("ledger.failed")] == ["the spool is not open"]
    await store.open()
    await written(store)
    assert len(ledger(store)) == 50
    await store.close()
    assert not telemetry.named("ledger.lost")


async def test_a_file_that_was_replaced_gets_what_the_old_one_did_not(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailgate.edge.spool.ledger.AGAIN", 0.05)
    for file in tmp_path.glob("spool.db*"):
        file.rename(tmp_path / f"old-{file.name}")
    await pass_on(store, "one")
    assert await store.open()
    await written(store)
    assert ledger(store) == {"one": {A: "delivered"}}


async def test_entries_that_can_not_be_kept_are_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailgate.edge.spool.ledger.AGAIN", 0.05)
    monkeypatch.setattr("mailgate.edge.spool.ledger.MOST_WAITING", 30)
    telemetry = Recorder()
    store = Store(config(tmp_path), HOST, telemetry)
    for n in range(40):
        await pass_on(store, f"m{n}")
    await store.open()
    await written(store)
    [lost] = telemetry.named("ledger.lost")
    kept = ledger(store)
    assert lost["entries"] == 40 - len(kept) == 10
    assert isinstance(lost["ids"], Sequence)
    assert not kept.keys() & set(lost["ids"])
    await store.close()


async def test_at_the_end_what_waits_is_written_or_called_lost(tmp_path: Path) -> None:
    telemetry = Recorder()
    async with spool(tmp_path, telemetry) as store:
        store.ledger.passing(a_post("one", A))
    assert ledger(tmp_path) == {"one": {A: "uncertain"}}
    never = Store(config(tmp_path), HOST, telemetry)
    never.ledger.passing(a_post("two", A))
    await never.close()
    [lost] = telemetry.named("ledger.lost")
    assert (lost["entries"], lost["ids"]) == (1, ["two"])


async def test_at_the_end_a_disk_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    telemetry = Recorder()
    async with spool(tmp_path, telemetry) as store:
        with stopped_at(store, "commit") as gate:
            store.ledger.passing(a_post("one", A))
            await gate.wait()
            store.ledger.passing(a_post("two", A))
            await store.ledger.close(0.1)
    [lost] = telemetry.named("ledger.lost")
    assert lost["ids"] == ["one", "two"]


async def test_one_entry_that_can_not_be_written_does_not_keep_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailgate.edge.spool.ledger.AGAIN", 0.001)
    there: set[str] = set()

    async def write(notes: Sequence[Note]) -> None:
        if any(note.post.id == "bad" for note in notes):
            raise ValueError("no such thing")
        there.update(note.post.id for note in notes)

    telemetry = Recorder()

    def tell(name: str, *, level: str = "error", **fields: object) -> None:
        telemetry.event(name, fields, level=level)

    book = Ledger(write, tell)
    for gate_id in ("one", "bad", "two", "three"):
        book.passing(a_post(gate_id, A))
    await wait_until(lambda: there == {"one", "two", "three"})
    await book.close(1)
    assert "no such thing" in str(telemetry.named("ledger.failed")[0]["cause"])
    assert telemetry.named("ledger.lost")[-1]["ids"] == ["bad"]


async def test_a_bug_in_it_is_said_and_keeps_no_mail(
    store: Store, telemetry: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.ledger, "_entries", None)
    await pass_on(store, "one")
    [failed] = telemetry.named("ledger.failed")
    assert failed["id"] == "one"
    assert "AttributeError" in str(failed["trace"])
    monkeypatch.undo()
    await pass_on(store, "two")
    assert "two" in ledger(store)


@pytest.mark.parametrize("after", [False, True], ids=["before a statement", "after a statement"])
async def test_whatever_statement_fails_the_message_is_stored_or_refused_and_the_entry_is_whole(
    store: Store, *, after: bool
) -> None:
    fault = Fault(store, after=after)
    stored = 0
    for number in range(1, 40):
        gate_id = f"m{number}"
        fault.arm(number)
        try:
            await put_unscored(store, gate_id, Parked(A, "pending", ""), Parked(B, "pending", ""))
        except SpoolError:
            assert gate_id not in ledger(store)
        else:
            stored += 1
            assert ledger(store).get(gate_id, {}) in ({}, {A: "pending", B: "pending"})
            assert fault.fired or gate_id in ledger(store)
            if not fault.fired:
                break
    assert not fault.fired
    assert states(store) == {"pending": 2 * stored}
    assert stored > 2, "a fault of the ledger does not refuse a message"


# outages


@pytest.mark.parametrize(
    ("course", "found"),
    [
        ("u0 u10 u20", ["0-20: 3"]),
        ("u0 u500 u9000", ["0-9000: 3"]),  # nothing was scored in between
        ("u0 s1 u10 s11 u59", ["0-59: 3"]),  # it comes and goes
        ("u0 s1 u61", ["0-0: 1", "61-61: 1"]),
        ("u0 u5 s6 s80 u90 u95 s96", ["0-5: 2", "90-95: 2"]),
        ("u0 s1 r2 u61", ["0-0: 1", "61-61: 1"]),  # r: the gate is restarted
        ("u0 r1 u59", ["0-59: 2"]),
        ("u0 r1 u61", ["0-0: 1", "61-61: 1"]),  # whether one was scored is not known any more
    ],
)
async def test_what_belongs_to_one_outage(tmp_path: Path, course: str, found: list[str]) -> None:
    store = Store(config(tmp_path), HOST, Recorder())
    await store.open()
    for step in course.split():
        if step[0] == "u":
            await pass_on(store, f"at{int(step[1:]):05}", now=NOW + int(step[1:]))
        elif step[0] == "s":
            store.ledger.scored()
        else:
            await store.close()
            store = Store(config(tmp_path), HOST, Recorder())
            await store.open()
    said = [
        f"{one.began - NOW:.0f}-{one.ended - NOW:.0f}: {one.posts}" for one in outages.outages(store.database, Choice())
    ]
    await store.close()
    assert said == found
    assert CALM == 60
