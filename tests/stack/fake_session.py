"""One connection to a fake Mailman: the dialogue as Mailman core 3.3.10 leads it, unless the script says otherwise.

The words are those of Mailman's LMTP runner and of the aiosmtpd below it; test_fake_mailman.py holds them against the
real ones.
"""

import asyncio
import email
import re
import socket
import struct
from dataclasses import dataclass, field

from tests.stack.dialogue import unstuffed
from tests.stack.fake_script import Act, Script, Stage, Then

_LONGEST_LINE = 1001  # with CRLF, before dots are unstuffed
_NO_MAILBOX = "550 Requested action not taken: mailbox unavailable"
_HELO_FIRST = "503 Error: send HELO first"
_PATH = re.compile(r"(?:FROM|TO): *<([^<>]*)> *(.*)", re.IGNORECASE)
_READ = 2**18


@dataclass(frozen=True)
class Manner:
    """What a server offers in LHLO, and the lists it has (None: any address is a list)."""

    extensions: tuple[str, ...] = ("SIZE 33554432", "8BITMIME", "HELP")
    lists: frozenset[str] | None = None

    def offers(self, keyword: str) -> bool:
        """Is this extension offered?"""
        return any(one.split()[0] == keyword for one in self.extensions)

    @property
    def size(self) -> int:
        """The biggest message, in octets; 0: no limit."""
        return next((int(one.split()[1]) for one in self.extensions if one.startswith("SIZE ")), 0)


@dataclass(frozen=True)
class Taken:
    """A message that was taken, for these recipients."""

    sender: str
    parameters: str
    recipients: tuple[str, ...]
    octets: bytes
    connection: int

    @property
    def message_id(self) -> str:
        """Its Message-ID, "" when it has none."""
        found = re.search(rb"(?im)^message-id: *(.*?)\r?$", self.octets.partition(b"\r\n\r\n")[0])
        return found.group(1).decode() if found else ""


@dataclass
class Session:
    """Reads commands and answers them until the connection ends (EOFError)."""

    manner: Manner
    script: Script
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int = 0
    taken: list[Taken] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    greeted: bool = False
    sender: str | None = None
    parameters: str = ""
    recipients: list[str] = field(default_factory=list)
    _read: bytearray = field(default_factory=bytearray)

    async def run(self) -> None:
        """The whole dialogue."""
        await self._answer(Stage.GREETING, f"220 {socket.getfqdn()} GNU Mailman LMTP runner 2.0")
        while True:
            text = (await self._up_to(b"\n")).decode("utf-8", "surrogateescape").rstrip("\r\n")
            self.commands.append(text)
            verb, _, argument = text.partition(" ")
            await self._command(verb.upper(), argument.strip())

    async def _command(self, verb: str, argument: str) -> None:
        if not argument.isascii() and not self.manner.offers("SMTPUTF8"):
            await self._say("500 Error: strict ASCII mode")
        elif verb == "LHLO":
            await self._lhlo(argument)
        elif verb == "MAIL":
            await self._mail(argument)
        elif verb == "RCPT":
            await self._rcpt(argument)
        elif verb == "DATA":
            await self._data()
        elif verb == "RSET":
            self._forget()
            await self._answer(Stage.RSET, "250 OK")
        elif verb == "NOOP":
            await self._answer(Stage.NOOP, "250 OK")
        elif verb == "QUIT":
            await self._answer(Stage.QUIT, "221 Bye")
            raise EOFError
        else:
            await self._say(f'500 Error: command "{verb}" not recognized' if verb else "500 Error: bad syntax")

    async def _lhlo(self, name: str) -> None:
        if not name:
            await self._say("501 Syntax: EHLO hostname")
            return
        self.greeted = True
        self._forget()
        lines = [socket.getfqdn(), *self.manner.extensions]
        await self._answer(Stage.LHLO, *(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}")

    async def _mail(self, argument: str) -> None:
        path = _PATH.fullmatch(argument)
        problem = self._trouble_with_mail(path)
        said = await self._answer(Stage.MAIL, problem or "250 OK")
        if path and said.startswith("2"):
            self.sender, self.parameters = path[1], path[2]

    def _trouble_with_mail(self, path: re.Match[str] | None) -> str:
        if not self.greeted:
            return _HELO_FIRST
        if not path:
            return "501 Syntax: MAIL FROM: <address> [SP <mail-parameters>]"
        if self.sender is not None:
            return "503 Error: nested MAIL command"
        for word in path[2].upper().split():
            name, _, value = word.partition("=")
            if name == "SMTPUTF8" and not self.manner.offers(name):
                return "501 Error: SMTPUTF8 disabled"
            if name == "SIZE" and 0 < self.manner.size < int(value):
                return "552 Error: message size exceeds fixed maximum message size"
            if name not in {"SIZE", "BODY", "SMTPUTF8"}:
                return "555 MAIL FROM parameters not recognized or not implemented"
        return ""

    async def _rcpt(self, argument: str) -> None:
        path = _PATH.fullmatch(argument)
        address = path[1] if path else ""
        if not self.greeted:
            usual = _HELO_FIRST
        elif self.sender is None:
            usual = "503 Error: need MAIL command"
        elif not path:
            usual = "501 Syntax: RCPT TO: <address> [SP <mail-parameters>]"
        elif path[2]:
            usual = "555 RCPT TO parameters not recognized or not implemented"
        else:
            usual = "250 Ok" if self._is_list(address) else _NO_MAILBOX
        act = self.script.act(Stage.RCPT, address) or self.script.act(Stage.RCPT)
        said = await self._perform(act or Act(), [usual])
        if said.startswith("2"):
            self.recipients.append(address)

    def _is_list(self, address: str) -> bool:
        return self.manner.lists is None or address.lower() in self.manner.lists

    async def _data(self) -> None:
        usual = "354 End data with <CR><LF>.<CR><LF>"
        if not self.recipients:
            usual = "503 Error: need RCPT command" if self.greeted else _HELO_FIRST
        if not (await self._answer(Stage.DATA, usual)).startswith("3"):
            return
        sent = await self._message()
        replies = _lie(sent, self.manner.size) or self._reply_each()
        act = self.script.act(Stage.DOT) or Act()
        self._take(act, list(act.instead or replies), unstuffed(sent))
        if not replies[0].startswith("500 Error"):  # aiosmtpd forgets the envelope only when no exception came
            self._forget()
        await self._perform(act, replies)

    def _reply_each(self) -> list[str]:
        acts = [self.script.act(Stage.DOT, recipient) for recipient in self.recipients]
        return [act.instead[0] if act and act.instead else "250 Ok" for act in acts]

    def _take(self, act: Act, replies: list[str], octets: bytes) -> None:
        if act.took is None:
            pairs = zip(self.recipients, replies if act.raw is None else [], strict=False)
            recipients = tuple(one for one, reply in pairs if reply.startswith("2"))
        else:
            recipients = tuple(self.recipients) if act.took else ()
        if recipients:
            self.taken.append(Taken(self.sender or "", self.parameters, recipients, octets, self.number))

    def _forget(self) -> None:
        self.sender, self.parameters, self.recipients = None, "", []

    async def _answer(self, stage: Stage, *usual: str) -> str:
        return await self._perform(self.script.act(stage) or Act(), list(usual))

    async def _perform(self, act: Act, usual: list[str]) -> str:
        """Answer as `act` says; the first line of it, "" for none."""
        lines = [*(usual if act.instead is None else act.instead)][: act.lines] + list(act.extra)
        octets = [line.encode() + b"\r\n" for line in lines] if act.raw is None else [act.raw]
        left = act.octets
        for piece in octets:
            await asyncio.sleep(act.pause)
            self.writer.write(piece[:left])
            await self.writer.drain()
            left = None if left is None else max(0, left - len(piece))
        await self._then(act.then)
        return lines[0] if lines and act.raw is None else ""

    async def _then(self, then: Then) -> None:
        if then is Then.HANG:
            await self._silence()
        if then is Then.RESET:
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if then is not Then.GO_ON:
            raise EOFError

    async def _silence(self) -> None:
        while await self.reader.read(_READ):
            pass

    async def _say(self, line: str) -> None:
        await self._perform(Act(), [line])

    async def _up_to(self, end: bytes) -> bytes:
        """The octets up to and with `end`. EOFError if they do not come."""
        start = 0
        while (place := self._read.find(end, start)) < 0:
            start = max(0, len(self._read) - len(end) + 1)
            octets = await self.reader.read(_READ)
            if not octets:
                raise EOFError
            self._read += octets
        piece = bytes(self._read[: place + len(end)])
        del self._read[: place + len(end)]
        return piece

    async def _message(self) -> bytes:
        """What is sent before the final dot."""
        self._read[:0] = b"\r\n"  # so that a final dot right at the start is found, too
        return (await self._up_to(b"\r\n.\r\n"))[2:-3]


def _lie(sent: bytes, size: int) -> list[str]:
    """The one reply that Mailman gives for all recipients when it does not like the message, or none."""
    if max(len(line) for line in sent.split(b"\r\n")) + 2 > _LONGEST_LINE:
        return ["500 Line too long (see RFC5321 4.5.3.1.6)"]
    if 0 < size < len(sent):
        return ["552 Error: Too much mail data"]
    message = email.message_from_bytes(unstuffed(sent))
    identifier = message.get("message-id", "")
    if not isinstance(identifier, str):  # a header with 8-bit octets is an object of another class
        return ["500 Error: (TypeError) expected string or bytes-like object, got 'Header'"]
    return ["501 Message has defects"] if message.defects else []
