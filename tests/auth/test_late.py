"""A deadline that passes, and a cancellation that nobody asked for: results all the same, for all that is on."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from mailgate.core.auth import RecordType, Resolved
from mailgate.core.message import Message
from mailgate.edge.auth import Authentication, octets, spf
from mailgate.edge.auth.asking import Asked, Asking
from mailgate.turns import Turns
from tests.auth import desk
from tests.auth.keys import sign
from tests.spam.kit import Watched

NOTHING = Resolved("nxdomain")


class Silent:
    """A resolver that says nothing of names that begin with one of `on`, whatever its deadline, until it may."""

    def __init__(self, *on: str) -> None:
        self.on = on
        self.waits, self.may = asyncio.Event(), asyncio.Event()
        self.asked: list[str] = []

    async def resolve(self, name: str, _record: RecordType, _deadline: float) -> Resolved:
        self.asked.append(name)
        if name.startswith(self.on):
            self.waits.set()
            await self.may.wait()
        return NOTHING


@pytest_asyncio.fixture
async def silent() -> AsyncIterator[Silent]:
    """Silent on DMARC's records."""
    resolver = Silent("_dmarc.")
    yield resolver
    resolver.may.set()
    await asyncio.sleep(0)


async def test_a_record_that_nobody_answers_for_by_the_deadline_is_a_temperror(silent: Silent) -> None:
    """Whoever gave up the question at the deadline took the answer, and the session, from who asked it again."""
    heard = Watched()
    found = await desk.check(Authentication(silent, heard), seconds=0.2)
    assert found.dmarc is not None
    assert found.dmarc.result == "temperror"
    assert [one.result for one in found.spf] == ["none", "none"]
    assert found.dkim == ()
    assert heard.events() == []


class Spent:
    """A resolver with `zone` that answers at once; but silence on one of `on` lasts until there is no time any more,
    and nothing is answered after that.
    """

    def __init__(self, zone: dict[str, str], *on: str) -> None:
        self.zone, self.on, self.spent = zone, on, False

    async def resolve(self, name: str, _record: RecordType, _deadline: float) -> Resolved:
        if name in self.on:
            for _ in range(200):  # turns of the loop: how long they take tells nothing
                await asyncio.sleep(0)
            self.spent = True
        if self.spent:
            return Resolved("timeout")
        text = self.zone.get(name, "nxdomain")
        return Resolved("found", (text.encode(),)) if text != "nxdomain" else NOTHING


BANK = {"_dmarc.bank.test": "v=DMARC1; p=none; sp=none; np=reject"}
REJECT = {"_dmarc.bank.test": "v=DMARC1; p=reject"}


@pytest.mark.parametrize(
    ("zone", "froms", "sender", "silent", "domain"),
    [
        (REJECT, "ceo@bank.test", "x@evil.test", "evil.test", "bank.test"),
        (REJECT, "a@e1.test, ceo@bank.test", "x@b.test", "_dmarc.e1.test", "bank.test"),
        (REJECT, "ceo@bank.test, a@e1.test", "x@b.test", "_dmarc.e1.test", "bank.test"),
        (BANK, "a@e1.test, ceo@no.bank.test", "x@b.test", "_dmarc.e1.test", "no.bank.test"),
    ],
)
async def test_a_slow_name_server_of_somebody_elses_hides_no_policy(
    zone: dict[str, str], froms: str, sender: str, silent: str, domain: str
) -> None:
    """The time that the sender's, or another author's, name server takes is not that of the author's domain."""
    heard = Watched()
    mail = f"From: {froms}\r\nSubject: x\r\n\r\nx\r\n".encode()
    found = await desk.check(Authentication(Spent(zone, silent), heard), mail, sender=sender)
    assert found.dmarc is not None
    assert (found.dmarc.result, found.dmarc.policy, found.dmarc.domain) == ("fail", "reject", domain)
    assert heard.events() == []


async def test_a_signature_whose_key_is_not_answered_hides_no_policy() -> None:
    resolver = Spent({"_dmarc.example.test": "v=DMARC1; p=reject"}, "s._domainkey.evil.test")
    mail = sign(domain=b"evil.test")
    found = await desk.check(Authentication(resolver, Watched()), mail, sender="")
    assert found.dkim is not None
    assert found.dmarc is not None
    assert [one.result for one in found.dkim] == ["temperror"]
    assert (found.dmarc.result, found.dmarc.policy) == ("fail", "reject")


async def test_what_need_not_be_known_is_not_waited_for(silent: Silent) -> None:
    """SPF vouches for the author himself: where his organisation ends does not matter."""

    class Known(Silent):
        async def resolve(self, name: str, record: RecordType, deadline: float) -> Resolved:
            if name == "_dmarc.example.test":
                return Resolved("found", (b"v=DMARC1; p=reject",))
            if name == "example.test":
                return Resolved("found", (b"v=spf1 ip4:192.0.2.7 -all",))
            return await super().resolve(name, record, deadline)

    resolver = Known("_dmarc.")
    found = await desk.check(Authentication(resolver, Watched()), seconds=600)
    assert found.dmarc is not None
    assert found.dmarc.result == "pass"
    resolver.may.set()


async def test_who_gives_up_a_question_takes_it_from_nobody(silent: Silent, soon: float) -> None:
    asking = Asking(silent, Asked(soon, []), 5)
    hasty, patient = (asyncio.create_task(asking.ask("_dmarc.a.test", "TXT")) for _ in range(2))
    await silent.waits.wait()
    hasty.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hasty
    silent.may.set()
    assert await patient == NOTHING
    assert silent.asked == ["_dmarc.a.test"]


async def test_a_question_that_somebody_cancelled_was_not_answered(soon: float) -> None:
    class Cancelled(Silent):
        async def resolve(self, *_: object) -> Resolved:
            raise asyncio.CancelledError

    assert await Asking(Cancelled(), Asked(soon, []), 5).ask("a.test", "TXT") == Resolved("timeout")


async def test_a_signature_that_is_given_up_takes_the_digests_from_nobody() -> None:
    turns = Turns()
    bodies = octets.Bodies(Message(b"", (b"A line.\r\n",)), turns, ())
    async with turns:  # nobody else computes
        hasty, patient = (asyncio.create_task(bodies.digests(relaxed=True)) for _ in range(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        hasty.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hasty
    assert (await patient).length == len(b"A line.\r\n")


async def test_who_gives_up_a_message_gives_up_its_digests() -> None:
    turns = Turns()
    bodies = octets.Bodies(Message(b"", (b"A line.\r\n",)), turns, ())
    async with turns:
        waiting = asyncio.create_task(bodies.digests(relaxed=True))
        await asyncio.sleep(0)
        bodies.give_up()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_cancellation_that_nobody_asked_for_costs_one_result(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(spf, "check", check)
    heard = Watched()
    found = await desk.check(Authentication(Silent("-"), heard))
    assert [one.result for one in found.spf] == ["temperror"]
    assert found.dmarc is not None
    assert found.dmarc.result == "none"
    [event] = heard.events("auth.failed")
    assert "CancelledError" in event["trace"]


async def test_a_check_that_is_cancelled_ends(silent: Silent) -> None:
    checking = asyncio.create_task(desk.check(Authentication(silent, Watched())))
    await silent.waits.wait()
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
