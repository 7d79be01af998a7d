"""The story of one message at the verdict door: what the relay door would say of it, before Exim has accepted it.

Promises kept here: the rulebook and the scan are the relay door's, so both say the same; an end within
`verdict.budget` (6); whatever goes wrong costs the verdict, never the mail: the relay door does all checks itself (2).
How it fails: `judge` returns None after a bug (and the event `verdict.failed`), and Exim goes on with /defer_ok.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from mailgate.blocking import Blocking, Nothing
from mailgate.checking import Checking, Subject
from mailgate.config import Config
from mailgate.core import headers, origin, spam, spamc, story
from mailgate.core.envelope import Envelope, printable
from mailgate.core.facts import MessageFacts, of_message, told
from mailgate.core.limits import Limiter
from mailgate.core.message import LARGE_HEADER, Message
from mailgate.core.record import Record, digest
from mailgate.core.reply import Reply
from mailgate.core.rules import decide
from mailgate.core.spamc import Finding, Question
from mailgate.core.verdict import Action, Decision
from mailgate.deadlines import Deadlines
from mailgate.ports import Records, Scanner, Telemetry
from mailgate.strays import caught

_LARGE = 1024 * 1024  # octets of a message whose digest would hold the others up
_OFFENDERS = 20  # who went most over the limits: as many are told of
_NOTHING = Message(b"", ())


@dataclass(slots=True)
class _Case:
    """One message that is asked about. What stands below `facts` is filled in as it goes."""

    id: str
    peer: str
    asked: Question
    envelope: Envelope
    message: Message
    arrived: float  # seconds since the epoch
    began: float  # of the loop's clock, as is the deadline
    deadline: float
    facts: MessageFacts
    took: dict[str, float] = field(default_factory=dict)  # seconds by stage
    exim_id: str = ""
    message_id: str = ""


class VerdictDoor:
    """Look, judge, keep, tell. `config` may be replaced at any time, `blocking` at the start."""

    def __init__(
        self, config: Config, scanner: Scanner, records: Records, telemetry: Telemetry, new_id: Callable[[], str]
    ) -> None:
        self.config = config
        self._records = records
        self._telemetry = telemetry
        self._new_id = new_id
        self.blocking = Blocking(Nothing(), telemetry)
        self._deadlines = Deadlines()
        self.checking = Checking(scanner, telemetry, self._deadlines)
        self._limiter = Limiter()

    async def judge(self, peer: str, asked: Question, message: Message, deadline: float) -> Finding | None:
        """What is to be said of the message, by `deadline` (of the loop's clock); None after a bug of ours.

        `peer` is the address of who asks, "" on a unix socket.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        case = self._case(peer, asked, message, deadline)
        try:
            return await caught(self._story(case))
        except Exception:  # noqa: BLE001  promise 2: a bug of ours is no verdict
            failed = {**_named(case), "trace": traceback.format_exc()}
            self._telemetry.event("verdict.failed", failed, level="error")
            self._telemetry.count("messages", door="verdict", verdict="failed")
            return None
        finally:
            self._telemetry.observe("stage_seconds", loop.time() - started, case.id, stage="verdict")

    def turn_away(self, peer: str, asked: Question, refusal: Reply, reason: str) -> Finding:
        """The verdict on a message that the door did not keep (too large): what the relay door would say, too."""
        case = self._case(peer, asked, _NOTHING, 0.0)
        return self._found(case, Decision(Action.REJECT, (reason,), refusal))

    def offenders(self) -> list[dict[str, object]]:
        """Who was most often over a limit, the worst first. Any thread may ask."""
        return [asdict(one) for one in self._limiter.worst(self.config.for_limiter, time.monotonic(), _OFFENDERS)]

    def _case(self, peer: str, asked: Question, message: Message, deadline: float) -> _Case:
        envelope = (asked.envelope or Envelope("", ())).once()
        facts = MessageFacts(hops=0, bounded=False)
        now = asyncio.get_running_loop().time()
        return _Case(
            self._new_id(), peer, asked, envelope, message, time.time(), now, deadline, facts, exim_id=asked.exim_id
        )

    async def _story(self, case: _Case) -> Finding:
        received = case.message
        if len(case.message.head) > LARGE_HEADER:
            await self._deadlines.wait(asyncio.to_thread(self._read, case), case.deadline)
        else:
            self._read(case)
        self._look(case)
        policy = self.config.for_rules
        decision = decide(case.facts, policy)
        if decision.action is Action.ACCEPT and self.checking.lacks(case.facts, policy, case.asked.client):
            await self._check(case, received)
            decision = decide(case.facts, policy)
        await self._keep(case, decision)
        return self._found(case, decision)

    # look: what costs nothing to know

    def _read(self, case: _Case) -> None:
        message = case.message
        if message.bounded:
            clean = headers.cut(message.head, self.config.authserv_id)
            case.message = message = Message(clean, message.body, repaired=message.repaired)
            if case.asked.client.source == "unknown":  # the stock variant of Exim's condition does not say it
                case.asked = replace(case.asked, client=origin.by_received(message.exims_head))
            case.exim_id = case.exim_id or headers.own_exim_id(message.exims_head)
            case.message_id = story.message_id(headers.first(clean, b"message-id"))

    def _look(self, case: _Case) -> None:
        message, recipients = case.message, case.envelope.recipients
        skipped = spam.skipped(self.config.spam.policy, message.size, case.asked.client.ip, recipients)
        over = self._limiter.over(case.asked.client, case.envelope, self.config.for_limiter, time.monotonic())
        if over:
            self._telemetry.count("limited", limit=over)
        listed = self.blocking.look(self.config.for_rules, case.asked.client.ip)
        case.facts = replace(of_message(message, recipients, skipped, listed), limit=over)
        if skipped:
            self._telemetry.count("spam_scans", result="skipped", server="")

    # check: what costs time to know

    async def _check(self, case: _Case, received: Message) -> None:
        # No score here is not counted as mail that passed without one: the relay door asks again, and counts.
        now, limit = asyncio.get_running_loop().time(), case.deadline - self.config.verdict.writing
        subject = Subject(case.id, case.envelope, case.message, received, case.asked.client, case.took)
        scan_by, auth_by = (min(now + most, limit) for most in (self.config.spam.timeout, self.config.auth.timeout))
        case.facts = await self.checking.check(case.facts, subject, self.config.for_rules, scan_by, auth_by)

    # keep: what the relay door need not find out again

    async def _keep(self, case: _Case, decision: Decision) -> None:
        found = case.facts.scan
        if not case.exim_id or (found is None and decision.action in {Action.REJECT, Action.DEFER}):
            return  # without a scan there is the client to be remembered, where the message will be back
        large = case.message.size > _LARGE
        body = await asyncio.to_thread(digest, case.message) if large else digest(case.message)
        record = Record(
            case.id, case.arrived, case.asked.client, found, decision.action, decision.reasons, case.facts.auth
        )
        try:
            # The records keep the deadline themselves; this holds if they fail to.
            most = self.config.verdict.writing
            kept = self._records.keep(case.exim_id, body, record, most)
            await self._deadlines.wait(caught(kept), asyncio.get_running_loop().time() + most)
        except Exception:  # noqa: BLE001  the verdict stands without a record: the relay door scans again
            failed = {**_named(case), "trace": traceback.format_exc()}
            self._telemetry.event("verdict.not_kept", failed, level="error")

    # tell

    def _found(self, case: _Case, decision: Decision) -> Finding:
        limits = spam.thresholds(self.config.spam.policy, case.envelope.recipients)
        found = Finding(case.id, decision, case.facts.scan, limits)
        word = decision.action.word
        refused = decision.action in {Action.REJECT, Action.DEFER}
        self._telemetry.count("messages", door="verdict", verdict=word)
        if refused:  # all others come to the relay door, and are counted there
            for reason in decision.reasons:
                self._telemetry.count("reasons", reason=reason)
        self._telemetry.event(
            "verdict.given",
            {
                **_named(case),
                "verdict": word,
                "peer": case.peer,
                **origin.told(case.asked.client),
                **story.of_envelope(case.envelope),
                "recipients": [printable(recipient) for recipient in case.envelope.recipients],
                "bytes": case.message.size,
                "reasons": list(decision.reasons),
                "reply": str(spamc.reply(found) or ""),
                **told(case.facts),
                "seconds": {**case.took, "total": round(asyncio.get_running_loop().time() - case.began, 4)},
            },
            level="warning" if refused else "info",
        )
        return found


def _named(case: _Case) -> dict[str, object]:
    """The ids by which a message is found again."""
    return {"id": case.id, "exim_id": case.exim_id, "message_id": case.message_id}
