"""One message on its way through the relay door: what every step knows of it, and the one event that it leaves behind.

Duty: `final` says everything that was found and done, so that a single line answers what became of a message. It does
not wait and holds nothing that is changed later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mailgate.core import answer, origin, scan, story
from mailgate.core.envelope import Client, Envelope, Peer, printable
from mailgate.core.facts import MessageFacts, told
from mailgate.core.message import Message
from mailgate.core.outcome import Outcome, dialogue
from mailgate.core.record import Record
from mailgate.core.reply import Reply
from mailgate.core.scan import Unscored
from mailgate.core.verdict import Decision
from mailgate.ports import Entry, Facts

_NOTHING_SEEN = MessageFacts(hops=0, bounded=False)
_NOBODY_KNOWN = Client()
_NOTHING = Message(b"", ())


@dataclass(slots=True)
class Case:
    """What stands below `deadline` is filled in as it goes; `asked` is what the verdict door found of it, if it did,
    and `took` how many seconds which stage needed.
    """

    id: str
    peer: Peer
    envelope: Envelope
    message: Message
    arrived: float  # seconds since the epoch
    clock: Callable[[], float]  # the loop's
    began: float  # by this clock, as is the deadline
    deadline: float
    received: Message = _NOTHING  # the message as it came
    octets: int = 0  # of it
    facts: MessageFacts = _NOTHING_SEEN
    asked: Record | None = None
    client: Client = _NOBODY_KNOWN
    exim_id: str = ""
    message_id: str = ""
    entry: Entry | None = None  # in the ledger
    took: dict[str, float] = field(default_factory=dict)
    trouble: str = ""  # of our own, that the replies don't tell of

    @property
    def named(self) -> dict[str, object]:
        """The ids by which a message is found again."""
        return {"id": self.id, "exim_id": self.exim_id, "message_id": self.message_id}

    @property
    def kept(self) -> Facts:
        """What goes with it into the spool."""
        found = self.facts.scan
        unscored = scan.written(found) if isinstance(found, Unscored) else ""
        return Facts(self.exim_id, self.message_id, origin.written(self.client), unscored)

    def final(
        self,
        said: Mapping[str, tuple[str, Reply]],
        outcomes: Mapping[str, Outcome],
        decision: Decision,
    ) -> story.Told:
        """The fields of its event as of now, after these replies and what the next hop said."""
        # What makes them must not keep the message, nor a scorer's report.
        named, peer, client, envelope, octets = self.named, self.peer, self.client, self.envelope, self.octets
        verdict_id, found, trouble = self.asked.gate_id if self.asked else "", told(self.facts), self.trouble
        took = {**self.took, "total": self.clock() - self.began}

        def make() -> dict[str, object]:
            talk = dialogue(outcomes.values())
            return {
                **named,
                "door": peer.door,
                "peer": peer.address,
                **origin.told(client),
                **story.of_envelope(envelope),
                "recipients": {
                    printable(r): answer.told(word, reply, outcomes.get(r)) for r, (word, reply) in said.items()
                },
                "bytes": octets,
                "verdict": decision.action.word,
                "reasons": list(decision.reasons),
                **({"verdict_id": verdict_id} if verdict_id else {}),
                **found,
                **({"cause": trouble} if trouble else {}),
                **({"dialogue": talk} if talk else {}),
                "seconds": {stage: round(seconds, 4) for stage, seconds in took.items()},
            }

        return story.Told(make, named, len(said))

    def failed(self, trace: str) -> dict[str, object]:
        """The same after a bug of ours, of which nobody knows where it is."""
        recipients = list(map(printable, self.envelope.recipients))
        sender = printable(self.envelope.sender)
        return {**self.named, "door": self.peer.door, "sender": sender, "recipients": recipients, "trace": trace}
