"""The story of one message at the relay door, from the final dot to the replies.

Promises kept here: a 250 only for what Mailman took or the disk has (1); our own trouble is a 4xx (2); as many replies
as recipients on every path (3); octets stay as they are but for our header (4); an end within `relay.budget` (6).
How it fails: whatever goes wrong, `handle` returns replies; a bug is a 451 for all and the event `message.failed`.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Callable

from mailgate import ports
from mailgate.blocking import Blocking, Nothing
from mailgate.case import Case
from mailgate.checking import Checking, Subject
from mailgate.config import Config
from mailgate.core import answer, headers, origin, scan, spam, stamp, story
from mailgate.core.envelope import Envelope, Peer
from mailgate.core.facts import of_message
from mailgate.core.fate import fate
from mailgate.core.ids import gate_id
from mailgate.core.message import LARGE_HEADER, Message
from mailgate.core.outcome import Outcome, Result
from mailgate.core.record import Miss
from mailgate.core.reply import Reply
from mailgate.core.retry import delay
from mailgate.core.rules import UNSCORED, after_acceptance, completed, decide
from mailgate.core.scan import Scan, Scored, Unscored
from mailgate.core.triage import all_alike, silence
from mailgate.core.verdict import Action, Decision
from mailgate.deadlines import Deadlines
from mailgate.joining import Joining
from mailgate.ports import Parked, Records, Scanner, Spool, SpoolError, SpoolFull, Telemetry, Upstream, Valve
from mailgate.strays import caught

_GRACE = 1.0  # seconds past its deadline after which an edge that should have answered is not waited for


def new_gate_id() -> str:
    """A fresh gate id."""
    return gate_id(time.time(), random.getrandbits(40))  # unique is enough, and no system call


class Relay:
    """Judge, stamp, deliver or spool, answer. `config` may be replaced at any time, `blocking` at the start."""

    def __init__(
        self,
        config: Config,
        scanner: Scanner,
        upstream: Upstream,
        spool: Spool,
        valve: Valve,
        telemetry: Telemetry,
        new_id: Callable[[], str] = new_gate_id,
        records: Records | None = None,
    ) -> None:
        """`records` are those of the verdict door, None without one."""
        self.config = config
        self._upstream = upstream
        self._spool = spool
        self._valve = valve
        self._telemetry = telemetry
        self._new_id = new_id
        self._deadlines = Deadlines()
        self.checking = Checking(scanner, telemetry, self._deadlines)
        self.blocking = Blocking(Nothing(), telemetry)
        self._joining = Joining(records, telemetry, self._deadlines) if records else None

    async def handle(self, peer: Peer, envelope: Envelope, message: Message) -> tuple[Reply, ...]:
        """A reply for each recipient of the envelope, in order, duplicates included (on the SMTP door all the same)."""
        clock = asyncio.get_running_loop().time
        now = clock()
        deadline = now + self.config.relay.budget
        case = Case(self._new_id(), peer, envelope.once(), message, time.time(), clock, now, deadline)
        try:
            said = await caught(self._story(case))
        except Exception:  # noqa: BLE001  promise 2: any bug of ours is a 4xx
            self._telemetry.event("message.failed", case.failed(traceback.format_exc()), level="error")
            self._telemetry.count("messages", door=peer.door, verdict="failed")
            said = dict.fromkeys(case.envelope.recipients, (answer.DEFERRED, answer.trouble(case.id)))
        self._telemetry.observe("stage_seconds", clock() - now, case.id, stage="total")
        for word, _ in said.values():
            self._telemetry.count("recipients", outcome=word)
        return tuple([said[recipient][1] for recipient in envelope.recipients])

    def turn_away(self, peer: Peer, envelope: Envelope, reply: Reply, reason: str) -> tuple[Reply, ...]:
        """The replies for a message that the door had to refuse unread (too large, no room), told like any other."""
        action = Action.REJECT if reply.permanent else Action.DEFER
        self._telemetry.count("messages", door=peer.door, verdict=action.word)
        self._telemetry.count("reasons", reason=reason)
        clock = asyncio.get_running_loop().time
        now = clock()
        case = Case(self._new_id(), peer, envelope, Message(b"", ()), time.time(), clock, now, now)
        said = self._turned_away(case, Decision(action, (reason,), reply))
        for word, _ in said.values():
            self._telemetry.count("recipients", outcome=word)
        return tuple(said[recipient][1] for recipient in envelope.recipients)

    async def _story(self, case: Case) -> dict[str, tuple[str, Reply]]:
        case.received, case.octets = case.message, case.message.size
        self._telemetry.observe("message_bytes", case.octets)
        if len(case.message.head) > LARGE_HEADER:
            await self._deadlines.wait(asyncio.to_thread(self._read, case), case.deadline)
        else:
            self._read(case)
        if self._joining and case.message.bounded and case.peer.client is None:
            await self._join(case, self._joining)
        self._look(case)
        policy = self.config.for_rules
        decision = decide(case.facts, policy)
        if decision.action is Action.ACCEPT and self.checking.lacks(case.facts, policy, case.client):
            await self._check(case)
            decision = decide(case.facts, policy)
        decision = after_acceptance(completed(decision, case.asked), policy)
        self._telemetry.count("messages", door=case.peer.door, verdict=decision.action.word)
        for reason in decision.reasons:
            self._telemetry.count("reasons", reason=reason)
        if decision.action is not Action.ACCEPT:
            return await self._not_accepted(case, decision)
        self._stamp(case)
        outcomes = await self._deliver(case)
        said = await self._answer(case, outcomes)
        self._tell(case, said, outcomes, decision)
        return said

    # look: what is known, or costs next to nothing to know

    def _read(self, case: Case) -> None:
        if not case.message.bounded:
            return
        head, secret = case.message.head, self.config.relay.client_secret_file.octets
        found = origin.origin(case.message.exims_head, case.peer.client, secret)
        case.client, case.exim_id = found.client, found.exim_id
        clean = headers.cut(head, self.config.authserv_id)  # what our Exim said of the client, too
        if clean is not head:
            case.message = Message(clean, case.message.body, repaired=case.message.repaired)
        case.message_id = story.message_id(headers.first(clean, b"message-id"))

    async def _join(self, case: Case, joining: Joining) -> None:
        left = case.deadline - _reserve(self.config.relay.budget) - case.clock()
        found = await joining.find(case.message, left / 4)
        if not isinstance(found, Miss):
            case.asked, case.client = found, origin.joined(found.client, case.client)

    def _look(self, case: Case) -> None:
        if case.message.bounded:
            self._telemetry.count("origin", source=case.client.source)
        recipients = case.envelope.recipients
        found: Scan | None = spam.skipped(self.config.spam.policy, case.message.size, case.client.ip, recipients)
        if found:
            if not case.asked:  # else the verdict door has counted it
                self._telemetry.count("spam_scans", result="skipped", server="")
        elif case.asked and isinstance(case.asked.scan, Scored):  # without a score it is worth to ask again
            found = case.asked.scan
            self._spool.ledger.scored()
        listed = self.blocking.look(self.config.for_rules, case.client.ip, again=case.asked is not None)
        vouched = case.asked.auth if case.asked else None
        case.facts = of_message(case.message, recipients, found, listed, vouched)

    # check: what costs time to know

    async def _check(self, case: Case) -> None:
        started = case.clock()
        # Half of what the spool leaves at most: the other half is for Mailman.
        left = (case.deadline - _reserve(self.config.relay.budget) - started) / 2
        scan_by, auth_by = (started + min(most, left) for most in (self.config.spam.timeout, self.config.auth.timeout))
        subject = Subject(case.id, case.envelope, case.message, case.received, case.client, case.took)
        before = case.facts.scan
        case.facts = await self.checking.check(case.facts, subject, self.config.for_rules, scan_by, auth_by)
        found = case.facts.scan
        if isinstance(found, Unscored):
            self._telemetry.count("unscored", reason=found.reason)
            failed = {"text": scan.ALL_FAILED, "reason": found.reason, "cause": found.detail}
            self._telemetry.event("spam.unscored", {**case.named, **failed}, level="warning")
        elif not before:
            self._spool.ledger.scored()

    # settle

    async def _not_accepted(self, case: Case, decision: Decision) -> dict[str, tuple[str, Reply]]:
        if decision.action is Action.DISCARD:
            return self._discarded(case, decision)
        if decision.action is Action.HOLD:
            self._stamp(case)
            return await self._held(case, decision)
        return self._turned_away(case, decision)

    def _turned_away(self, case: Case, decision: Decision) -> dict[str, tuple[str, Reply]]:
        reply = answer.refused(case.id, decision.reply) if decision.reply else answer.trouble(case.id)
        word = answer.REJECTED if decision.action is Action.REJECT else answer.DEFERRED
        said = dict.fromkeys(case.envelope.recipients, (word, reply))
        self._tell(case, said, {}, decision)
        return said

    def _discarded(self, case: Case, decision: Decision) -> dict[str, tuple[str, Reply]]:
        said = dict.fromkeys(case.envelope.recipients, (answer.DISCARDED, answer.discarded(case.id)))
        self._tell(case, said, {}, decision)
        return said

    async def _held(self, case: Case, decision: Decision) -> dict[str, tuple[str, Reply]]:
        why = spam.AWAITS_SCORE if decision.reasons[0] == UNSCORED else spam.why_held(decision.reasons, case.facts.scan)
        refusal = await self._park(case, [Parked(r, "held", why) for r in case.envelope.recipients])
        word, reply = (answer.DEFERRED, refusal) if refusal else (answer.HELD, answer.held(case.id))
        said = dict.fromkeys(case.envelope.recipients, (word, reply))
        self._tell(case, said, {}, decision)
        return said

    # stamp: forged fields were cut when it was looked at

    def _stamp(self, case: Case) -> None:
        hostname, policy = self.config.hostname, self.config.for_rules
        results = self.checking.field(self.config.authserv_id, case.facts, policy)
        ours = stamp.fields(case.id, case.envelope, case.peer, hostname, case.arrived, case.facts, policy)
        case.message = Message(results + ours + case.message.head, case.message.body)

    # deliver

    async def _deliver(self, case: Case) -> dict[str, Outcome]:
        recipients = case.envelope.recipients
        if shut := self._valve.shut:
            unreached = all_alike(Result.UNREACHED, silence(shut), len(recipients))
            return dict(zip(recipients, unreached, strict=True))
        if isinstance(case.facts.scan, Unscored) and self._upstream.up:
            post = ports.Post(case.id, case.envelope, case.message.size, case.kept, case.arrived)
            case.entry = self._spool.ledger.passing(post)
        started = case.clock()
        deadline = case.deadline - _reserve(self.config.relay.budget)
        try:
            # The upstream keeps the deadline itself; this holds if it fails to.
            outcomes = await self._deadlines.wait(
                self._upstream.deliver(case.envelope, case.message, deadline), deadline + _GRACE
            )
        except TimeoutError:
            outcomes = all_alike(Result.UNCERTAIN, silence("no outcome in time"), len(recipients), alone=True)
        self._took(case, "upstream", started)
        return dict(zip(recipients, outcomes, strict=True))

    # spool and answer

    async def _answer(self, case: Case, outcomes: dict[str, Outcome]) -> dict[str, tuple[str, Reply]]:
        parked = answer.to_park(case.peer.door, outcomes)
        unparked = None
        if parked:
            unparked = await self._park(case, [self._parked(r, state, outcomes[r]) for r, state in parked.items()])
        return answer.replies(case.peer.door, case.id, outcomes, parked, unparked)

    def _parked(self, recipient: str, state: str, outcome: Outcome) -> Parked:
        tried = outcome.result is not Result.UNREACHED
        spool = self.config.spool
        return Parked(
            recipient,
            state,
            str(outcome.reply),
            uncertain=outcome.result is Result.UNCERTAIN,
            attempts=int(tried),
            alone=outcome.alone,
            next_attempt=time.time() + delay(1, spool.retry_first, spool.retry_max, random.random()) if tried else 0.0,
        )

    async def _park(self, case: Case, parked: list[Parked]) -> Reply | None:
        """Put it into the spool; the reply if that failed, None if it is on disk."""
        started = case.clock()
        left = max(case.deadline - started, _GRACE)
        try:
            async with asyncio.timeout(left + _GRACE):
                await self._spool.store(case.id, case.envelope, case.message, parked, case.kept, case.arrived, left)
        except SpoolFull as error:
            case.trouble = str(error)
            self._telemetry.event("spool.full", {**case.named, "cause": case.trouble}, level="error")
            return answer.no_space(case.id)
        except (SpoolError, TimeoutError) as error:
            case.trouble = str(error) or "timeout"
            self._telemetry.event("spool.failed", {**case.named, "cause": case.trouble}, level="error")
            return answer.trouble(case.id)
        finally:
            self._took(case, "spool", started)
        return None

    # tell

    def _tell(
        self, case: Case, said: dict[str, tuple[str, Reply]], outcomes: dict[str, Outcome], decision: Decision
    ) -> None:
        """The one line that a message leaves in the log; its name is the worst that befell a recipient.

        A bug in here takes nothing back: what is to be said may stand for what Mailman has taken.
        """
        try:
            if case.entry:
                case.entry.became({r: fate(word, outcomes.get(r)) for r, (word, _) in said.items()})
            worst = answer.worst(word for word, _ in said.values())
            fields = case.final(said, outcomes, decision)
            self._telemetry.event(f"message.{worst}", fields, level="info" if worst in answer.CALM else "warning")
        except Exception:  # noqa: BLE001  said as what it is
            self._telemetry.event("message.failed", case.failed(traceback.format_exc()), level="error")

    def _took(self, case: Case, stage: str, started: float) -> None:
        """Measure a stage that has just ended."""
        seconds = case.clock() - started
        case.took[stage] = seconds
        self._telemetry.observe("stage_seconds", seconds, case.id, stage=stage)


def _reserve(budget: float) -> float:
    """Seconds of the budget that are kept for the spool."""
    return min(10.0, budget / 3)
