"""Whatever Mailman's LMTP server does, nobody's mail is lost, nothing is refused that need not be, and a repeated
delivery has been announced as uncertain. The table is in failures.py; several gates play it at the same time.
"""

import re
import time
from dataclasses import dataclass
from typing import Any

import pytest

from mailgate.edge.spool.listing import Person
from tests.edge.failures import FAILED, GONE, PENDING, ROWS, SPOOLED, UNCERTAIN, Row
from tests.edge.pair import IMPATIENT, Pair, at_once, mail, started
from tests.edge.reading import SlowReader
from tests.stack.fake_session import Taken
from tests.stack.waiting import wait_until

GATES = 5
LONGEST = 20.0  # seconds that a client may have to wait: three of the gate's time-outs, and the machine busy


@dataclass
class Played:
    """What came of a row."""

    octets: bytes
    told: list[str]
    seconds: float
    event: dict[str, Any]
    replays: list[dict[str, Any]]
    kept: dict[str, Person]  # right after the reply if the failure lasts, else some time later
    last: dict[str, Person]
    taken: list[Taken]


@pytest.fixture(scope="module")
def played() -> dict[str, Played | Exception]:
    """All rows, played, each on a gate that plays one at a time."""
    rows = iter(list(enumerate(ROWS)))  # shared by the threads
    results: dict[str, Played | Exception] = {}

    def play_some(_: int) -> None:
        with started(IMPATIENT) as pair:
            for number, row in rows:
                try:
                    results[row.name] = _play(pair, row, f"<row-{number}@example.net>")
                except (AssertionError, OSError, EOFError, ValueError) as error:
                    results[row.name] = error  # for the row's own tests to say

    with at_once(GATES) as pool:
        list(pool.map(play_some, range(GATES)))
    return results


def _play(pair: Pair, row: Row, message_id: str) -> Played:
    fake, octets = pair.fake, mail(message_id, row.body)
    lasts = bool(row.script) and all(on.times is None for on in row.script)
    fake.behave()
    fake.refuse()  # no connection of the row before is left
    fake.manner = row.manner
    for on in row.script:
        fake.on(on.stage, on.act, only=on.only, times=on.times)
    if not row.refused:
        fake.accept()
    begun = time.monotonic()
    result = pair.send(*row.to, octets=octets, sender=row.sender, parameters=row.parameters)
    seconds = time.monotonic() - begun
    if lasts:
        wanted = {address: state for address, state in zip(row.to, row.kept, strict=True) if state}
        wait_until(lambda: pair.states(message_id) == wanted, f"{row.name}: the spool has {wanted}")
    kept = pair.people(message_id)
    if row.ends != FAILED:
        fake.behave()
    fake.accept()
    wait_until(lambda: _all(pair, message_id, row.ends), f"{row.name}: all {row.ends}")
    wait_until(pair.up, f"{row.name}: the breaker has closed")
    fake.behave()
    events = pair.gate.events(message_id=message_id)
    (event,) = [one for one in events if one["event"].startswith("message.")]
    replays = [one for one in events if one["event"].startswith("replay.")]
    taken = [one for one in list(fake.taken) if one.message_id == message_id]
    told = [str(reply) for reply in result.final]
    return Played(octets, told, seconds, event, replays, kept, pair.people(message_id), taken)


def _all(pair: Pair, message_id: str, state: str) -> bool:
    time.sleep(0.05)  # so many threads that look all the time would be a load
    return set(pair.states(message_id).values()) <= {state}


def test_each_row_has_its_name() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_told_and_kept_and_arrives(played: dict[str, Played | Exception], row: Row) -> None:
    found = _found(played, row)
    for said, wanted in zip(found.told, row.told, strict=True):
        assert re.fullmatch(_pattern(wanted), said), f"{said!r} is not {wanted!r}"
        assert found.event["id"] in said
    assert found.seconds < LONGEST
    assert [_kept(found.kept.get(address)) for address in row.to] == list(row.kept)
    assert [_announced(found.event["recipients"][address]) for address in row.to] == [
        state if state != FAILED else PENDING for state in row.kept
    ]
    assert {one.state for one in found.last.values()} <= {row.ends}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_how_often_it_arrives(played: dict[str, Played | Exception], row: Row) -> None:
    found = _found(played, row)
    for address, wanted in zip(row.to, row.arrives, strict=True):
        times = sum(address in one.recipients for one in found.taken)
        # A busy machine may let a time-out of ours pass while Mailman is well; then the replay has announced it.
        announced = sum(one["recipients"].get(address, "").startswith("uncertain: ") for one in found.replays)
        assert wanted <= times <= wanted + announced
    for one in found.taken:
        assert one.sender == row.sender
        assert re.fullmatch(_pattern(row.upstream), one.parameters)
        assert one.octets.endswith(found.octets)
        assert one.octets.count(b"\r\n") == one.octets.count(b"\n")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_arrives_twice_was_announced_as_uncertain(played: dict[str, Played | Exception], row: Row) -> None:
    found = _found(played, row)
    times = {address: sum(address in one.recipients for one in found.taken) for address in row.to}
    assert not [address for address in row.to if times[address] > 1 and not found.last[address].uncertain]
    said_delivered = [address for address, words in found.event["recipients"].items() if words.startswith("delivered")]
    assert not [address for address in said_delivered if times[address] == 0]


def _found(played: dict[str, Played | Exception], row: Row) -> Played:
    found = played[row.name]
    if isinstance(found, Exception):
        raise found
    return found


def _pattern(wanted: str) -> str:
    return re.escape(wanted).replace("…", "[0-9a-z]{18}").replace(r"\*", ".*")


def _kept(one: Person | None) -> str:
    if one is None:
        return GONE
    if one.uncertain:
        return UNCERTAIN
    return PENDING if one.state == "delivered" else one.state


def _announced(words: str) -> str:
    if not words.startswith("spooled: "):
        return GONE
    return UNCERTAIN if words.startswith("spooled: uncertain, ") else PENDING


@pytest.mark.parametrize("resets", [True, False], ids=["reset", "it reads no further"])
def test_breaking_in_the_body(resets: bool) -> None:
    """What was surely not sent to its end is not uncertain, and arrives once."""
    octets = mail("<large@example.net>", (b"x" * 900 + b"\r\n") * 9_000)
    with started(IMPATIENT) as pair:
        pair.fake.refuse()
        with SlowReader(pair.fake.port, 100_000, resets=resets) as slow:
            result = pair.send("a@lists.test", octets=octets)
            assert re.fullmatch(_pattern(SPOOLED), str(result.final[0]))
            assert slow.bodies > 0
            assert pair.states() == {"a@lists.test": "pending"}
        pair.fake.accept()
        pair.wait_drained()
        assert [one.octets.endswith(octets) for one in pair.fake.taken] == [True]
        assert not pair.people()["a@lists.test"].uncertain
        assert not pair.gate.events("library.warning")
