"""The story of one spooled message: claimed, loaded, scored if nobody has, delivered again, settled. And the run that
goes through them all.

Promises: oldest first; what is about to be sent has been written down as leased before, so that a crash leaves it
`uncertain` and not forgotten; fresh mail goes first; nothing is replayed while the breaker is open, while paused, or
from a spool that belongs to another gate; a write that fails is made again until it holds.
A recipient fails of age (`spool.lifetime`) by an attempt that Mailman did not take, never without one.
How it fails: trouble with one message never stops the rest (`replay.failed`); where something had been sent by then,
its recipients are uncertain.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Mapping, Sequence

from mailgate.config import Config
from mailgate.core import headers, origin, scan, spam, spam_fields, story
from mailgate.core.envelope import Envelope, printable
from mailgate.core.facts import MessageFacts
from mailgate.core.message import Message
from mailgate.core.outcome import Outcome, Result, dialogue
from mailgate.core.reply import Reply
from mailgate.core.retry import delay
from mailgate.core.rules import after_acceptance, decide
from mailgate.core.scan import Scored, Unscored
from mailgate.core.units import said_seconds
from mailgate.core.verdict import Action, Decision
from mailgate.ports import DOT_PATIENCE, Claimed, Scanner, Settlement, Spool, SpoolError, Telemetry, Upstream, Valve
from mailgate.strays import caught

_AHEAD = 8  # messages claimed at once for each that is sent at a time: they share commits
_TROUBLE_AGAIN = 60.0  # seconds until a message is tried again whose replay failed for a reason of ours
_SETTLE_AGAIN = 1.0  # seconds between two tries to write down what became of a message
_LOOK_AGAIN = 1.0  # seconds; what another process made due is noticed after that
_LOOK_AT_HELD = 5.0  # seconds between two looks, at most, at what is held until it can be scored
_SETTLED = {Action.HOLD: "held", Action.REJECT: "failed", Action.DISCARD: "dropped"}
_NO_ATTEMPT: Mapping[str, object] = {}
_LOST = Outcome(Result.UNCERTAIN, Reply(451, "4.3.0", "the gate failed while it was being sent"))
_WORST_FIRST = ("failed", "uncertain", "deferred", "held", "dropped", "delivered")


class Replay:
    """Replays what is due, for as long as `run` runs. `config` may be replaced."""

    def __init__(
        self, config: Config, scanner: Scanner, upstream: Upstream, spool: Spool, valve: Valve, telemetry: Telemetry
    ) -> None:
        self.config = config
        self._scanner = scanner
        self._upstream = upstream
        self._spool = spool
        self._valve = valve
        self._telemetry = telemetry
        self._changed = asyncio.Event()
        self._next_start = 0.0
        self._next_held = 0.0
        self._stopping = False

    def look(self) -> None:
        """Something may have become due, or possible: don't wait for the next look."""
        self._next_held = 0.0
        self._changed.set()

    def stop(self) -> None:
        """Let `run` return when what is being sent has an end; the rest of the batch is given back."""
        self._stopping = True
        self.look()

    async def run(self) -> None:
        """Look, claim, replay, until `stop`."""
        while not self._stopping:
            self._changed.clear()
            if self._may() and await self.run_once():
                continue
            try:
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def run_once(self) -> int:
        """Replay one batch of what is due; how many messages that were."""
        try:
            batch = await self._claim(self._most())
        except SpoolError as error:
            self._telemetry.event("replay.failed", {"cause": str(error)}, level="error")
            return 0
        queue = list(reversed(batch))

        async def work() -> None:
            while queue:
                claimed = queue.pop()
                settlements, scanned = await self._safely(claimed)
                if settlements:  # written down while the next ones are sent, many in one commit
                    group.create_task(self._settle(claimed, settlements, scanned))

        async def give_back() -> None:
            """When nothing may be sent any more, what has not been sent is at once not claimed any more."""
            while True:
                while queue and not self._may():
                    claimed = queue.pop()
                    group.create_task(self._settle(claimed, _later(claimed, time.time()), ""))
                self._changed.clear()
                await self._changed.wait()

        async with asyncio.TaskGroup() as group:
            giving = group.create_task(give_back())
            await asyncio.gather(*(work() for _ in range(min(self.config.replay.concurrency, len(batch)))))
            giving.cancel()
        return len(batch)

    async def _claim(self, most: int) -> list[Claimed]:
        """What is due; if nothing is, what is held until it can be scored, when it can be or has waited long enough."""
        now, clock = time.time(), time.monotonic()
        batch = await self._spool.claim(now, most)
        if not batch and clock >= self._next_held:
            before = now if self._scanner.available else now - self._patience()
            batch = await self._spool.claim_awaiting(now, before, most)
            self._next_held = 0.0 if batch else clock + min(_LOOK_AT_HELD, self.config.spam.hold_at_most)
        return batch

    def _patience(self) -> float:
        """Seconds for which a message is held until it can be scored."""
        return self.config.spam.hold_at_most if self.config.spam.on_failure == "hold" else 0.0

    def _most(self) -> int:
        """How many messages to claim at once: what is claimed is out of an operator's reach until it is tried."""
        replay = self.config.replay
        ahead = replay.concurrency * _AHEAD
        return max(replay.concurrency, min(ahead, int(replay.rate))) if replay.rate else ahead

    def _may(self) -> bool:
        return not self._stopping and self._upstream.up and not self._valve.shut and not self._valve.foreign

    async def _safely(self, claimed: Claimed) -> tuple[list[Settlement], str]:
        """What became of each recipient (nothing if there is nothing to write down), and the scan if there is one."""
        try:
            return await caught(self._replay(claimed))
        except Exception:  # noqa: BLE001  one message's trouble is not the next one's
            self._fault(claimed)
            return _later(claimed, time.time() + _TROUBLE_AGAIN), ""

    def _fault(self, claimed: Claimed) -> None:
        self._telemetry.event("replay.failed", {"id": claimed.id, "trace": traceback.format_exc()}, level="error")

    async def _replay(self, claimed: Claimed) -> tuple[list[Settlement], str]:
        if not self._may():
            return _later(claimed, time.time()), ""
        message = await self._spool.load(claimed.id)
        if message is None:
            return [], ""  # set aside and reported by the spool
        found, scanned = scan.read(claimed.facts.scan), ""
        if isinstance(found, Unscored):
            if self._scanner.available:
                found = await self._scan(claimed, message)
            scanned = scan.written(found)
            settlements = self._judged(claimed, found)
            if settlements:
                self._tell(claimed, settlements, found)
                return settlements, scanned
        if isinstance(found, Scored):
            message = self._stamped(claimed, message, found)
        if not await self._paced():
            return _later(claimed, time.time()), scanned
        settlements = await self._sent(claimed, message, found)
        return settlements, scanned

    # score: what came in unscored

    async def _scan(self, claimed: Claimed, message: Message) -> Scored | Unscored:
        client = origin.read(claimed.facts.client)
        deadline = asyncio.get_running_loop().time() + self.config.spam.timeout
        return await self._scanner.scan(claimed.envelope, message, client, deadline, claimed.id)

    def _judged(self, claimed: Claimed, found: Scored | Unscored) -> list[Settlement]:
        """What the score settles; empty for a message that is to be sent."""
        if isinstance(found, Unscored):  # again: policy was done when it came in, all that is left is to wait
            if claimed.held and time.time() < claimed.received + self._patience():
                return _later(claimed, time.time() + self.config.spool.retry_first)
            return []
        policy = self.config.for_rules
        facts = MessageFacts(0, bounded=True, recipients=claimed.envelope.recipients, scan=found)
        decision = after_acceptance(decide(facts, policy), policy)
        for reason in decision.reasons:
            self._telemetry.count("reasons", reason=reason)
        if decision.action not in _SETTLED:
            return []
        state, reply = _SETTLED[decision.action], _why(decision, found)
        self._telemetry.count("replays", len(claimed.numbers), outcome=state)
        return [Settlement(number, state, reply, tried=False) for number in claimed.numbers]

    def _stamped(self, claimed: Claimed, message: Message, found: Scored) -> Message:
        limits = spam.thresholds(self.config.spam.policy, claimed.envelope.recipients)
        fields = spam_fields.of_score(found, limits)
        return Message(headers.replaced(message.head, spam_fields.SCAN.lower().encode(), fields), message.body)

    # send

    async def _sent(self, claimed: Claimed, message: Message, found: Scored | Unscored | None) -> list[Settlement]:
        started = time.monotonic()
        outcomes = await self._deliver(claimed, message)
        seconds = time.monotonic() - started
        settlements = [self._settlement(claimed, at, outcome) for at, outcome in enumerate(outcomes)]
        settlements += _later(claimed, time.time())[len(outcomes) :]
        self._tell(
            claimed, settlements, found, {"dialogue": dialogue(outcomes), "seconds": {"upstream": round(seconds, 4)}}
        )
        return settlements

    async def _paced(self) -> bool:
        """Wait for this message's turn at `replay.rate`. False if by then it may not be sent any more."""
        if self.config.replay.rate:
            turn = self._next_start = max(time.monotonic(), self._next_start + 1 / self.config.replay.rate)
            while self._may() and (left := turn - time.monotonic()) > 0:  # noqa: ASYNC110  three things can end it
                await asyncio.sleep(min(left, _LOOK_AGAIN / 4))
        return self._may()

    async def _deliver(self, claimed: Claimed, message: Message) -> Sequence[Outcome]:
        """What became of the recipients; of the first ones, where the rest may not be sent any more."""
        if not claimed.alone:
            return await self._send(claimed, claimed.envelope, message)
        outcomes: list[Outcome] = []
        for recipient in claimed.envelope.recipients:
            if outcomes and not await self._paced():
                break
            outcomes += await self._send(claimed, claimed.envelope.only((recipient,)), message)
        return outcomes

    async def _send(self, claimed: Claimed, envelope: Envelope, message: Message) -> Sequence[Outcome]:
        mailman = self.config.mailman
        patience = mailman.connect_timeout + mailman.reply_timeout * (len(envelope.recipients) + 4 + DOT_PATIENCE)
        deadline = asyncio.get_running_loop().time() + patience
        try:
            outcomes = await caught(self._upstream.deliver(envelope, message, deadline, background=True))
            return [outcome for _, outcome in zip(envelope.recipients, outcomes, strict=True)]
        except Exception:  # noqa: BLE001  nobody knows how far it had come
            self._fault(claimed)
            return [_LOST] * len(envelope.recipients)

    def _settlement(self, claimed: Claimed, at: int, outcome: Outcome) -> Settlement:
        self._telemetry.count("replays", outcome=outcome.result)
        number, reply, spool, now = claimed.numbers[at], str(outcome.reply), self.config.spool, time.time()
        if outcome.result is Result.DELIVERED:
            return Settlement(number, "delivered", reply)
        if outcome.result is Result.REFUSED:
            return Settlement(number, "failed", reply)
        if outcome.result is Result.UNREACHED:
            return Settlement(number, "pending", reply, next_attempt=now + 1, tried=False, alone=outcome.alone)
        uncertain = outcome.result is Result.UNCERTAIN
        if now >= claimed.since[at] + spool.lifetime:  # RFC 3463 §3.5: X.4.7, delivery time expired
            over = f"4.4.7 not delivered within spool.lifetime ({said_seconds(spool.lifetime)}); last: {reply}"
            return Settlement(number, "failed", over, uncertain=uncertain)
        later = now + delay(claimed.attempts[at] + 1, spool.retry_first, spool.retry_max, random.random())
        return Settlement(number, "pending", reply, uncertain=uncertain, next_attempt=later, alone=outcome.alone)

    async def _settle(self, claimed: Claimed, settlements: Sequence[Settlement], scanned: str) -> None:
        while True:
            try:
                await self._spool.settle(claimed.id, settlements, time.time(), scanned)
                return
            except SpoolError as error:
                cause = {"id": claimed.id, "cause": f"could not write down what became of it: {error}"}
                self._telemetry.event("replay.failed", cause, level="error")
                await asyncio.sleep(_SETTLE_AGAIN)

    def _tell(
        self,
        claimed: Claimed,
        settlements: Sequence[Settlement],
        found: Scored | Unscored | None,
        attempt: Mapping[str, object] = _NO_ATTEMPT,
    ) -> None:
        """Say it. Whatever is wrong with that, what became of the message is known and gets written down."""
        try:
            self._told(claimed, settlements, found, attempt)
        except Exception:  # noqa: BLE001
            self._fault(claimed)

    def _told(
        self,
        claimed: Claimed,
        settlements: Sequence[Settlement],
        found: Scored | Unscored | None,
        attempt: Mapping[str, object],
    ) -> None:
        words = {_word(settlement) for settlement in settlements}
        worst = next(word for word in _WORST_FIRST if word in words)
        pairs = list(zip(claimed.envelope.recipients, settlements, strict=True))
        again = [printable(r) for r, s in pairs if s.tried and s.number in claimed.uncertain]
        self._telemetry.event(
            f"replay.{worst}",
            {
                "id": claimed.id,
                "exim_id": claimed.facts.exim_id,
                "message_id": claimed.facts.message_id,
                **story.of_envelope(claimed.envelope),
                "recipients": {printable(r): f"{_word(s)}: {s.reply}" for r, s in pairs},
                "age_seconds": round(time.time() - claimed.received, 1),
            }
            | ({"uncertain_before": again} if again else {})
            | scan.told(found)
            | {key: value for key, value in attempt.items() if value},
            level="info" if worst == "delivered" else "warning",
        )


def _word(settlement: Settlement) -> str:
    if settlement.state == "pending":
        return "uncertain" if settlement.uncertain else "deferred"
    return settlement.state


def _later(claimed: Claimed, when: float) -> list[Settlement]:
    """As it was, again at that time."""
    state = "held" if claimed.held else "pending"
    alone = claimed.alone
    return [Settlement(number, state, "", next_attempt=when, tried=False, alone=alone) for number in claimed.numbers]


def _why(decision: Decision, found: Scored) -> str:
    if decision.action is Action.REJECT and decision.reply:
        return str(decision.reply)
    return spam.why_held(decision.reasons, found)
