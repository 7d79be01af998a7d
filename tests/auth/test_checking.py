"""Faults of our own in the checks of a sender, put in from within: they cost results, never the mail or its time."""

import asyncio
import time
from typing import Any

import pytest

from mailgate.checking import Checking, Subject
from mailgate.config import parse
from mailgate.core.auth import Authenticated, Spf
from mailgate.core.envelope import Client, Envelope
from mailgate.core.facts import MessageFacts
from mailgate.core.message import Message
from mailgate.core.rules import Policy
from mailgate.core.scan import Scored, Skipped, Unscored
from mailgate.deadlines import Deadlines
from mailgate.edge.results import field
from tests.spam.kit import Watched

FOUND = Authenticated(spf=(Spf("pass", "mailfrom", "example.org", "a@example.org", ""),), dkim=())
OWN = Message(b"Subject: a\r\nX-Mailgate-Id: forged\r\n\r\n", ())
CLEAN = Message(b"Subject: a\r\n\r\n", ())
CLIENT = Client(ip="192.0.2.7", source="header")
SUBJECT = Subject("01m8112ytat08xvr1g", Envelope("a@example.org", ("list@lists.test",)), CLEAN, OWN, CLIENT, {})
POLICY = parse({}).for_rules
SCORED, SKIPPED = Scored(1.0, 5.0, "", "here"), Skipped("off")
UNSCORED = Unscored("timeout", "the scan did not end in time")
NOTHING_KNOWN = MessageFacts(hops=1, bounded=True)


class Part:
    """A scorer or an authenticator: says `says`, raises a `bug`, or `hangs`; `seen` are the messages it was given."""

    available = True

    def __init__(self, says: Any, *, bug: BaseException | None = None, hangs: bool = False) -> None:
        self._says, self._bug, self._hangs = says, bug, hangs
        self.seen: list[Message] = []
        self.began: list[float] = []

    async def scan(self, _envelope: Envelope, message: Message, *_: object) -> Any:
        return await self._said(message)

    async def check(self, _envelope: Envelope, message: Message, *_: object) -> Any:
        return await self._said(message)

    async def _said(self, message: Message) -> Any:
        self.seen.append(message)
        self.began.append(time.monotonic())
        if self._bug:
            raise self._bug
        await (asyncio.Event().wait() if self._hangs else asyncio.sleep(0))
        return self._says


def made(scorer: Part, authenticator: Part | None) -> tuple[Checking, Watched]:
    heard = Watched()
    checking = Checking(scorer, heard, Deadlines())
    checking.authenticator, checking.results = authenticator, field
    return checking, heard


async def checked(checking: Checking, facts: MessageFacts = NOTHING_KNOWN, policy: Policy = POLICY) -> MessageFacts:
    now = asyncio.get_running_loop().time()
    return await checking.check(facts, SUBJECT, policy, now, now)


async def test_both_are_found_out_and_each_sees_what_it_has_to() -> None:
    scorer, authenticator = Part(SCORED), Part(FOUND)
    checking, heard = made(scorer, authenticator)
    found = await checked(checking)
    assert (found.scan, found.auth) == (SCORED, FOUND)
    assert (scorer.seen, authenticator.seen) == ([CLEAN], [OWN])
    assert heard.value("auth_results_total", method="spf", result="pass") == 1
    assert heard.value("auth_results_total", method="dkim", result="none") == 1
    assert not checking.lacks(found, POLICY, CLIENT)
    assert heard.events() == []


async def test_what_hangs_is_given_up_and_holds_nobody_up() -> None:
    checking, heard = made(Part(SCORED, hangs=True), Part(FOUND, hangs=True))
    started = time.monotonic()
    found = await checked(checking)
    assert time.monotonic() - started < 20
    assert (found.scan, found.auth) == (UNSCORED, None)
    assert len(heard.events("auth.failed")) == 1


async def test_a_bug_costs_the_results_only() -> None:
    checking, heard = made(Part(SCORED), Part(FOUND, bug=ValueError("a bug")))
    found = await checked(checking)
    assert (found.scan, found.auth) == (SCORED, None)
    assert heard.value("auth_results_total", method="spf", result="pass") == 0
    assert len(heard.events("auth.failed")) == 1
    assert checking.field("gate.test", found, POLICY) == b"Authentication-Results: gate.test; none\r\n"


async def test_a_bug_in_the_scorer_is_one_of_the_doors() -> None:
    checking, heard = made(Part(SCORED, bug=ValueError("a bug")), Part(FOUND))
    with pytest.raises(ExceptionGroup):
        await checked(checking)
    heard.events()


async def test_a_cancellation_that_nobody_asked_for_costs_the_results_only() -> None:
    checking, heard = made(Part(SCORED, bug=asyncio.CancelledError()), Part(FOUND, bug=asyncio.CancelledError()))
    found = await checked(checking)
    assert (found.scan, found.auth) == (Unscored("error", "trouble of our own"), None)
    assert len(heard.events("auth.failed")) == 1
    assert len(heard.events("spam.failed")) == 1


OFF = parse({"auth": dict.fromkeys(("spf", "dkim", "dmarc", "arc"), False)}).for_rules


@pytest.mark.parametrize(
    ("facts", "policy", "scans", "checks"),
    [
        (NOTHING_KNOWN, POLICY, True, True),
        (NOTHING_KNOWN, OFF, True, False),
        (MessageFacts(1, bounded=True, scan=SKIPPED), POLICY, False, True),
        (MessageFacts(1, bounded=True, scan=SKIPPED), OFF, False, False),
        (MessageFacts(1, bounded=True, scan=SCORED, auth=FOUND), POLICY, False, False),
        (MessageFacts(1, bounded=True, auth=FOUND), POLICY, True, False),
    ],
)
async def test_nothing_is_found_out_that_is_known_or_not_wanted(
    facts: MessageFacts, policy: Policy, scans: bool, checks: bool
) -> None:
    scorer, authenticator = Part(SCORED), Part(FOUND)
    checking, heard = made(scorer, authenticator)
    assert checking.lacks(facts, policy, CLIENT) is (scans or checks)
    found = await checked(checking, facts, policy)
    assert (bool(scorer.seen), bool(authenticator.seen)) == (scans, checks)
    assert found.scan == (SCORED if scans else facts.scan)
    assert found.auth == (FOUND if checks else facts.auth)
    assert heard.events() == []


async def test_where_nobody_checks_nothing_is_said() -> None:
    checking, heard = made(Part(SCORED), None)
    found = await checked(checking)
    assert found.auth is None
    assert checking.field("gate.test", found, OFF) == b""
    assert heard.events() == []
