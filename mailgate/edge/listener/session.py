"""One session at the relay door, as aiosmtpd's protocol with its slow and its unsafe places replaced.

Replaced: DATA (read in bulk; as many replies as recipients on LMTP, whatever happens, RFC 2033 §4.2), paths (read by
a pattern of their own), replies (each has an enhanced code, RFC 2034, and never more than printable ASCII), the answer
to an exception (4xx, not 5xx), the ends by time. A peer that hangs up ends the session only when its message has been
relayed.
How it fails: an exception in a command is `451 4.3.0` and the event `session.failed`.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import syntax

from mailgate.core.envelope import Door, Envelope, Peer
from mailgate.core.message import message
from mailgate.core.reply import Reply
from mailgate.edge.listener.ending import Ending
from mailgate.edge.listener.glance import envelope_of, taken
from mailgate.edge.listener.hooks import Hooks, commands_of
from mailgate.edge.listener.intake import Intake
from mailgate.edge.listener.wire import LineTooLong, Wire
from mailgate.edge.listener.words import command, path, reply_line, worded
from mailgate.strays import caught

if TYPE_CHECKING:
    from mailgate.edge.listener.listener import Listener

MAX_UNKNOWN = 20  # commands that nobody knows, before we hang up
_DATA = b"DATA\r\n"
_PLAIN_DATA = ("DATA", None)
_TROUBLE = "trouble of our own, try again"
_TROUBLE_ENDS = f"421 4.3.0 {_TROUBLE}"


class Session(Ending):
    """The common part of both doors; one instance a connection."""

    door: Door = "smtp"

    def __init__(self, listener: Listener, hooks: Hooks) -> None:
        self.listener = listener
        # aiosmtpd keeps this in the class, where every new connection clears it for the others.
        self.command_size_limits: dict[str, int] = defaultdict(int)
        config = listener.config
        super().__init__(
            hooks,
            data_size_limit=config.relay.slack_size,
            enable_SMTPUTF8=True,
            hostname=config.hostname,
            ident="mailgate LMTP" if self.door == "lmtp" else "mailgate ESMTP",
            timeout=config.relay.idle_timeout,
            loop=listener.loop,
        )
        self._commands = commands_of(type(self))  # type: ignore[arg-type]  # a class can be hashed
        self._refused = False
        self._wire: Wire | None = None
        self._intake: Intake | None = None
        self._fault: Exception | None = None  # what went wrong while the task slept
        self._address = ""
        self._end: asyncio.TimerHandle | None = None

    # aiosmtpd's __init__ looks through all members of every session for its commands, and keeps them in _smtp_methods,
    # which only its HELP still reads. We know them: it finds none, and what it found is not kept.

    def __dir__(self) -> tuple[str, ...]:
        return ()

    @property
    def _smtp_methods(self) -> dict[str, Any]:
        return {verb: getattr(self, method) for verb, method in self._commands.items()}

    @_smtp_methods.setter
    def _smtp_methods(self, _found: dict[str, Any]) -> None: ...

    # the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Asked for once: a name that is known now may not be any more by the next question.
        self._address = self.listener.address_of(transport.get_extra_info("peername"))
        refusal = self.listener.admit(self, self._address)
        if refusal:
            self._refused = True
            self.transport = transport
            self._farewell = refusal
            self._hang_up()
            return
        super().connection_made(transport)
        self._end = self.loop.call_later(
            self.listener.config.relay.session_timeout, self.say_farewell, "421 4.4.2 the session took too long", True
        )

    def connection_lost(self, error: Exception | None) -> None:
        if self._refused:
            return
        if self._end:
            self._end.cancel()
        handling = self._handler_coroutine
        assert handling is not None
        handling.add_done_callback(lambda _: self.listener.gone(self))
        if self._phase != "relay":
            super().connection_lost(error)
            return
        # A message that is being relayed is relayed to its end, and only then the session ends. aiosmtpd would
        # cancel it here.
        self.wire.feed_eof()
        self.transport = None
        asyncio.StreamReaderProtocol.connection_lost(self, error)

    def eof_received(self) -> bool | None:
        # aiosmtpd would end the session here; a client that has said all may still read its replies.
        if self._wire is not None:
            self._wire.feed_eof()
        return self._wire is not None

    def data_received(self, data: bytes) -> None:
        wire = self._wire
        if wire is None:
            return
        if wire.idle and (self._intake is not None or not self._farewell):
            try:
                data = self._at_a_glance(data, wire)
            except Exception as error:  # noqa: BLE001  asyncio would drop the connection without a word
                self._fault, data = error, _DATA
                if self._intake is None:
                    self._tell_fault(error)
                    self.say_farewell(_TROUBLE_ENDS, True)
                    return
            if not data:
                wire.say_at_once()
                return
        wire.feed(data)

    def _cb_client_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super()._cb_client_connected(reader, writer)
        self._wire = Wire(cast("asyncio.Transport", writer.transport), writer)

    @property
    def wire(self) -> Wire:
        assert self._wire is not None
        return self._wire

    # commands

    async def _handle_client(self) -> None:
        try:
            await self._dialogue()
        finally:
            if self._intake is not None:
                self._intake.drop()
            self._close()  # at the peer's end of file, too

    async def _dialogue(self) -> None:
        """The session, command by command. aiosmtpd's loop answers exceptions with 500 and logs every line."""
        await self.push(self.greeting)
        unknown = 0
        # What was pipelined behind a farewell is not done: its replies would never be seen.
        while self.transport is not None and not self._farewell:
            if unknown == MAX_UNKNOWN:
                await self.wire.flush()
                self.say_farewell("421 4.7.0 too many unknown commands", True)
                return
            try:
                line = await self.wire.line()
                verb, arg = _PLAIN_DATA if line == _DATA else command(line)
            except LineTooLong:
                verb, arg = "", None
            method = self._commands.get(verb)
            self._reset_timeout()
            if method is None:
                unknown += 1
                await self.push("500 5.5.2 command not recognized" if verb else "500 5.5.2 not a command line")
                continue
            try:
                await getattr(self, method)(arg)
            except Exception as error:  # noqa: BLE001  promise 2: our own faults are 4xx
                await self.push(await self.handle_exception(error))

    # replies

    @property
    def greeting(self) -> str:
        """What we say first."""
        return f"220 {self.hostname} {self.__ident__}"

    async def push(self, status: str | bytes) -> None:
        """Say a reply: text is worded, octets are said as they are."""
        await self.wire.say(status + b"\r\n" if isinstance(status, bytes) else worded(status))
        if not isinstance(status, bytes) and status.startswith(("221", "421")):
            await self.wire.flush()  # aiosmtpd closes behind these

    async def handle_exception(self, error: Exception) -> str:
        self._tell_fault(error)
        return f"451 4.3.0 {_TROUBLE}"

    def _tell_fault(self, error: Exception) -> None:
        trace = "".join(traceback.format_exception(error))
        self.listener.telemetry.event("session.failed", {"trace": trace}, level="error")

    # the greeting

    @syntax("EHLO hostname")
    async def smtp_EHLO(self, arg: str | None) -> None:  # noqa: N802  aiosmtpd's name
        if not arg:
            await self.push("501 5.5.4 say your name, too")
            return
        assert self.session is not None
        self._set_rset_state()  # type: ignore[no-untyped-call]
        self.session.extended_smtp = True
        self.session.host_name = arg
        lines = (self.hostname, *self._keywords())
        said = "\r\n".join(f"250{'-' if line is not lines[-1] else ' '}{line}" for line in lines)
        await self.push(said.encode())

    def _keywords(self) -> tuple[str, ...]:
        # RFC 2033 §5 asks for the first two. No CHUNKING: Exim's cutthrough delivery ends where it is offered.
        size = f"SIZE {self.listener.config.relay.slack_size}"
        return "PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8", size

    async def check_helo_needed(self, _helo: str = "") -> bool:
        return await super().check_helo_needed("LHLO" if self.door == "lmtp" else "EHLO")

    # the envelope

    def _at_a_glance(self, octets: bytes, wire: Wire) -> bytes:
        """Do what Exim says for nearly every message, and read the message, without waking the session's task.

        What is left is for the task; a message that has been read is left to it as the DATA that began it.
        """
        intake, envelope, session = self._intake, self.envelope, self.session
        if intake is not None:
            self._heard = self.loop.time()
            return _DATA + intake.rest if intake.feed(octets) else b""
        if envelope is None or session is None or not session.host_name:
            return octets
        self._heard = self.loop.time()
        if octets != _DATA:
            octets = octets[envelope_of(octets, envelope, wire, self.listener) :]
        if octets == _DATA and envelope.rcpt_tos:
            self._begin_data(wire)
            return b""
        return octets

    def _begin_data(self, wire: Wire) -> None:
        self._phase = "data"
        self._intake = Intake(self.listener)
        wire.put(b"354 end with <CRLF>.<CRLF>\r\n")

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        # aiosmtpd reads them with the parser of header fields, which is slow, takes what is no path, and rewrites it.
        return path(arg) or (None, None)

    # the message

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802  aiosmtpd's name
        assert self.envelope is not None
        if self._intake is None:
            if await self.check_helo_needed():
                return
            if not self.envelope.rcpt_tos:
                await self.push("503 5.5.1 no valid recipients")
                return
            if arg:
                await self.push("501 5.5.4 DATA takes no parameter")
                return
            self._begin_data(self.wire)
        envelope = taken(self.envelope)
        replies = await self._take(envelope)
        self._phase = "command"
        self._heard = self.loop.time()
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        await self._say(replies, envelope)
        if self._farewell:
            await self.wire.flush()
            self._hang_up()

    async def _take(self, envelope: Envelope) -> Sequence[Reply]:
        """Read the message to its end and have it relayed. Replies for all, whatever happens."""
        intake = self._intake
        assert intake is not None
        peer = self._peer()
        try:
            await self._read(intake)
            self._phase = "relay"
            if intake.refusal:
                return self.listener.turn_away(peer, envelope, *intake.refusal)
            return await caught(self.listener.handle(peer, envelope, message(intake.pieces, intake.bare_cr)))
        except Exception as error:  # noqa: BLE001  promise 2 and 3: N times 4xx for our own faults
            await self.handle_exception(error)
            self._farewell = _TROUBLE_ENDS  # where the peer stands can't be known any more
            return [Reply(451, "4.3.0", _TROUBLE)] * len(envelope.recipients)
        finally:
            self._intake = None
            intake.drop()

    def _peer(self) -> Peer:
        return Peer(self.door, self._address, (self.session and self.session.host_name) or "")

    async def _read(self, intake: Intake) -> None:
        if self._fault is not None:
            raise self._fault
        while not intake.done:
            if intake.feed(await self.wire.some()):
                self.wire.unread(intake.rest)
            self._heard = self.loop.time()

    async def _say(self, replies: Sequence[Reply], envelope: Envelope) -> None:
        """RFC 2033 §4.2: LMTP has a reply for each recipient; SMTP has one for all."""
        assert len(replies) == len(envelope.recipients)
        said = replies if self.door == "lmtp" else replies[:1]
        await self.wire.say(b"".join(map(reply_line, said)))


class LMTPSession(Session, LMTP):
    """LMTP: LHLO instead of HELO and EHLO."""

    door: Door = "lmtp"
    smtp_LHLO = Session.smtp_EHLO  # noqa: N815  aiosmtpd's name
    smtp_HELO = LMTP.smtp_HELO  # noqa: N815  aiosmtpd's name
    smtp_EHLO = LMTP.smtp_EHLO  # noqa: N815  aiosmtpd's name
