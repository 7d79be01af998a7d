"""Faults of our own at the verdict door, put in from within: no verdict, or one without a record; never a refusal."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mailgate import config as configuration
from mailgate.core import headers
from mailgate.core.envelope import Client, Envelope
from mailgate.core.message import Message
from mailgate.core.record import Miss, Record, digest
from mailgate.core.scan import Scored, Unscored
from mailgate.edge.verdictport import VerdictPort
from mailgate.relay import new_gate_id
from mailgate.verdict import VerdictDoor
from tests.edge.pair import mail
from tests.edge.test_own_faults import BUGS
from tests.spam.kit import Watched
from tests.spool.test_loop import LIMIT, ROUNDS, lag_of
from tests.stack.mails import big
from tests.stack.ports import Port
from tests.verdict.asking import EXIM_ID, ask, lines, received, rspamc

QUESTION = rspamc(received() + mail("<own@example.net>"))


class Scorer:
    """Says 7.2, but for what is put in."""

    available = True

    def __init__(self) -> None:
        self.bug: Exception | None = None
        self.hangs = False
        self.seen: list[tuple[Envelope, Message, Client]] = []

    async def scan(self, envelope: Envelope, message: Message, client: Client, *_: object) -> Scored | Unscored:
        self.seen.append((envelope, message, client))
        if self.bug:
            raise self.bug
        if self.hangs:
            await asyncio.Event().wait()
        return Scored(7.2, 5.0, "", "here")


class Records:
    """Keeps everything, but for what is put in."""

    def __init__(self) -> None:
        self.bug: Exception | None = None
        self.hangs = False
        self.kept: dict[tuple[str, str], Record] = {}

    async def keep(self, exim_id: str, of: str, record: Record, _timeout: float) -> None:
        if self.bug:
            raise self.bug
        if self.hangs:
            await asyncio.Event().wait()
        self.kept[exim_id, of] = record

    async def find(self, *_: object) -> Record | Miss:
        return Miss.UNKNOWN


class Door:
    """A verdict door in this process."""

    def __init__(self) -> None:
        self.port = Port()
        self.telemetry = Watched()
        self.scorer, self.records = Scorer(), Records()
        verdict = {"listen": [str(self.port)], "budget": "3s"}
        self.config = configuration.parse({"hostname": "gate.lists.test", "verdict": verdict})
        self.story = VerdictDoor(self.config, self.scorer, self.records, self.telemetry, new_gate_id)
        self.door = VerdictPort(self.config, self.story.judge, self.story.turn_away, self.telemetry)

    async def ask(self, question: bytes = QUESTION) -> str:
        """The answer."""
        return await asyncio.to_thread(ask, self.port.address, question)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with opened() as one:
        yield one


@asynccontextmanager
async def opened() -> AsyncIterator[Door]:
    """A door that is drained in the end."""
    one = Door()
    await one.door.start()
    try:
        yield one
        assert await one.door.drain(60)
        assert one.door.in_flight == 0
    finally:
        await one.door.stop()
        one.port.close()


NO_VERDICT = "RSPAMD/1.3 75 EX_TEMPFAIL trouble of our own\r\n"


async def test_a_large_header_is_not_the_loops_work(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def cut(head: bytes, our_authserv_id: str) -> bytes:
        threads.append(threading.current_thread() is threading.main_thread())
        return real(head, our_authserv_id)

    real = headers.cut
    monkeypatch.setattr(headers, "cut", cut)
    for count, loops in ((1, True), (2500, False)):
        octets = received() + b"Authentication-Results: gate.lists.test\r\n" * count + mail("<large@example.net>")
        assert lines(await door.ask(rspamc(octets)))["Action"] == "reject"
        assert threads.pop() is loops
        assert door.scorer.seen[-1][1].head.count(b"Authentication-Results") == 0


@pytest.mark.parametrize("bug", BUGS, ids=repr)
async def test_a_bug_in_the_story(door: Door, bug: Exception) -> None:
    door.scorer.bug = bug
    assert await door.ask() == NO_VERDICT
    door.scorer.bug = None
    assert lines(await door.ask())["Action"] == "reject"
    assert door.telemetry.value("messages_total", door="verdict", verdict="failed") == 1
    [event] = door.telemetry.events("verdict.failed")
    assert type(bug).__name__ in event["trace"]
    assert event["exim_id"] == EXIM_ID


@pytest.mark.parametrize("bug", BUGS, ids=repr)
async def test_a_bug_in_the_records_costs_the_record_only(door: Door, bug: Exception) -> None:
    door.records.bug = bug
    assert lines(await door.ask())["Action"] == "reject"
    assert door.records.kept == {}
    [event] = door.telemetry.events("verdict.not_kept")
    assert type(bug).__name__ in event["trace"]


@pytest.mark.parametrize("bug", BUGS, ids=repr)
async def test_a_bug_beyond_the_story(door: Door, bug: Exception) -> None:
    async def judge(*_: object) -> None:
        raise bug

    door.door.judge = judge
    assert await door.ask() == NO_VERDICT
    door.door.judge = door.story.judge
    assert lines(await door.ask())["Action"] == "reject"
    [event] = door.telemetry.events("session.failed")
    assert type(bug).__name__ in event["trace"]


async def test_a_scanner_that_forgets_the_time(door: Door) -> None:
    door.scorer.hangs = True
    async with asyncio.timeout(60):
        said = lines(await door.ask())
    assert (said["Action"], said["Scan"]) == ("no action", "unscored; reason=timeout")


async def test_records_that_forget_the_time(door: Door) -> None:
    door.records.hangs = True
    async with asyncio.timeout(60):
        assert lines(await door.ask())["Action"] == "reject"
    assert door.records.kept == {}


async def test_what_is_kept(door: Door) -> None:
    said = lines(await door.ask())
    [(envelope, message, client)] = door.scorer.seen
    assert b"".join(message.chunks) == received() + mail("<own@example.net>")
    assert envelope == Envelope("ida@example.org", ("list@lists.test",))
    assert client == Client("192.0.2.7", "mx.example.net", "mx.example.net", source="verdict")
    [((exim_id, of), record)] = door.records.kept.items()
    assert (exim_id, of) == (EXIM_ID, digest(message))
    assert (record.gate_id, record.client, record.reasons) == (said["Id"], client, ("spam-reject",))
    assert record.scan == Scored(7.2, 5.0, "", "here")


@pytest.mark.parametrize("hops", [0, 101])
async def test_nothing_is_kept_without_an_id_or_a_scan(door: Door, hops: int) -> None:
    octets = received("") * hops + mail("<none@example.net>")
    await door.ask(rspamc(octets, exim_id="" if not hops else EXIM_ID))
    assert door.records.kept == {}


async def test_forty_mebibytes_do_not_stop_the_loop(door: Door) -> None:
    octets = received() + big(39 * 2**20).octets
    question = rspamc(octets)
    lags = []
    for _ in range(ROUNDS):
        lags.append(await lag_of(door.ask(question)))
        if lags[-1] < LIMIT:
            break
    assert min(lags) < LIMIT, lags
    [(_, of)] = door.records.kept
    head, _, body = octets.partition(b"\r\n\r\n")
    assert of == digest(Message(head, (body,)))
