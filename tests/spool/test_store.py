"""Messages go in, are claimed, read, settled and forgotten."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from mailgate.core.envelope import Envelope
from mailgate.core.message import Message
from mailgate.core.spam import AWAITS_SCORE
from mailgate.edge.spool import Store
from mailgate.edge.spool.schema import STATES
from mailgate.ports import Facts, Parked, Settlement, SpoolError, SpoolFull
from tests.spool.kit import NOW, Recorder, a_message, octets, put, put_unscored, spool, states


async def test_what_went_in_comes_out(store: Store) -> None:
    """Addresses that are no UTF-8, a null reverse-path, 8-bit octets, duplicates, all flags and facts."""
    people = ("list@lists.test", "l\udce9st@lists.test", "list@lists.test", "Ünï@lists.test")
    parked = [
        Parked(people[0], "pending", "451 no", uncertain=True, attempts=2),
        Parked(people[1], "pending", "no\x00\udcff reply", alone=True),
        Parked(people[2], "pending", ""),
        Parked(people[3], "pending", ""),
    ]
    body = bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"") + b"\r\n"
    envelope = Envelope("", people, smtputf8=True, eight_bit=True)
    facts = Facts("1xV0Ys-0004sm-35", "<odd\udcff@example.org>", "2001:db8::1")
    await store.store("one", envelope, Message(b"A: \xff\r\n\r\n", (body, b"end\r\n")), parked, facts, NOW, 5)

    [claimed] = await store.claim(NOW, 10)

    assert claimed.envelope == envelope
    assert (claimed.id, claimed.numbers, claimed.attempts) == ("one", (0, 1, 2, 3), (2, 0, 0, 0))
    assert (claimed.received, claimed.alone) == (NOW, True)
    assert claimed.facts == Facts("1xV0Ys-0004sm-35", "<odd\\udcff@example.org>", "2001:db8::1")
    message = await store.load("one")
    assert message is not None
    assert message.head == b"A: \xff\r\n\r\n"
    assert octets(message) == b"A: \xff\r\n\r\n" + body + b"end\r\n"
    assert states(store) == {"pending": 3, "uncertain": 1}


async def test_a_claimed_message_is_not_claimed_again(store: Store) -> None:
    await put(store, "one")

    first, second = await store.claim(NOW, 10), await store.claim(NOW + 1000, 10)

    assert [one.id for one in first] == ["one"]
    assert second == []
    assert store.counts().leased == 1


async def test_the_oldest_comes_first_and_not_more_than_asked_for(store: Store) -> None:
    for number in (3, 1, 4, 2, 5):
        await put(store, f"m{number}", now=NOW + number)

    claims = [[one.id for one in await store.claim(NOW + 9, 2)] for _ in range(4)]

    assert claims == [["m1", "m2"], ["m3", "m4"], ["m5"], []]


async def test_only_pending_recipients_that_are_due_are_claimed(store: Store) -> None:
    parked = (
        Parked("a@lists.test", "held", ""),
        Parked("b@lists.test", "pending", ""),
        Parked("c@lists.test", "failed", ""),
    )
    await put(store, "one", *parked)
    await put(store, "early", now=NOW + 60)

    [claimed] = await store.claim(NOW + 59, 10)

    assert (claimed.id, claimed.numbers, claimed.envelope.recipients) == ("one", (1,), ("b@lists.test",))
    assert states(store) == {"pending": 2, "held": 1, "failed": 1}


async def test_settling_each_recipient_its_own_way(store: Store) -> None:
    await put(store, "one", "a@lists.test", "b@lists.test", "c@lists.test", "d@lists.test")
    await store.claim(NOW, 1)

    settlements = [
        Settlement(0, "delivered", "250 ok"),
        Settlement(1, "pending", "451 later", uncertain=True, next_attempt=NOW + 10),
        Settlement(2, "failed", "550 no such list"),
        Settlement(3, "pending", "not reached", next_attempt=NOW + 5, tried=False, alone=True),
    ]
    await store.settle("one", settlements, NOW)

    assert states(store) == {"delivered": 1, "uncertain": 1, "failed": 1, "pending": 1}
    [again] = await store.claim(NOW + 5, 1)
    assert (again.numbers, again.attempts, again.alone) == ((3,), (0,), True)
    [later] = await store.claim(NOW + 10, 1)
    assert (later.numbers, later.attempts, later.alone) == ((1,), (1,), False)


async def test_uncertain_stays_uncertain(store: Store) -> None:
    await put(store, "one", Parked("a@lists.test", "pending", "", uncertain=True))
    await store.claim(NOW, 1)
    await store.settle("one", [Settlement(0, "pending", "451", next_attempt=NOW)], NOW)
    assert states(store) == {"uncertain": 1}


async def test_the_content_goes_with_the_last_recipient_and_history_after_a_day(store: Store) -> None:
    await put(store, "one", "a@lists.test", "b@lists.test", message=a_message(5000))
    await store.claim(NOW, 1)
    await store.settle("one", [Settlement(0, "delivered", "250")], NOW)
    assert store.counts().octets == 5000
    assert octets(await store.load("one"))

    await store.settle("one", [Settlement(1, "delivered", "250")], NOW + 1)

    assert store.counts().octets == 0
    assert states(store) == {"delivered": 2}
    assert (await store.tend(NOW + 86400)).purged == 0
    assert (await store.tend(NOW + 86402)).purged == 1
    assert states(store) == {}


async def test_settling_twice_or_what_is_not_leased_changes_nothing(store: Store) -> None:
    await put(store, "one")
    await store.settle("one", [Settlement(0, "failed", "550")], NOW)
    assert states(store) == {"pending": 1}
    await store.claim(NOW, 1)
    for _ in range(2):
        await store.settle("one", [Settlement(0, "pending", "451", next_attempt=NOW + 1)], NOW)
    [claimed] = await store.claim(NOW + 1, 1)
    assert claimed.attempts == (1,)


async def test_the_disk_gets_its_space_back(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def used() -> int:
        other = sqlite3.connect(tmp_path / "spool.db")
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        other.close()
        return (tmp_path / "spool.db").stat().st_size

    for n in range(3):
        await put(store, f"m{n}", message=a_message(3_000_000))
    full = used()
    for claimed in await store.claim(NOW, 2):
        await store.settle(claimed.id, [Settlement(0, "delivered", "250")], NOW)
    await store.tend(NOW)
    assert used() >= full > 9_000_000, "so little is kept for the next messages"
    monkeypatch.setattr("mailgate.edge.spool.work.FREE_KEPT", 2**20)
    await store.tend(NOW)
    assert 3_000_000 < used() < 5_000_000
    assert octets(await store.load("m2")) == octets(a_message(3_000_000))


async def test_what_was_put_off_while_the_clock_was_ahead_is_due(store: Store) -> None:
    wrong = NOW + 30 * 86400
    await put(store, "one", Parked("a@lists.test", "pending", "", attempts=1, next_attempt=wrong + 900), now=wrong)
    await put(store, "two", Parked("a@lists.test", "pending", "", attempts=1, next_attempt=NOW + 1100))
    await put_unscored(store, "three", Parked("a@lists.test", "held", AWAITS_SCORE), now=wrong)
    assert [claimed.id for claimed in await store.claim(NOW, 9)] == ["one"]
    assert [claimed.id for claimed in await store.claim_awaiting(NOW, NOW, 9)] == ["three"]


async def test_the_same_id_twice_is_refused_and_the_first_stays(store: Store) -> None:
    await put(store, "one", message=a_message(fill=b"1"))
    with pytest.raises(SpoolError, match="UNIQUE"):
        await put(store, "one", message=a_message(fill=b"2"))
    assert octets(await store.load("one")) == octets(a_message(fill=b"1"))
    assert states(store) == {"pending": 1}


@pytest.mark.parametrize("parked", [[], [Parked("a@lists.test", "delivered", "")], [Parked("a@lists.test", "odd", "")]])
async def test_nobody_to_keep_it_for_is_a_bug(store: Store, parked: list[Parked]) -> None:
    with pytest.raises(ValueError, match="one"):
        await store.store("one", Envelope("", ()), a_message(), parked, Facts(), NOW, 5)


async def test_max_bytes_is_exact_and_frees_itself(tmp_path: Path) -> None:
    async with spool(tmp_path, max_bytes="3000B") as store:
        await put(store, "one", message=a_message(1000))
        await put(store, "two", message=a_message(1000))
        with pytest.raises(SpoolFull, match=r"spool\.max_bytes: 2\.0 KiB of 2\.9 KiB are in use, 1001 B more"):
            await put(store, "many", message=a_message(1001))
        await put(store, "three", message=a_message(1000))
        with pytest.raises(SpoolFull, match="max_bytes"):
            await put(store, "four", message=a_message(100))

        await store.claim(NOW, 1)
        await store.settle("one", [Settlement(0, "delivered", "250")], NOW)
        await put(store, "four", message=a_message(1000))
        assert store.counts().octets == 3000


async def test_held_mail_leaves_room_for_an_outage(tmp_path: Path) -> None:
    held = Parked("a@lists.test", "held", "spam-hold")
    async with spool(tmp_path, max_bytes="4000B") as store:
        for n in range(3):
            await put(store, f"m{n}", held, message=a_message(1000))
        with pytest.raises(SpoolFull, match="the last 25% are not for mail that is held"):
            await put(store, "more", held, message=a_message(100))
        await put(store, "both", held, "b@lists.test", message=a_message(1000))
        assert states(store) == {"held": 4, "pending": 1}


async def test_limits_hold_within_one_commit(tmp_path: Path) -> None:
    async with spool(tmp_path, max_bytes="10000B") as store:
        tries = [put(store, f"m{n}", message=a_message(1000)) for n in range(30)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert results.count(None) == 10
        assert all(isinstance(result, SpoolFull) for result in results if result is not None)
        assert store.counts().octets == 10000


async def test_a_new_configuration_counts_at_once(tmp_path: Path) -> None:
    async with spool(tmp_path, max_bytes="100B") as store:
        with pytest.raises(SpoolFull):
            await put(store, "one")
        store.config = store.config.model_copy(update={"max_bytes": 2**30})
        await put(store, "one")


async def test_the_state_outlives_the_process(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put(store, "one", "a@lists.test", "b@lists.test")
        await store.claim(NOW, 1)
        await store.settle("one", [Settlement(0, "delivered", "250")], NOW)
    telemetry = Recorder()
    async with spool(tmp_path, telemetry) as store:
        assert states(store) == {"delivered": 1, "uncertain": 1}
        [opened] = telemetry.named("spool.opened")
        assert (opened["created"], opened["uncertain"], opened["ids"]) == (False, 1, ["one"])
        [claimed] = await store.claim(NOW, 1)
        assert (claimed.numbers, claimed.attempts) == ((1,), (1,))


async def test_counts_name_every_state(store: Store) -> None:
    counts = store.counts()
    assert tuple(counts.messages) == tuple(counts.recipients) == STATES
    assert (counts.octets, counts.oldest, counts.leased) == (0, None, 0)
    people = [Parked(f"{n}@lists.test", "pending", "", uncertain=n < 2) for n in range(5)]
    await put(store, "mixed", *people, now=NOW + 5)
    await put(store, "sure", now=NOW + 6)
    await put(store, "unsure", Parked("a@lists.test", "pending", "", uncertain=True), now=NOW + 7)
    counts = store.counts()
    assert {state: n for state, n in counts.messages.items() if n} == {"pending": 2, "uncertain": 2}
    assert states(store) == {"pending": 4, "uncertain": 3}
    assert counts.oldest == NOW + 5


async def test_nobody_else_can_read_the_files(store: Store, tmp_path: Path) -> None:
    await put(store, "one")
    for file in os.scandir(tmp_path):
        assert not file.stat().st_mode & 0o137, file.name
