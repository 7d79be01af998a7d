"""The ledger as the relay meets it: on disk a moment later, in few commits, and never in the way of mail."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import event

from mailgate.core.fate import Fate
from mailgate.edge.spool import Store, outages
from mailgate.edge.spool.ledger import CALM, LAZY, LINGER, Ledger
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


def pass_on(store: Store, gate_id: str, fate: Fate = Fate.DELIVERED, now: float = NOW) -> None:
    """A post on its way past the spool."""
    store.ledger.passing(a_post(gate_id, A, now=now)).became({A: fate})


async def written(store: Store) -> None:
    """Until nothing is under way to the ledger."""
    await wait_until(lambda: store.ledger._task is None)


async def test_an_entry_is_on_disk_in_a_moment(store: Store, tmp_path: Path) -> None:
    commits: list[float] = []
    event.listen(store.database.writing, "commit", lambda _: commits.append(time.monotonic()))
    began = time.monotonic()
    pass_on(store, "one")
    await asyncio.sleep(0)
    assert store.ledger._under_way  # the first one is not waited with
    await wait_until(lambda: "one" in ledger(tmp_path))
    pass_on(store, "two")
    await wait_until(lambda: "two" in ledger(tmp_path))
    assert commits[1] - began > LINGER
    assert ledger(store) == {"one": {A: "delivered"}, "two": {A: "delivered"}}


async def test_an_entry_is_there_before_the_next_hop_has_answered(store: Store) -> None:
    entry = store.ledger.passing(a_post("one", A, B))
    await written(store)
    assert ledger(store, everything=False) == {"one": {A: "uncertain", B: "uncertain"}}
    entry.became({A: Fate.DELIVERED, B: Fate.REFUSED})
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
    entry.became(fates)
    await written(store)
    assert ledger(store) == {"one": {A: "delivered", B: "pending", "d@lists.test": "failed"}}


async def test_what_was_not_accepted_leaves_no_entry(store: Store) -> None:
    first = store.ledger.passing(a_post("one", A, B))
    await written(store)
    second = store.ledger.passing(a_post("two", A))
    for entry in (first, second):
        entry.became({A: Fate.REFUSED, B: Fate.REFUSED})
    await written(store)
    assert ledger(store) == {}


async def test_a_thousand_entries_share_a_few_commits(store: Store) -> None:
    commits: list[object] = []
    event.listen(store.database.writing, "commit", commits.append)
    for n in range(1000):
        pass_on(store, f"m{n}")
        await asyncio.sleep(0)
    await written(store)
    assert len(ledger(store)) == 1000
    assert len(commits) <= 4


async def test_what_became_of_them_shares_fewer(store: Store) -> None:
    commits: list[object] = []
    event.listen(store.database.writing, "commit", commits.append)
    began = time.monotonic()
    for n in range(30):
        entry = store.ledger.passing(a_post(f"m{n}", A))
        await wait_until(lambda one=entry: not one.open)  # type: ignore[misc]
        entry.became({A: Fate.DELIVERED})
    rounds = (time.monotonic() - began) / LAZY
    await written(store)
    assert ledger(store) == {f"m{n}": {A: "delivered"} for n in range(30)}
    assert len(commits) <= 30 + rounds + 2


async def test_mail_and_entries_share_commits(store: Store) -> None:
    commits: list[object] = []
    event.listen(store.database.writing, "commit", commits.append)
    with stopped_at(store, "commit") as gate:
        first = asyncio.create_task(put(store, "first"))
        await gate.wait()
        rest = [asyncio.create_task(put(store, f"m{n}")) for n in range(20)]
        for n in range(20):
            pass_on(store, f"u{n}")
        await wait_until(lambda: bool(store.ledger._under_way))
        gate.open.set()
        await asyncio.gather(first, *rest)
        await written(store)
    assert len(commits) == 2
    assert len(ledger(store)) == 20


# trouble


async def test_a_disk_that_hangs_keeps_nobody(store: Store) -> None:
    with stopped_at(store, "commit") as gate:
        pass_on(store, "first")
        await gate.wait()
        for n in range(1000):
            pass_on(store, f"m{n}")  # were it waited for, it would never come
            await asyncio.sleep(0)
        gate.open.set()
        await written(store)
    assert len(ledger(store, everything=False)) == 1001


async def test_while_the_spool_is_not_open_entries_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailgate.edge.spool.ledger.AGAIN", 0.05)
    telemetry = Recorder()
    store = Store(config(tmp_path), HOST, telemetry)
    for n in range(50):
        pass_on(store, f"m{n}")
    await wait_until(lambda: bool(telemetry.named("ledger.failed")))
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
    pass_on(store, "one")
    await wait_until(lambda: "moved or deleted" in store.ledger._trouble)
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
        pass_on(store, f"m{n}")
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
    pass_on(store, "one")
    [failed] = telemetry.named("ledger.failed")
    assert failed["id"] == "one"
    assert "AttributeError" in str(failed["trace"])
    monkeypatch.undo()
    pass_on(store, "two")
    await written(store)
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
            pass_on(store, f"at{int(step[1:]):05}", now=NOW + int(step[1:]))
        elif step[0] == "s":
            store.ledger.scored()
        else:
            await store.close()
            store = Store(config(tmp_path), HOST, Recorder())
            await store.open()
    await written(store)
    said = [
        f"{one.began - NOW:.0f}-{one.ended - NOW:.0f}: {one.posts}" for one in outages.outages(store.database, Choice())
    ]
    await store.close()
    assert said == found
    assert CALM == 60
