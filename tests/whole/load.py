"""Clients that hand messages to a gate by LMTP, as Exim does, and keep book of every reply.

Each message has an id that nothing else has. A recipient that got no 250 is tried again, for as long as it takes: after
a 4xx, and after a connection that broke. What the gate promised, and when it could promise nothing, is in `attempts`.
"""

import random
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.stack.client import Client
from tests.stack.dialogue import stuffed
from tests.stack.waiting import wait_until

Door = tuple[str, int] | Path
LISTS = tuple(f"list{number}@lists.test" for number in range(8))
_MOST_RECIPIENTS = 5


@dataclass
class Attempt:
    """One transaction. `answers` are the replies after the final dot by recipient: (code, gate id).

    `in_doubt` are those whose reply never came although the final dot may have: the gate may have taken it or not, and
    the client must send again.
    """

    message_id: str
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    in_doubt: tuple[str, ...] = ()


class Poster(threading.Thread):
    """One client, with one message at a time. Ends, after `finish`, when all recipients of its last have their 250."""

    def __init__(self, name: str, doors: Sequence[Door], seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self.attempts: list[Attempt] = []
        self.refused: list[str] = []  # 5xx replies: there must be none
        self._doors = doors
        self._random = random.Random(seed)
        self._finishing = threading.Event()
        self._count = 0
        self._client: Client | None = None

    def finish(self) -> None:
        """Let it end with the message that it is at."""
        self._finishing.set()

    def run(self) -> None:
        """Post, one message after the other."""
        while not self._finishing.is_set():
            self._count += 1
            message_id = f"<{self.name}-{self._count}@example.org>"
            left = self._random.sample(LISTS, self._random.randint(1, _MOST_RECIPIENTS))
            octets = message(message_id, self._random)
            while left:
                attempt = self._attempt(message_id, left, octets)
                left = [one for one in left if attempt.answers.get(one, (0, ""))[0] != 250]
        if self._client:
            self._client.close()

    def _attempt(self, message_id: str, recipients: Sequence[str], octets: bytes) -> Attempt:
        attempt = Attempt(message_id)
        self.attempts.append(attempt)
        try:
            client = self._client or self._connected()
            self._say_envelope(client, recipients)
            attempt.in_doubt = tuple(recipients)
            client.send(stuffed(octets))
            for recipient in recipients:
                reply = client.reply()
                attempt.answers[recipient] = reply.code, reply.text.split()[1]
                attempt.in_doubt = attempt.in_doubt[1:]
                if reply.code >= 500:
                    self.refused.append(f"{message_id} {recipient} {reply}")
        except (EOFError, ConnectionError):
            if self._client:
                self._client.close()
            self._client = None
        return attempt

    def _say_envelope(self, client: Client, recipients: Sequence[str]) -> None:
        commands = ["MAIL FROM:<ida@example.org>", *(f"RCPT TO:<{one}>" for one in recipients), "DATA"]
        said = [reply.code for reply in client.pipeline(commands)]
        if said != [250] * (len(recipients) + 1) + [354]:
            raise EOFError(f"the envelope was not accepted: {said}; begin with a new connection")

    def _connected(self) -> Client:
        door = self._random.choice(self._doors)
        client = wait_until(lambda: _connect(door), f"{self.name} is connected")
        assert client is not None
        self._client = client
        return client


def _connect(door: Door) -> Client | None:
    try:
        return Client(door, lmtp=True)
    except (OSError, EOFError):  # it is dead, or not there yet
        return None


def message(message_id: str, chance: random.Random) -> bytes:
    """A message of that id, with a body that tells every torn or mixed one: most are small, one in fifty is not."""
    lines = chance.randint(1, 20) if chance.random() < 0.98 else 2000
    body = "".join(f".line {number} of {message_id}\r\n" for number in range(lines))
    head = f"Message-ID: {message_id}\r\nFrom: ida@example.org\r\nTo: lists.test\r\nX-Lines: {lines}\r\n"
    return f"{head}Subject: {message_id}\r\n\r\n{body}end of {message_id}\r\n".encode()


def whole(message_id: str, octets: bytes) -> bool:
    """Is that message, as it arrived, what was sent: from the Message-ID to the last line?"""
    mark = message_id.encode()
    text = octets[octets.find(b"Message-ID: ") :]
    head, _, body = text.partition(b"\r\n\r\n")
    lines = int(head.partition(b"X-Lines: ")[2].split()[0])
    expected = b"".join(b".line %d of %s\r\n" % (number, mark) for number in range(lines))
    return head.count(mark) == 2 and body == expected + b"end of %s\r\n" % mark


def attempts_of(posters: Iterable[Poster]) -> dict[str, list[Attempt]]:
    """All attempts by Message-ID."""
    by_id: dict[str, list[Attempt]] = {}
    for poster in posters:
        for attempt in poster.attempts:
            by_id.setdefault(attempt.message_id, []).append(attempt)
    return by_id
