"""What the stories (`relay`, `replay`) ask of the world. The edges fill these; tests may fill them with the real thing.

Every method that waits takes or has a deadline. Expected trouble is a value or one of the exceptions named here;
any other exception is a bug, and the stories answer it with a 4xx.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mailgate.core.auth import Authenticated, RecordType, Resolved
from mailgate.core.envelope import Client as Client  # noqa: PLC0414  a part of the Scanner's port
from mailgate.core.envelope import Envelope
from mailgate.core.fate import Fate
from mailgate.core.message import Message
from mailgate.core.networks import NetworkSet
from mailgate.core.outcome import Outcome
from mailgate.core.record import Miss, Record
from mailgate.core.scan import Scored, Unscored

# How many times mailman.reply_timeout a replay waits for the replies to the final dot. Nobody waits for a replay, and
# to give up there means to send the post a second time to a Mailman that is only slow.
DOT_PATIENCE = 10


class SpoolError(Exception):
    """The spool did not take or do it, and certainly keeps nothing of it. Answered 451; the text is for the log."""


class SpoolFull(SpoolError):
    """A limit of ours or the disk's end: answered 452. What is there stays deliverable."""


@dataclass(frozen=True, slots=True)
class Parked:
    """One recipient of a message that goes into the spool, with the state it begins in.

    `state` is "pending" (to be replayed), "held" (waits for an operator) or "failed" (refused after a 250 had to be
    said; waits for an operator). `reply` is the next hop's last word or the reason in ours. `uncertain`: the next hop
    may have it. `attempts` are those already made; `alone`: the next attempt is made for this recipient alone, not
    before `next_attempt` (seconds since the epoch; 0: at once).
    """

    recipient: str
    state: str
    reply: str
    uncertain: bool = False
    attempts: int = 0
    alone: bool = False
    next_attempt: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What is kept with a spooled message besides its envelope, for people and later rules: all of it may be empty.

    `client` is what `core.origin.written` wrote. `scan` is `core.scan.written` of a message that came in unscored: that
    it was not scored, and once it has been, the score (which its header fields in the spool do not have).
    """

    exim_id: str = ""
    message_id: str = ""
    client: str = ""
    scan: str = ""


@dataclass(frozen=True, slots=True)
class Post:
    """What the ledger keeps of a message that goes on without the score that it should have: `facts.scan` says why it
    has none. `size` in octets, `received` in seconds since the epoch.
    """

    id: str
    envelope: Envelope
    size: int
    facts: Facts
    received: float


@dataclass(frozen=True, slots=True)
class Claimed:
    """A spooled message of which this gate holds the lease: these recipients (by their number) are to be tried now.

    `attempts` are those made before this one, by recipient number, and `since` is when their lifetimes began (seconds
    since the epoch). `alone`: one transaction for each recipient.
    `held`: they are held until they can be scored, and stay so unless the settlement says otherwise. `uncertain` are
    the numbers of those whom the next hop may have had it for already.
    """

    id: str
    envelope: Envelope  # with the claimed recipients only, in the order of `numbers`
    numbers: tuple[int, ...]
    attempts: tuple[int, ...]
    since: tuple[float, ...]
    received: float
    alone: bool
    facts: Facts
    held: bool = False
    uncertain: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a replay makes of one claimed recipient: `state` "delivered", "pending" (again at `next_attempt`), "held",
    "failed", "dropped"; `tried` is False when the next hop was not spoken to (the attempt does not count). A `reply`
    of "" leaves the last one as it is.
    """

    number: int
    state: str
    reply: str
    uncertain: bool = False
    next_attempt: float = 0.0
    tried: bool = True
    alone: bool = False


@dataclass(slots=True)
class Valve:
    """What operators, the spool and Mailman itself say about feeding Mailman; the relay and the replay obey it.

    `paused`: why nothing is to be sent to Mailman at all ("" if it may be); `stalled`: the same, because Mailman does
    nothing with it; `foreign`: why the spool must not be replayed ("" if it may be): it belongs to another gate.
    """

    paused: str = ""
    foreign: str = ""
    stalled: str = ""

    @property
    def shut(self) -> str:
        """Why nothing is to be sent to Mailman at all; "" if it may be."""
        if self.paused:
            return f"paused: {self.paused}"
        return f"Mailman stands still: {self.stalled}" if self.stalled else ""


class Upstream(Protocol):
    """The next hop: Mailman's LMTP server."""

    @property
    def up(self) -> bool:
        """False while the breaker is open: `deliver` would answer `unreached` at once."""
        ...

    async def deliver(
        self, envelope: Envelope, message: Message, deadline: float, *, background: bool = False
    ) -> tuple[Outcome, ...]:
        """One outcome for each recipient of the envelope, in order, by `deadline` (of the loop's clock).

        `background`: what is replayed lets fresh mail go first.
        """
        ...


class Entry(Protocol):
    """A post in the ledger."""

    def became(self, fates: Mapping[str, Fate]) -> None:
        """Write down what became of it, by recipient."""
        ...


class Ledger(Protocol):
    """Which posts went on without the score that they should have. Nothing here waits or fails: what is told is written
    soon.
    """

    def passing(self, post: Post) -> Entry:
        """Write down that this post is about to be handed to the next hop."""
        ...

    def scored(self) -> None:
        """A message got its score."""
        ...


class Spool(Protocol):
    """Messages on disk. What a call has returned from is synced; what it raised SpoolError for is not there. What is
    stored with a `Facts.scan` that is no score is in the ledger with the same commit.
    """

    @property
    def ledger(self) -> Ledger:
        """The ledger that lies in it."""
        ...

    async def store(
        self,
        gate_id: str,
        envelope: Envelope,
        message: Message,
        parked: Sequence[Parked],
        facts: Facts,
        now: float,
        timeout: float,
    ) -> None:
        """Keep the message for these recipients. Raises SpoolFull or SpoolError; a write that was not committed
        within `timeout` seconds is given up and undone.
        """
        ...

    async def claim(self, now: float, most: int) -> list[Claimed]:
        """Lease up to `most` messages that are due, oldest first, and write that down before anything is sent. Of one
        that came in unscored, and still is, all pending recipients: one score decides for them together.
        """
        ...

    async def claim_awaiting(self, now: float, before: float, most: int) -> list[Claimed]:
        """Lease up to `most` messages received before `before` that are held until they can be scored (recipients held
        with the reply AWAITS_SCORE) and whose `next_attempt` has come, oldest first.
        """
        ...

    async def load(self, gate_id: str) -> Message | None:
        """The octets of a message; None if they are not what was stored (the message has then been set aside)."""
        ...

    async def settle(self, gate_id: str, settlements: Sequence[Settlement], now: float, scanned: str = "") -> None:
        """Write down what became of claimed recipients, and give the lease back; and `scanned` into the message's
        facts, unless it is "". One that is no score says that they were tried without one, which the ledger keeps.
        """
        ...


class Scorer(Protocol):
    """One server that scores messages. Nothing here raises an exception for what the server does."""

    @property
    def name(self) -> str:
        """Where it is, as the configuration has it: the label in metrics."""
        ...

    async def score(
        self, envelope: Envelope, message: Message, client: Client, deadline: float, queue_id: str = ""
    ) -> Scored | Unscored:
        """Its score for the message, by `deadline` (of the loop's clock). The message is sent once."""
        ...

    async def ping(self, deadline: float) -> str:
        """What is wrong with it, by `deadline`; "" if it is alive."""
        ...

    async def close(self) -> None:
        """Give back what is held open."""
        ...


class Scanner(Protocol):
    """The spam scorers, however many there are."""

    @property
    def available(self) -> bool:
        """False while no server is believed alive: `scan` would answer `unavailable` at once."""
        ...

    async def scan(
        self, envelope: Envelope, message: Message, client: Client, deadline: float, queue_id: str = ""
    ) -> Scored | Unscored:
        """The score of the message, by `deadline` (of the loop's clock). Trouble is a value, never an exception.

        `queue_id` is the gate id, for the scorer's log.
        """
        ...


class Authenticator(Protocol):
    """The checks of who sent a message: SPF, DKIM, DMARC, ARC, as far as they are on."""

    async def check(self, envelope: Envelope, message: Message, client: Client, deadline: float) -> Authenticated:
        """What they come to for these octets, by `deadline` (of the loop's clock). Trouble is a result ("temperror"),
        never an exception. `message` is as it was received, before anything of it is cut.
        """
        ...


class Results(Protocol):
    """Writes the header field Authentication-Results."""

    def __call__(self, authserv_id: str, found: Authenticated | None) -> bytes:
        """The whole field, by whom and with what was found; None: nothing was checked."""
        ...


class Resolver(Protocol):
    """The DNS."""

    async def resolve(self, name: str, record: RecordType, deadline: float) -> Resolved:
        """What it says of `name`, by `deadline` (of the loop's clock). Trouble is an answer, never an exception; a name
        that can't be one does not exist.
        """
        ...


class Records(Protocol):
    """What the verdict door found of messages, for the relay door. Losing all of it costs a second scan, never mail:
    trouble is said in the log by whoever keeps them, and is no exception.
    """

    async def keep(self, exim_id: str, digest: str, record: Record, timeout: float) -> None:
        """Keep the record of the message that Exim has under `exim_id` and whose body has this digest
        (`core.record.digest`); a later one takes its place. Returns when it is there or could not be kept, after
        `timeout` seconds at most.
        """
        ...

    async def find(self, exim_id: str, digest: str, timeout: float) -> Record | Miss:
        """The record that was kept for this message, within `timeout` seconds; or why there is none."""
        ...


class Networks(Protocol):
    """The lists of networks. A look-up costs microseconds and never fails."""

    def find(self, ip: str, now: float) -> tuple[NetworkSet, ...]:
        """The sets that list this address at this time (seconds since the epoch); none for ""."""
        ...


class Telemetry(Protocol):
    """Counting and saying. Neither waits nor fails."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None: ...
    def observe(self, name: str, value: float, exemplar: str = "", **labels: str) -> None: ...
    def event(self, name: str, fields: Mapping[str, object], *, level: str = "info") -> None: ...
