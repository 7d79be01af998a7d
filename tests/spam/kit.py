"""What the tests of this folder share: messages of our own, real telemetry that can be read, a scorer at an address."""

import asyncio
import io
import json
import time
from pathlib import Path
from typing import Any, Self

from mailgate.core.endpoint import endpoint
from mailgate.core.envelope import Client, Envelope
from mailgate.core.message import Message, message
from mailgate.core.scan import Scored, Unscored
from mailgate.edge.log import EventLog
from mailgate.edge.rspamd import Rspamd
from mailgate.edge.spamd import Spamd
from mailgate.edge.telemetry import Telemetry
from mailgate.ports import Scorer
from tests.stack.fake_scorer import Engine
from tests.stack.mails import GTUBE
from tests.stack.ports import Port
from tests.stack.waiting import PATIENCE

HEAD = (
    b"Received: from mx.example.net (mx.example.net [192.0.2.7]) by lists.test with esmtp id 1xV0Ys-0004sm-35;\r\n"
    b"\tSat, 21 Nov 2026 10:00:00 +0000\r\nFrom: Ida Krog <ida@example.org>\r\nTo: list@lists.test\r\n"
    b"Subject: minutes of the meeting\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n"
    b"Message-ID: <minutes-of-21-november@example.org>\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"MIME-Version: 1.0\r\n\r\n"
)
TEXT = b"Dear all,\r\n\r\nhere are the minutes of the meeting. We agreed on the new roof.\r\n\r\nIda\r\n"
HAM, SPAM = message([HEAD + TEXT]), message([HEAD + TEXT, GTUBE])
ENVELOPE = Envelope("ida@example.org", ("list@lists.test", "other@lists.test"))
CLIENT = Client(ip="192.0.2.7", helo="mx.example.net", host="mx.example.net")
QUEUE_ID = "01m8112ytat08xvr1g"


def scorer(engine: Engine, address: object) -> Scorer:
    """A scorer for the server at `address`: a port of ours, or the path of a unix socket."""
    at = endpoint(f"unix:{address}" if str(address).startswith("/") else str(address))
    return Spamd(at) if engine == "spamd" else Rspamd(at)


async def ask(one: Scorer, mail: Message = HAM, *, within: float = 20.0) -> Scored | Unscored:
    """Its score."""
    return await one.score(ENVELOPE, mail, CLIENT, asyncio.get_running_loop().time() + within, QUEUE_ID)


def of_size(octets: int) -> Message:
    """A message of that size, in pieces as the listener makes them."""
    line = b"a line of text that says nothing in particular, and says it again\r\n"
    body = line * ((octets - len(HEAD)) // len(line) + 1)
    body = body[: octets - len(HEAD) - 2] + b"\r\n"
    return message([HEAD, *(body[start : start + 2**20] for start in range(0, len(body), 2**20))])


class Watched(Telemetry):
    """The real telemetry, whose log goes to memory."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self._events = EventLog(stream=self._stream)
        super().__init__(self._events)

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What was said so far. Only to be asked once, at the end."""
        self._events.close()
        lines = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        return [line for line in lines if name in ("", line["event"])]

    def value(self, name: str, **labels: str) -> float:
        """A sample of /metrics; 0 if it is not there."""
        said = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
        wanted = f"mailgate_{name}{{{said}}} " if labels else f"mailgate_{name} "
        for line in self.exposition()[1].decode().splitlines():
            if line.startswith(wanted):
                return float(line.removeprefix(wanted))
        return 0.0


class Stopwatch:
    """Seconds that a block took."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._started


def unread(port: Port) -> bool:
    """Has somebody who is still there sent octets to that port which nobody has read? proc(5), /proc/net/tcp."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    there = {line[1] for line in lines if line[9] != "0"}  # 0: its process has given it up
    here = [line for line in lines if line[1].endswith(f":{port.number:04X}") and line[2] in there]
    return any(int(line[4].partition(":")[2], 16) for line in here)


async def until(condition: Any, what: str, deadline: float = PATIENCE) -> None:
    """Wait until the condition holds, while the loop goes on."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline:g} s: {what}")
        await asyncio.sleep(0.01)
