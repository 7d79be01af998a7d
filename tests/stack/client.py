"""A plain SMTP or LMTP client for tests: says exactly what it is told, octet for octet, and keeps every reply.

    with Client(stack.exim.address, source="127.9.8.7") as client:
        result = client.deliver("bob@example.net", ["list@lists.test"], octets)

Every wait ends after `timeout` seconds with TimeoutError. A connection that the server closed shows as EOFError.
"""

import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.stack.dialogue import stuffed
from tests.stack.waiting import PATIENCE


@dataclass(frozen=True)
class Reply:
    """A reply, of one line or many. `lines` are without the code and CRLF."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """All lines as one."""
        return "\n".join(self.lines)

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


@dataclass(frozen=True)
class Result:
    """What came of a transaction. `final` has one reply for each accepted recipient (LMTP), or one (SMTP), or none."""

    mail: Reply
    recipients: tuple[Reply, ...]
    data: Reply | None
    final: tuple[Reply, ...]

    @property
    def codes(self) -> list[int]:
        """The codes of the final replies."""
        return [reply.code for reply in self.final]


class Client:
    """A connection, greeted and with its HELO said. `address` is (host, port), or the path of a unix socket."""

    def __init__(
        self,
        address: tuple[str, int] | Path,
        *,
        lmtp: bool = False,
        source: str = "127.0.0.1",
        helo: str = "client.example.net",
        timeout: float = PATIENCE,
        hello: bool = True,
    ) -> None:
        self.lmtp = lmtp
        self.extensions: dict[str, str] = {}
        self._socket = _connected(address, timeout, source)
        self._file = self._socket.makefile("rb")
        try:
            if hello:
                self.greeting = self.reply()
                self.hello(helo)
        except BaseException:
            self.close()
            raise

    def hello(self, name: str) -> Reply:
        """Say LHLO or EHLO; what the server offers is in `extensions` (keyword → argument)."""
        reply = self.command(f"{'LHLO' if self.lmtp else 'EHLO'} {name}")
        words = [line.partition(" ") for line in reply.lines[1:]]
        self.extensions = {keyword.upper(): argument for keyword, _, argument in words}
        return reply

    def send(self, octets: bytes) -> None:
        """Send these octets and nothing else."""
        self._socket.sendall(octets)

    def reply(self) -> Reply:
        """Read one reply."""
        lines: list[str] = []
        while True:
            line = self._file.readline()
            if not line.endswith(b"\n"):
                raise EOFError(f"the server closed the connection after {lines!r} {line!r}")
            text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
            lines.append(text[4:])
            if text[3:4] != "-":
                return Reply(int(text[:3]), tuple(lines))

    def replies(self, count: int) -> tuple[Reply, ...]:
        """Read that many replies."""
        return tuple(self.reply() for _ in range(count))

    def silent(self, seconds: float) -> bool:
        """Does the server say nothing (and keep the connection) for so long?"""
        before = self._socket.gettimeout()
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(before)
        return False

    def command(self, line: str | bytes) -> Reply:
        """Send a command, read its reply."""
        octets = line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape")
        self.send(octets + b"\r\n")
        return self.reply()

    def deliver(self, sender: str, recipients: Sequence[str], message: bytes, parameters: str = "") -> Result:
        """A whole transaction, a command at a time; dots are stuffed. Ends with RSET when no recipient is accepted."""
        mail = self.command(f"MAIL FROM:<{sender}>{' ' + parameters if parameters else ''}")
        answers = tuple(self.command(f"RCPT TO:<{recipient}>") for recipient in recipients)
        accepted = sum(answer.code == 250 for answer in answers)
        if mail.code != 250 or not accepted:
            self.command("RSET")
            return Result(mail, answers, None, ())
        data = self.command("DATA")
        if data.code != 354:
            return Result(mail, answers, data, ())
        self.send(stuffed(message))
        return Result(mail, answers, data, self.replies(accepted if self.lmtp else 1))

    def pipeline(self, commands: Iterable[str]) -> tuple[Reply, ...]:
        """Send the commands in one write, then read a reply for each."""
        lines = [command.encode("utf-8", "surrogateescape") + b"\r\n" for command in commands]
        self.send(b"".join(lines))
        return self.replies(len(lines))

    def quit(self) -> Reply:
        """Say QUIT, then close."""
        try:
            return self.command("QUIT")
        finally:
            self.close()

    def close(self) -> None:
        """Close without a word."""
        self._file.close()
        self._socket.close()

    def abort(self) -> None:
        """Close so that the server sees a reset, not an end."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _connected(address: tuple[str, int] | Path, timeout: float, source: str) -> socket.socket:
    if not isinstance(address, Path):
        return socket.create_connection(address, timeout, (source, 0))
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(str(address))
    except BaseException:
        connection.close()
        raise
    return connection
