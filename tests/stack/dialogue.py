"""One SMTP or LMTP connection, understood from the octets of its two sides. No I/O.

Feed it what the client sent and what the server sent, in the order in which they passed. It pairs each reply with its
command, also when commands are pipelined, and keeps each transaction: the commands of the envelope as they were
written, the octets of the message with dot-stuffing undone (RFC 5321 §4.5.2), and the replies after the final dot: one
for each accepted recipient in LMTP (RFC 2033 §4.2), one in SMTP.
"""

import re
from collections import deque
from dataclasses import dataclass, field

_PATH = re.compile(rb"<(.*)>")


def unstuffed(data: bytes) -> bytes:
    """The message in what was sent between the reply 354 and the final dot."""
    return data.removeprefix(b".").replace(b"\r\n.", b"\r\n")


def stuffed(message: bytes) -> bytes:
    """What a client sends for a message, with the final dot. A last line without CRLF gets one."""
    dotted = message.replace(b"\r\n.", b"\r\n..")
    if dotted.startswith(b"."):
        dotted = b"." + dotted
    return dotted + (b"" if not dotted or dotted.endswith(b"\r\n") else b"\r\n") + b".\r\n"


@dataclass
class Recipient:
    """A RCPT command and the reply to it."""

    command: bytes
    reply: bytes

    @property
    def address(self) -> str:
        """The address between the brackets, UTF-8 as text."""
        return _address(self.command)

    @property
    def accepted(self) -> bool:
        """Did the server say 250?"""
        return self.reply.startswith(b"2")


@dataclass
class Transaction:
    """A message as it passed: MAIL, the RCPTs, the octets after DATA, and the replies, each a line without CRLF."""

    mail: bytes
    connection: int = 0
    recipients: list[Recipient] = field(default_factory=list)
    octets: bytes = b""
    owed: int = 1  # replies due after the final dot
    replies: list[bytes] = field(default_factory=list)

    @property
    def answered(self) -> bool:
        """Have all replies passed?"""
        return len(self.replies) >= self.owed

    @property
    def sender(self) -> str:
        """The reverse-path, "" for the null one."""
        return _address(self.mail)

    @property
    def accepted(self) -> list[str]:
        """The recipients that the server accepted at RCPT; each is owed a reply."""
        return [recipient.address for recipient in self.recipients if recipient.accepted]

    @property
    def delivered(self) -> list[str]:
        """The recipients for which the server took the message."""
        return [address for address, reply in zip(self.accepted, self.replies, strict=False) if reply.startswith(b"2")]


class Dialogue:
    """The state of one connection. `transactions` has those whose final dot has passed."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.commands: list[bytes] = []
        self.transactions: list[Transaction] = []
        self.unasked: list[bytes] = []  # replies to nothing
        self._lmtp = False
        self._in_data = False
        self._open: Transaction | None = None
        self._from_client = bytearray()
        self._from_server = bytearray()
        self._scanned = 0
        self._awaited: deque[bytes | Transaction] = deque([b"greeting"])

    def client(self, octets: bytes) -> None:
        """The client sent this."""
        self._from_client += octets
        self._read_client()

    def server(self, octets: bytes) -> None:
        """The server sent this."""
        self._from_server += octets
        while (end := self._from_server.find(b"\n")) >= 0:
            line = bytes(self._from_server[:end]).rstrip(b"\r")
            del self._from_server[: end + 1]
            if line[3:4] != b"-":
                self._replied(line)

    def _read_client(self) -> None:
        # After DATA we must know the reply before we know what the client's next octets are.
        while self._awaited.count(b"DATA") == 0 and (self._read_message() if self._in_data else self._read_command()):
            pass

    def _read_command(self) -> bool:
        end = self._from_client.find(b"\n")
        if end < 0:
            return False
        line = bytes(self._from_client[:end]).rstrip(b"\r")
        del self._from_client[: end + 1]
        self.commands.append(line)
        verb = line.partition(b" ")[0].upper()
        self._awaited.append(verb if verb == b"DATA" else line)
        return True

    def _read_message(self) -> bool:
        if self._from_client.startswith(b".\r\n"):
            end, after = 0, 3
        else:
            end = self._from_client.find(b"\r\n.\r\n", max(0, self._scanned - 4)) + 2
            after = end + 3
        if end == 1:
            self._scanned = len(self._from_client)
            return False
        self._message(unstuffed(bytes(self._from_client[:end])))
        del self._from_client[:after]
        return True

    def _message(self, octets: bytes) -> None:
        done = self._open or Transaction(b"")
        done.octets = octets
        done.owed = len(done.accepted) if self._lmtp else 1
        self._awaited.extend([done] * done.owed)
        self.transactions.append(done)
        self._open, self._in_data, self._scanned = None, False, 0

    def _replied(self, line: bytes) -> None:
        if not self._awaited:
            self.unasked.append(line)
            return
        asked = self._awaited.popleft()
        if isinstance(asked, Transaction):
            asked.replies.append(line)
            return
        verb = asked.partition(b" ")[0].upper()
        good = line.startswith((b"2", b"3"))
        if verb == b"DATA":
            self._in_data = good
            self._read_client()
        elif verb == b"RCPT" and self._open:
            self._open.recipients.append(Recipient(asked, line))
        elif verb == b"MAIL" and good:
            self._open = Transaction(asked, self.number)
        elif verb in {b"RSET", b"HELO", b"EHLO", b"LHLO"} and good:
            self._open = None
            self._lmtp = self._lmtp or verb == b"LHLO"


def _address(command: bytes) -> str:
    found = _PATH.search(command)
    return found.group(1).decode("utf-8", "surrogateescape") if found else ""
