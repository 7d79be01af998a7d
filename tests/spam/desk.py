"""A gate between a fake Mailman and a fake rspamd, whose policy a test may change."""

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from typing import Any

from tests.edge.pair import Pair, mail
from tests.stack.client import Result
from tests.stack.fake_scorer import ALIVE, GOOD, Act, FakeScorer, rspamd_says
from tests.stack.gate import merged
from tests.stack.waiting import PATIENCE, wait_until

LIST = "list@lists.test"
REPORT = {"OFFER": {"name": "OFFER", "score": 1.5, "description": "an offer that nobody can refuse"}}


class Desk:
    """`pair` has the gate and its Mailman, `scorer` is the rspamd that it asks. Messages are told by their number."""

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self.scorer = FakeScorer("rspamd")
        own = {"engine": "rspamd", "servers": [str(self.scorer.port)], "timeout": "4s", "probe_interval": "0.1s"}
        self._settings = merged({"spam": own}, settings or {})
        self.pair = Pair(self._settings)
        self.gate, self.fake = self.pair.gate, self.pair.fake
        self._sent = 0
        self._reloads = 0

    def put_in_order(self) -> None:
        """Mailman and the scorer are well, and the gate knows it."""
        self.fake.behave()
        self.fake.accept()
        self.scorer.scan, self.scorer.ping = GOOD["rspamd"], ALIVE["rspamd"]
        self.comes_back()
        wait_until(self.believed_alive, "the gate believes in its scorer")
        wait_until(self.pair.up, "the gate believes in Mailman")

    def believed_alive(self) -> bool:
        """Does the gate believe that the scorer is alive?"""
        return self.gate.metric("mailgate_upstream_up", upstream=str(self.scorer.port)) == 1

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Write the configuration with these over the settings that it began with."""
        self.pair.configure(merged(self._settings, settings))

    def policy(self, **spam: Any) -> None:
        """Have the gate take this policy (on top of what it was started with) by SIGHUP; `late` is for [policy]."""
        late = {"policy": {"reject_after_acceptance": spam.pop("late", "hold")}}
        self.pair.configure(merged(self._settings, {"spam": spam} | late))
        self.gate.send(signal.SIGHUP)
        self._reloads += 1
        wait_until(lambda: len(self.gate.events("config.reloaded")) == self._reloads, "the gate has reloaded")

    def scores(self, points: float) -> None:
        """From now on the scorer says this of any message."""
        answer = {"is_skipped": False, "score": points, "required_score": 15.0, "action": "no action"}
        self.scorer.scan = Act(rspamd_says(json.dumps(answer | {"symbols": REPORT, "messages": {}})))

    def comes_back(self) -> None:
        """The scorer listens again."""
        if not self.scorer.port.open():
            self.scorer.accept()

    def fails(self) -> None:
        """Nobody listens where the scorer was, and the gate has noticed."""
        self.scorer.refuse()
        if self.believed_alive():
            self.send()
        wait_until(lambda: not self.believed_alive(), "the gate has noticed that the scorer is gone")

    def send(self, *recipients: str, head: bytes = b"", body: bytes = b"A line.\r\n", octets: bytes = b"") -> str:
        """Hand a message to the gate; its Message-ID. `head` are fields in front of the usual ones."""
        self._sent += 1
        message_id = f"<{self._sent}@example.net>"
        self.result: Result = self.pair.send(*(recipients or (LIST,)), octets=octets or head + mail(message_id, body))
        return message_id

    @property
    def said(self) -> list[str]:
        """The replies to the last message, without its gate id."""
        return [" ".join([str(one.code), *one.text.split()[:1], *one.text.split()[2:]]) for one in self.result.final]

    def asked(self, message_id: str) -> int:
        """How often the scorer was asked about the messages with this Message-ID."""
        ids = {one["id"] for one in self.gate.events(message_id=message_id)}
        return sum(one in head.decode() for head in list(self.scorer.heads) for one in ids)

    def event(self, message_id: str, name: str = "") -> dict[str, Any]:
        """The event of that name (or the last one that tells a message's end) with this Message-ID."""

        def found() -> list[dict[str, Any]]:
            events = self.gate.events(name, message_id=message_id)
            return [one for one in events if name or one["event"].startswith("message.")]

        return wait_until(found, f"{name} of {message_id}")[-1]

    def taken(self, message_id: str) -> Message:
        """What Mailman took of it, once."""
        octets = [one.octets for one in self.fake.taken if one.message_id == message_id]
        assert len(octets) == 1, f"{message_id}: {len(octets)} times"
        return message_from_bytes(octets[0])

    def wait_taken(self, message_id: str, deadline: float = PATIENCE) -> Message:
        """The same, once Mailman has it."""
        wait_until(
            lambda: [one for one in list(self.fake.taken) if one.message_id == message_id],
            f"{message_id} in Mailman",
            deadline=deadline,
        )
        return self.taken(message_id)

    def arrived(self, message_id: str) -> bool:
        """Has Mailman taken it?"""
        return any(one.message_id == message_id for one in list(self.fake.taken))

    def state(self, message_id: str) -> set[str]:
        """The states of its recipients in the spool."""
        return set(self.pair.states(message_id).values())

    def replies(self, message_id: str) -> set[str]:
        """What the spool says of its recipients."""
        return {person.reply for person in self.pair.people(message_id).values()}

    def close(self) -> None:
        """Take all down."""
        try:
            self.pair.close()
        finally:
            self.scorer.close()


@contextmanager
def open_desk(settings: Mapping[str, Any] | None = None, *, stopped: bool = False) -> Iterator[Desk]:
    """A desk with its gate running, or still to be configured and started."""
    desk = Desk(settings)
    try:
        if not stopped:
            desk.gate.start()
        yield desk
    except BaseException:
        desk.pair.expect_trouble()  # the test's own failure says more
        raise
    finally:
        desk.close()


def marks(message: Message) -> dict[str, str]:
    """The fields of a message that speak of spam, in their order."""
    return {name: value for name, value in message.items() if name.lower().startswith(("x-spam-", "x-mailgate-scan"))}
