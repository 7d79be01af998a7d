"""What the verdict door found serves the relay door: for the same message only, decided anew, and never in its way."""

import asyncio
import itertools
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from mailgate.core.envelope import Client
from mailgate.core.message import Message
from mailgate.core.record import Miss, Record
from mailgate.core.scan import Skipped
from mailgate.core.verdict import Action
from mailgate.deadlines import Deadlines
from mailgate.joining import Joining
from tests.edge.pair import mail
from tests.spam.desk import LIST, marks
from tests.spam.kit import Watched
from tests.stack.waiting import wait_until
from tests.verdict.asking import EXIM_ID, Counter, ask, lines, open_counter, received, spamc

OTHER = "other@lists.test"
WORDS = ("joined", "no-id", "unknown", "expired", "changed", "trouble")
DELIVERED, HELD = "250 2.0.0 delivered: Ok", "250 2.0.0 held"
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def _counter() -> Iterator[Counter]:
    with open_counter() as counter:
        yield counter


@pytest.fixture
def counter(_counter: Counter) -> Counter:
    """A gate with the default policy and a scorer that is well."""
    _counter.put_in_order()
    _counter.policy()
    return _counter


def joined(counter: Counter) -> dict[str, float]:
    """How often a message was recognised, or why not."""
    samples = counter.gate.metrics()
    return {word: samples[f'mailgate_verdicts_joined_total{{result="{word}"}}'] for word in WORDS}


class Watch:
    """What a block added: scans, and messages recognised or not."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._scans, self._joined = counter.scorer.scans, joined(counter)

    @property
    def scans(self) -> int:
        return self._counter.scorer.scans - self._scans

    @property
    def joined(self) -> dict[str, float]:
        now = joined(self._counter)
        return {word: now[word] - before for word, before in self._joined.items() if now[word] != before}


def new_id() -> str:
    """An Exim id that nothing has been asked under."""
    return f"1x{next(_NUMBERS):04}-0004sm-35"


def asked(counter: Counter, *recipients: str, body: bytes = b"A line.\r\n") -> tuple[str, str]:
    """Exim asks about a message: its Exim id, and the action that it is told."""
    exim_id = new_id()
    _, question = counter.post(*recipients, exim_id=exim_id, body=body)
    return exim_id, lines(ask(counter.door, question))["Action"]


def test_it_is_not_scanned_again_and_its_client_is_known(counter: Counter) -> None:
    counter.scores(3.2)
    exim_id, action = asked(counter)
    assert action == "add header"
    watch = Watch(counter)
    before = counter.gate.metric("mailgate_origin_total", source="verdict")
    sent = counter.send(head=received(exim_id) + b"X-Mailgate-Client: ip=198.51.100.9; helo=liar\r\n")
    assert counter.said == [DELIVERED]
    assert (watch.scans, watch.joined) == (0, {"joined": 1})
    assert counter.gate.metric("mailgate_origin_total", source="verdict") == before + 1
    assert counter.taken(sent)["X-Spam-Score"] == "3.2 (+++)"
    event = counter.event(sent)
    assert (event["client"], event["score"], event["reasons"]) == ("192.0.2.7", 3.2, ["spam-tag"])
    given = counter.gate.wait_for_event("verdict.given", exim_id=exim_id)
    assert given["id"] == event["verdict_id"]


def test_the_stock_variant_does_not_say_who_the_client_is(counter: Counter) -> None:
    counter.scores(3.2)
    exim_id = new_id()
    said = ask(counter.door, spamc(received(exim_id) + mail("<stock@example.net>")), half=True)
    assert said.startswith("SPAMD/1.1 0 EX_OK\r\n")
    watch = Watch(counter)
    before = counter.gate.metric("mailgate_origin_total", source="header")
    sent = counter.send(head=received(exim_id) + b"X-Mailgate-Client: ip=198.51.100.9; helo=mx.example.net\r\n")
    assert (watch.scans, watch.joined) == (0, {"joined": 1})
    assert counter.event(sent)["client"] == "198.51.100.9"
    assert counter.gate.metric("mailgate_origin_total", source="header") == before + 1


def test_it_may_come_in_several_transactions_with_other_fields(counter: Counter) -> None:
    counter.scores(0.3)
    exim_id, _ = asked(counter, LIST, OTHER)
    watch = Watch(counter)
    counter.send(LIST, head=received(exim_id) + b"X-Added-By: an ACL\r\n")
    counter.send(OTHER, head=received(exim_id))
    assert (watch.scans, watch.joined) == (0, {"joined": 2})


@pytest.mark.parametrize(
    ("late", "said"),
    [("hold", HELD), ("discard", "250 2.0.0 discarded"), ("reject", "550 5.7.1 taken for spam: it scores 7.2")],
)
def test_an_exim_that_did_not_obey(counter: Counter, late: str, said: str) -> None:
    counter.policy(late=late)
    counter.scores(7.2)
    exim_id, action = asked(counter)
    assert action == "reject"
    watch = Watch(counter)
    counter.send(head=received(exim_id))
    assert counter.said == [said]
    assert (watch.scans, watch.joined) == (0, {"joined": 1})


def test_what_is_to_be_held_is_held_for_all_its_recipients(counter: Counter) -> None:
    counter.policy(lists=[{"match": OTHER, "hold_score": 2.0}])
    counter.scores(2.5)
    exim_id, action = asked(counter, LIST, OTHER)
    assert action == "add header"  # Exim takes it
    watch = Watch(counter)
    held = [counter.send(one, head=received(exim_id)) for one in (OTHER, LIST)]
    assert watch.scans == 0
    assert [counter.state(sent) for sent in held] == [{"held"}] * 2
    assert counter.replies(held[1]) == {"spam-hold (score 2.5)"}


def test_the_policy_of_now_decides(counter: Counter) -> None:
    counter.scores(3.2)
    exim_id, action = asked(counter)
    assert action == "add header"
    counter.policy(hold_score=3.0)
    counter.send(head=received(exim_id))
    assert counter.said == [HELD]


def test_who_was_not_scored_then_is_asked_for_again(counter: Counter) -> None:
    counter.scores(7.2)
    counter.fails()
    exim_id, action = asked(counter)
    assert action == "no action"
    counter.put_in_order()
    counter.scores(7.2)
    watch = Watch(counter)
    counter.send(head=received(exim_id))
    assert counter.said == [HELD]
    assert (watch.scans, watch.joined) == (1, {"joined": 1})


def test_what_was_held_for_want_of_a_score_goes_on_with_one(counter: Counter) -> None:
    counter.policy(on_failure="hold")
    counter.fails()
    exim_id, _ = asked(counter)
    counter.put_in_order()
    counter.scores(0.3)
    counter.send(head=received(exim_id))
    assert counter.said == [DELIVERED]


def test_what_was_skipped_is_skipped_by_the_client_that_exim_named(counter: Counter) -> None:
    counter.policy(skip_networks=["192.0.2.0/24"])
    counter.scores(7.2)
    skipped = counter.gate.metric("mailgate_spam_scans_total", result="skipped", server="")
    exim_id, _ = asked(counter)
    watch = Watch(counter)
    sent = counter.send(head=received(exim_id))
    assert counter.said == [DELIVERED]
    assert (watch.scans, watch.joined) == (0, {"joined": 1})
    assert marks(counter.taken(sent))["X-Mailgate-Scan"] == "skipped; reason=trusted-network"
    assert counter.gate.metric("mailgate_spam_scans_total", result="skipped", server="") == skipped + 1


def test_a_large_message_is_recognised(counter: Counter) -> None:
    counter.policy(max_size="25MiB")
    counter.scores(0.3)
    body = b"".join(b"line %09d of the scan\r\n" % number for number in range(400_000))
    exim_id, _ = asked(counter, body=body)
    watch = Watch(counter)
    counter.send(head=received(exim_id), body=body)
    assert counter.said == [DELIVERED]
    assert (watch.scans, watch.joined) == (0, {"joined": 1})


# who is not recognised


def _elsewhere(exim_id: str) -> bytes:
    return f"Received: from x (helo=y id {exim_id}; )\r\n\tby mx.lists.test;\r\n\tnow\r\n".encode()


def _with_a_cr(exim_id: str) -> bytes:
    return received(exim_id).replace(b"from mx", b"from a\r\tmx")


def test_a_received_with_a_bare_cr_may_be_anybodys(counter: Counter) -> None:
    told = received().replace(b"from mx.example.net", b"from [192.0.2.7] (helo=x)\r\n\tby mx.lists.test")
    for head, client, exim_id in ((told, "192.0.2.7", EXIM_ID), (told.replace(b"helo=", b"helo=\r\t"), "", "")):
        message_id = f"<{len(head)}@example.net>"
        ask(counter.door, spamc(head + mail(message_id)), half=True)
        event = counter.verdict(message_id)
        assert (event["client"], event["exim_id"]) == (client, exim_id)


@pytest.mark.parametrize(
    ("why", "head"),
    [
        ("no-id", lambda _: b""),
        ("no-id", _elsewhere),
        ("no-id", _with_a_cr),
        ("no-id", lambda exim_id: b"Received: by another;\r\n\tnow\r\n" + received(exim_id)),
        ("no-id", lambda exim_id: b"X-Mailgate-Client: ip=192.0.2.7; eid=" + exim_id.encode() + b"\r\n"),
        ("unknown", lambda exim_id: received(new_id()) + received(exim_id)),
        ("unknown", lambda exim_id: received(exim_id.swapcase())),
        ("changed", received),
    ],
)
def test_who_forges_is_scanned(counter: Counter, why: str, head: object) -> None:
    assert callable(head)
    counter.scores(0.3)
    exim_id, action = asked(counter)
    assert action == "no action"
    counter.scores(7.2)
    watch = Watch(counter)
    counter.send(head=head(exim_id), body=b"An offer.\r\n" if why == "changed" else b"A line.\r\n")
    assert counter.said == [HELD]
    assert (watch.scans, watch.joined) == (1, {why: 1})


def test_a_record_that_is_too_old_is_not_used(counter: Counter) -> None:
    counter.scores(0.3)
    exim_id, _ = asked(counter)
    with closing(sqlite3.connect(counter.gate.spool)) as other:
        other.execute("UPDATE verdicts SET at = ? WHERE exim_id = ?", (time.time() - 90_000, exim_id))
        other.commit()
    watch = Watch(counter)
    counter.send(head=received(exim_id))
    assert counter.said == [DELIVERED]
    assert (watch.scans, watch.joined) == (1, {"expired": 1})


def test_garbage_in_its_place_is_not_used(counter: Counter) -> None:
    counter.scores(0.3)
    exim_id, _ = asked(counter)
    with closing(sqlite3.connect(counter.gate.spool)) as other:
        other.execute("UPDATE verdicts SET record = ? WHERE exim_id = ?", (json.dumps({"version": 1}), exim_id))
        other.commit()
    watch = Watch(counter)
    counter.send(head=received(exim_id))
    assert counter.said == [DELIVERED]
    assert (watch.scans, watch.joined) == (1, {"trouble": 1})


# trouble costs a scan, never mail


def test_without_a_spool_the_verdict_is_given_and_the_mail_flows() -> None:
    with open_counter({"spool": {"url": "sqlite:////proc/none/spool.db"}}) as counter:
        counter.put_in_order()
        counter.scores(7.2)
        _, action = asked(counter)
        assert action == "reject"
        counter.scores(0.3)
        exim_id, action = asked(counter)
        assert action == "no action"
        counter.send(head=received(exim_id))
        assert counter.said == [DELIVERED]
        assert joined(counter)["trouble"] == 1
        wait_until(lambda: len(counter.gate.events("records.failed")) == 1, "the log says so")


def test_on_a_full_disk_the_verdict_is_given_and_the_mail_flows() -> None:
    with open_counter({"spool": {"min_free": "99.9%"}}) as counter:
        counter.put_in_order()
        counter.scores(0.3)
        exim_id, action = asked(counter)
        assert action == "no action"
        counter.send(head=received(exim_id))
        assert counter.said == [DELIVERED]
        assert joined(counter)["unknown"] == 1
        wait_until(lambda: len(counter.gate.events("records.failed")) == 1, "the log says so")


class Bad:
    """Records with a bug, or that never answer."""

    def __init__(self, error: BaseException | None = None) -> None:
        self._error = error

    async def keep(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    async def find(self, *_: Any, **__: Any) -> Record | Miss:
        if self._error:
            raise self._error
        await asyncio.sleep(60)
        return Record("", 0.0, Client(), Skipped("off"), Action.ACCEPT, ())


MESSAGE = Message(received() + b"\r\n", (b"A line.\r\n",))


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("a bug"), MemoryError()], ids=repr)
async def test_a_bug_in_the_records_is_no_more_than_a_miss(error: Exception) -> None:
    watched = Watched()
    assert await Joining(Bad(error), watched, Deadlines()).find(MESSAGE, 1) is Miss.TROUBLE
    assert watched.value("verdicts_joined_total", result="trouble") == 1
    [event] = watched.events("records.failed")
    assert type(error).__name__ in event["trace"]


async def test_records_that_never_answer_are_not_waited_for() -> None:
    watched = Watched()
    began = time.monotonic()
    assert await Joining(Bad(), watched, Deadlines()).find(MESSAGE, 0.2) is Miss.TROUBLE
    assert time.monotonic() - began < 20
