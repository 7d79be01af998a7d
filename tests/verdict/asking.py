"""Asking at the verdict door as Exim 4.96 does, and a gate that has one, between a fake Mailman and a fake rspamd."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tests.edge.pair import mail
from tests.spam.desk import LIST, Desk
from tests.stack.gate import merged

SENDER = "ida@example.org"
EXIM_ID = "1xV0Ys-0004sm-35"
Address = tuple[str, int] | str


def copy(octets: bytes, sender: str = SENDER, recipients: Sequence[str] = (LIST,)) -> bytes:
    """A message as Exim shows it to a scanner: with LF, behind the lines of its envelope."""
    first = "From MAILER-DAEMON Sun Nov 22 10:16:00 2026\n"
    from_ = f"X-Envelope-From: <{sender}>\n" if sender else ""
    return f"{first}{from_}X-Envelope-To: {', '.join(recipients)}\n".encode() + octets.replace(b"\r\n", b"\n")


def rspamc(octets: bytes, sender: str = SENDER, recipients: Sequence[str] = (LIST,), exim_id: str = EXIM_ID) -> bytes:
    """The question of Exim's variant=rspamd."""
    shown = copy(octets, sender, recipients)
    lines = [
        "CHECK RSPAMC/1.3",
        f"Content-length: {len(shown)}",
        f"Queue-Id: {exim_id}",
        f"From: <{sender}>",
        f"Recipient-Number: {len(recipients)}",
        *(f"Rcpt: <{recipient}>" for recipient in recipients),
        "Helo: mx.example.net",
        "Hostname: mx.example.net",
        "IP: 192.0.2.7",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + shown


def spamc(octets: bytes, verb: str = "REPORT", version: str = "1.2") -> bytes:
    """The question of Exim's stock variant, and of spamc."""
    shown = copy(octets)
    return f"{verb} SPAMC/{version}\r\nUser: nobody\r\nContent-length: {len(shown)}\r\n\r\n".encode() + shown


def received(exim_id: str = EXIM_ID) -> bytes:
    """The field that Exim puts in front of a message before it asks."""
    by = "from mx.example.net by mx.lists.test with esmtp (Exim 4.96)"
    return f"Received: {by}\r\n\tid {exim_id};\r\n\tnow\r\n".encode()


def connect(door: Address, source: str = "") -> socket.socket:
    """A connection to the door, from that address if one is given; a minute of patience."""
    if isinstance(door, str):
        unix = socket.socket(socket.AF_UNIX)
        unix.settimeout(60)
        unix.connect(door)
        return unix
    return socket.create_connection(door, 60, (source, 0) if source else None)


def ask(door: Address, question: bytes, *, half: bool = False, source: str = "") -> str:
    """The whole answer. `half`: end our half behind the question, as the stock variant does."""
    with connect(door, source) as connection:
        connection.sendall(question)
        if half:
            connection.shutdown(socket.SHUT_WR)
        return answer(connection)


def answer(connection: socket.socket) -> str:
    """What comes until the other side ends."""
    said = b""
    while piece := connection.recv(65536):
        said += piece
    return said.decode("ascii")


def lines(said: str) -> dict[str, str]:
    """The answer's lines with a name in front (the last of a name)."""
    return dict(line.split(": ", 1) for line in said.split("\r\n") if ": " in line)


class Counter(Desk):
    """A desk with a verdict door, on TCP and on a unix socket."""

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings)
        host, port = self.gate.verdict
        self.unix = str(self.gate.directory / "verdict.sock")
        listen = {"verdict": {"listen": [f"{host}:{port}", f"unix:{self.unix}"]}}
        self._settings = merged(listen, self._settings)
        self.pair.configure(self._settings)

    @property
    def door(self) -> tuple[str, int]:
        """Where the verdict door listens on TCP."""
        return self.gate.verdict

    def post(self, *recipients: str, exim_id: str = EXIM_ID, body: bytes = b"A line.\r\n") -> tuple[str, bytes]:
        """A message of its own, and what Exim would ask of it."""
        self._sent += 1
        message_id = f"<{self._sent}@example.net>"
        octets = received(exim_id) + mail(message_id, body)
        return message_id, rspamc(octets, recipients=recipients or (LIST,), exim_id=exim_id)

    def verdict(self, message_id: str) -> dict[str, Any]:
        """What the log says of the verdict on it."""
        return self.event(message_id, "verdict.given")


@contextmanager
def open_counter(settings: Mapping[str, Any] | None = None) -> Iterator[Counter]:
    """A counter with its gate running."""
    counter = Counter(settings)
    try:
        counter.gate.start()
        yield counter
    except BaseException:
        counter.pair.expect_trouble()  # the test's own failure says more
        print(counter.gate.log.read_text()[-6000:])
        raise
    finally:
        counter.close()
