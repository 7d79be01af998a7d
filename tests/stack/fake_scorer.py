"""A stand-in for spamd or rspamd, for failures that the real ones can't be brought to on command.

Left alone it answers as they do (tests/spam/test_fake_scorer.py holds it against them). `scan` and `ping` are what it
does when it is asked for a score, and whether it lives. It keeps the head of each question, never a whole message.
"""

import asyncio
import json
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from tests.stack.loop import Loop, stop_listening
from tests.stack.ports import Port

Engine = Literal["spamd", "rspamd"]

REPORT = "Content analysis details:   (7.2 points, 4.0 required)\n\n 7.2 OURS    made up for a test\n"
_JSON = {
    "is_skipped": False,
    "score": 7.2,
    "required_score": 15.0,
    "action": "add header",
    "symbols": {
        "SMALL": {"name": "SMALL", "score": 0.2, "metric_score": 0.2, "description": "small"},
        "OURS": {"name": "OURS", "score": 7.0, "metric_score": 7.0, "description": "made up", "options": ["a", "b"]},
    },
    "messages": {},
    "time_real": 0.001,
}


@dataclass(frozen=True)
class Act:
    """Read the question (or its head only), say these octets (`late`: once released), then close, reset or hang."""

    says: bytes = b""
    then: Literal["close", "reset", "hang"] = "close"
    reads: bool = True
    late: bool = False


def spamd_says(score: str = "7.2", report: str = REPORT) -> bytes:
    """The answer of spamd to REPORT."""
    text = f"SPAMD/1.1 0 EX_OK\r\nContent-length: {len(report)}\r\nSpam: True ; {score} / 4.0\r\n\r\n{report}"
    return text.encode()


def rspamd_says(body: str = json.dumps(_JSON), status: str = "200 OK") -> bytes:
    """The answer of rspamd to /checkv2."""
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nServer: rspamd/3.4\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\n"
    return f"{head}Content-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n{body}".encode()


def rspamd_json(**changed: object) -> bytes:
    """The answer of rspamd with other values; None takes a key away."""
    tree = {key: value for key, value in {**_JSON, **changed}.items() if value is not None}
    return rspamd_says(json.dumps(tree))


GOOD = {"spamd": Act(spamd_says()), "rspamd": Act(rspamd_says())}
ALIVE = {
    "spamd": Act(b"SPAMD/1.5 0 PONG\r\n"),
    "rspamd": Act(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\nContent-Type: text/plain\r\n\r\npong\r\n"
    ),
}


class FakeScorer:
    """Listens on `port` until `refuse`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.scan, self.ping = GOOD[engine], ALIVE[engine]
        self.port = Port()
        self.questions: list[str] = []  # "scan" or "ping", as they came
        self.heads: list[bytes] = []  # of the scans
        self.octets: list[int] = []  # of the messages that were read
        self.open = 0  # connections
        self.most_open = 0
        self._release, self._released = asyncio.Event(), asyncio.Event()
        self._loop = Loop("fake-scorer")
        self._server: asyncio.Server | None = None
        self._full: list[socket.socket] = []
        self.accept()

    @property
    def scans(self) -> int:
        """How often it was asked for a score."""
        return self.questions.count("scan")

    def accept(self) -> None:
        """Listen (again)."""
        self._server = self._loop.run(asyncio.start_server(self._serve, sock=self.port.listener()))

    def refuse(self) -> None:
        """Refuse new connections. Those that hang stay."""
        if self._server is not None:
            self._loop.run(stop_listening(self._server))
            self._server = None

    def fill(self) -> None:
        """Leave no room for a new connection: to connect takes for ever, as behind a firewall that drops packets."""
        self.refuse()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self.port.address)
        listener.listen(0)
        self._full = [listener]
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(self.port.address)
            self._full.append(client)

    def release(self) -> None:
        """Let those that are late be answered, and those that hang hear something: who has gone then resets."""
        self._loop.run(self._let_go())

    def close(self) -> None:
        """End it."""
        self.refuse()
        self._loop.close()
        for one in self._full:
            one.close()
        self.port.close()

    async def _let_go(self) -> None:
        self._released.set()
        self._release.set()
        self._release = asyncio.Event()  # those who come later wait again

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._answer(reader, writer)
        except (EOFError, ConnectionError):
            pass  # whom it serves has given up
        finally:
            writer.transport.abort()
            self.open -= 1

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        what = "ping" if head.startswith((b"PING ", b"GET /ping")) else "scan"
        act = self.ping if what == "ping" else self.scan
        if what == "scan":
            self.heads.append(head)
            if act.reads:
                self.octets.append(await _discard(reader, head))
        self.questions.append(what)  # who sees it there may release at once: nothing is awaited in between
        if act.late:
            await self._release.wait()
        writer.write(act.says)
        await writer.drain()
        if act.then == "hang":
            await self._hang(writer)
        elif act.then == "close":
            writer.close()
            await writer.wait_closed()
        else:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _hang(self, writer: asyncio.StreamWriter) -> None:
        await self._released.wait()
        while True:  # a question that was only given up on, and not ended, would be listened to for ever
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _discard(reader: asyncio.StreamReader, head: bytes) -> int:
    length = next(
        int(line.partition(b":")[2]) for line in head.splitlines() if line.lower().startswith(b"content-length:")
    )
    left = length
    while left:
        piece = await reader.read(min(left, 1 << 18))
        if not piece:
            raise EOFError
        left -= len(piece)
    return length
