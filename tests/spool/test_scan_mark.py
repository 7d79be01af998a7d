"""What the spool knows of spam scans: the mark of a message, and who is held until there is a score."""

from pathlib import Path

from sqlalchemy import create_engine, text

from mailgate.core.envelope import Envelope
from mailgate.core.spam import AWAITS_SCORE
from mailgate.edge.spool import Store
from mailgate.edge.spool.listing import Selection
from mailgate.edge.spool.verbs import hold, release
from mailgate.ports import Facts, Parked, Settlement
from tests.spool.kit import NOW, a_message, octets, put, spool, states

UNSCORED = "unscored:timeout"
A, B, C = "a@lists.test", "b@lists.test", "c@lists.test"


async def put_unscored(store: Store, gate_id: str, *parked: Parked, now: float = NOW) -> None:
    """Store a message that came in unscored."""
    envelope = Envelope("ann@example.org", tuple(one.recipient for one in parked))
    await store.store(gate_id, envelope, a_message(), parked, Facts(scan=UNSCORED), now, 5)


def waiting(recipient: str = A) -> Parked:
    return Parked(recipient, "held", AWAITS_SCORE)


async def test_the_mark_comes_back_and_is_replaced_when_settled(store: Store) -> None:
    await put_unscored(store, "one", Parked(A, "pending", ""))
    [first] = await store.claim(NOW, 10)
    again = [Settlement(0, "pending", "450 busy", next_attempt=NOW + 1)]
    await store.settle("one", again, NOW)
    [second] = await store.claim(NOW + 1, 10)
    await store.settle("one", again, NOW, 'scored:[7.2, 4.0, "é", "s"]')
    [third] = await store.claim(NOW + 1, 10)
    marks = [one.facts.scan for one in (first, second, third)]
    assert marks == [UNSCORED, UNSCORED, 'scored:[7.2, 4.0, "é", "s"]']


async def test_one_score_is_for_all_pending_recipients_due_or_not(store: Store) -> None:
    await put_unscored(store, "one", *(Parked(one, "pending", "") for one in (A, B)), Parked(C, "held", "by hand"))
    await store.claim(NOW, 10)
    later = [Settlement(0, "pending", "", next_attempt=NOW + 5), Settlement(1, "pending", "", next_attempt=NOW + 600)]
    await store.settle("one", later, NOW)
    [claimed] = await store.claim(NOW + 5, 10)
    assert claimed.envelope.recipients == (A, B)
    await store.settle("one", later, NOW, "scored:[0, 4, 0, 0]")
    [claimed] = await store.claim(NOW + 5, 10)
    assert claimed.envelope.recipients == (A,)


async def test_who_waits_for_a_score_is_claimed_apart(store: Store) -> None:
    await put_unscored(store, "one", waiting(), Parked(B, "held", "spam-hold (score 5.0)"))
    await put_unscored(store, "two", Parked(A, "held", "by hand"))
    await put_unscored(store, "three", waiting(), now=NOW + 50)
    assert await store.claim(NOW + 100, 10) == []
    [claimed] = await store.claim_awaiting(NOW + 100, NOW + 50, 10)
    assert (claimed.id, claimed.envelope.recipients, claimed.held) == ("one", (A,), True)
    assert [one.id for one in await store.claim_awaiting(NOW + 100, NOW + 51, 10)] == ["three"]  # `one` is leased
    assert states(store) == {"held": 4}


async def test_who_goes_on_waiting_is_asked_for_again_at_his_time(store: Store) -> None:
    await put_unscored(store, "one", waiting())
    await store.claim_awaiting(NOW, NOW + 1, 10)
    await store.settle("one", [Settlement(0, "held", "", next_attempt=NOW + 10, tried=False)], NOW)
    assert await store.claim_awaiting(NOW + 9, NOW + 1, 10) == []
    [claimed] = await store.claim_awaiting(NOW + 10, NOW + 1, 10)
    assert (claimed.attempts, claimed.envelope.recipients) == ((0,), (A,))


async def test_oldest_first_and_no_more_than_asked_for(store: Store) -> None:
    for number in (3, 1, 2):
        await put_unscored(store, f"m{number}", waiting(), now=NOW + number)
    claims = [[one.id for one in await store.claim_awaiting(NOW + 9, NOW + 9, 2)] for _ in range(3)]
    assert claims == [["m1", "m2"], ["m3"], []]


async def test_an_empty_reply_leaves_the_last_one(store: Store) -> None:
    await put(store, "one", A)
    await store.claim(NOW, 10)
    await store.settle("one", [Settlement(0, "pending", "450 busy", next_attempt=NOW)], NOW)
    await store.claim(NOW, 10)
    await store.settle("one", [Settlement(0, "held", "", tried=False)], NOW)
    replies = store.database.read(lambda c: list(c.execute(text("SELECT reply FROM recipients")).scalars()))
    assert replies == ["450 busy"]


async def test_what_is_dropped_takes_its_content_with_it(store: Store) -> None:
    await put_unscored(store, "one", waiting())
    await store.claim_awaiting(NOW, NOW + 1, 10)
    await store.settle("one", [Settlement(0, "dropped", "spam-reject", tried=False)], NOW)
    assert (states(store), store.counts().octets) == ({"dropped": 1}, 0)


async def test_an_operator_who_releases_and_holds_has_the_last_word(store: Store) -> None:
    await put_unscored(store, "one", waiting())
    chosen = Selection(ids=("one",))
    assert list(release(store.database, chosen, NOW))
    assert list(hold(store.database, chosen, NOW))
    assert await store.claim_awaiting(NOW + 9, NOW + 9, 10) == []
    assert states(store) == {"held": 1}


async def test_a_gate_that_died_while_it_scored_asks_again(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put_unscored(store, "one", waiting())
        await store.claim_awaiting(NOW, NOW + 1, 10)
    async with spool(tmp_path) as store:
        [claimed] = await store.claim_awaiting(NOW, NOW + 1, 10)
        assert claimed.held


async def test_a_spool_of_version_1_opens(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put(store, "one", A)
    engine = create_engine(f"sqlite:///{tmp_path}/spool.db")
    with engine.begin() as connection:  # as version 1 made it
        connection.execute(text("ALTER TABLE messages DROP COLUMN scan"))
        connection.execute(text("UPDATE meta SET value = '1' WHERE key = 'version'"))
    engine.dispose()
    async with spool(tmp_path) as store:
        [claimed] = await store.claim(NOW, 10)
        assert (claimed.id, claimed.facts.scan, claimed.held) == ("one", "", False)
        assert octets(await store.load("one")) == octets(a_message())
