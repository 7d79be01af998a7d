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
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, syntax

from mailgate.core.envelope import Door, Envelope, Peer
from mailgate.core.message import message
from mailgate.core.reply import Reply
from mailgate.edge.listener.intake import receive
from mailgate.edge.listener.wire import LineTooLong, Wire
from mailgate.edge.listener.words import command, path, usual_mail, usual_rcpt, worded

if TYPE_CHECKING:
    from mailgate.edge.listener.listener import Listener

MAX_UNKNOWN = 20  # commands that nobody knows, before we hang up
MAX_RECIPIENTS = 1000  # RFC 5321 §4.5.3.1.8 asks for 100
_LAST_WORDS = 2.0  # seconds in which a peer may read what we said last


@cache
def _commands(door: Door) -> list[str]:
    return [name for name in dir(LMTPSession if door == "lmtp" else Session) if name.startswith("smtp_")]


class Hooks:
    """What aiosmtpd asks its handler."""

    def __dir__(self) -> list[str]:
        return ["handle_MAIL", "handle_RCPT"]  # aiosmtpd looks through all members for every session

    async def handle_MAIL(  # noqa: N802  aiosmtpd's name
        self, server: Session, _session: Any, envelope: Any, address: str, options: list[str]
    ) -> str | bytes:
        if not server.listener.has_room:
            return "452 4.3.1 too much mail in flight, try again later"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return b"250 2.1.0 Ok"

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, _server: Session, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str | bytes:
        if address == "<>":
            return "553 5.1.3 the null path is no recipient"
        if len(envelope.rcpt_tos) >= MAX_RECIPIENTS:
            return "452 4.5.3 too many recipients"  # RFC 5321 §4.5.3.1.10
        envelope.rcpt_tos.append(address)
        return b"250 2.1.5 Ok"


class Session(SMTP):
    """The common part of both doors; one instance a connection."""

    door: Door = "smtp"

    def __init__(self, listener: Listener, hooks: Hooks) -> None:
        self.listener = listener
        # aiosmtpd keeps this in the class, where every new connection clears it for the others.
        self.command_size_limits: dict[str, int] = defaultdict(int)
        config = listener.config
        super().__init__(
            hooks,
            data_size_limit=config.relay.max_message_size,
            enable_SMTPUTF8=True,
            hostname=config.hostname,
            ident="mailgate LMTP" if self.door == "lmtp" else "mailgate ESMTP",
            timeout=config.relay.idle_timeout,
            loop=listener.loop,
        )
        self._phase = "command"
        self._heard = 0.0
        self._farewell = ""
        self._refused = False
        self._wire: Wire | None = None
        self._end: asyncio.TimerHandle | None = None

    def __dir__(self) -> list[str]:
        # aiosmtpd looks through all members of every new session for its commands; these are all that it finds.
        return _commands(self.door)

    # the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        refusal = self.listener.admit(self, transport)
        if refusal:
            self._refused = True
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(worded(refusal))
            transport.close()
            return
        transport.max_size = 64 * 1024  # type: ignore[attr-defined]  # a 256 KiB buffer for each read is slow
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
        if self._wire is not None:
            self._wire.feed(data)

    def _cb_client_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super()._cb_client_connected(reader, writer)
        self._wire = Wire(cast("asyncio.Transport", writer.transport), writer)

    @property
    def wire(self) -> Wire:
        assert self._wire is not None
        return self._wire

    # ends by time, and by the daemon's end

    def _reset_timeout(self, duration: float | None = None) -> None:  # noqa: ARG002  aiosmtpd's signature
        # aiosmtpd makes a new timer for each command; this one looks at the clock when it rings.
        self._heard = self.loop.time()
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_later(self._timeout_duration, self._timeout_cb)

    def _timeout_cb(self) -> None:
        left = self._heard + self._timeout_duration - self.loop.time()
        if self._phase == "relay":
            left = self._timeout_duration  # the relay keeps its own time
        if left > 0:
            self._timeout_handle = self.loop.call_later(left, self._timeout_cb)
        else:
            self.say_farewell("421 4.4.2 nothing was heard for too long", True)

    def say_farewell(self, reply: str, even_in_data: bool) -> None:  # noqa: FBT001  called by the loop
        """End the session with `reply`: now if it waits for a command (or mail data), else behind its replies."""
        self._farewell = reply
        if self._phase == "command" or (even_in_data and self._phase == "data"):
            self._hang_up()

    def abort(self) -> None:
        """End the session now, whatever it does."""
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()

    def _hang_up(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport) and not self.transport.is_closing():
            self.transport.write(worded(self._farewell))
            self._close()

    def _close(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.close()
            if self.transport.get_write_buffer_size():
                # asyncio waits until all is sent: for ever, if the peer does not read.
                self.loop.call_later(_LAST_WORDS, self.abort)

    # commands

    async def _handle_client(self) -> None:
        try:
            await self._dialogue()
        finally:
            self._close()  # at the peer's end of file, too

    async def _dialogue(self) -> None:
        """The session, command by command. aiosmtpd's loop answers exceptions with 500 and logs every line."""
        await self.push(f"220 {self.hostname} {self.__ident__}")
        unknown = 0
        # What was pipelined behind a farewell is not done: its replies would never be seen.
        while self.transport is not None and not self._farewell:
            if unknown == MAX_UNKNOWN:
                await self.wire.flush()
                self.say_farewell("421 4.7.0 too many unknown commands", True)
                return
            try:
                verb, arg = command(await self.wire.line())
            except LineTooLong:
                verb, arg = "", None
            method = self._smtp_methods.get(verb)
            self._reset_timeout()
            if method is None:
                unknown += 1
                await self.push("500 5.5.2 command not recognized" if verb else "500 5.5.2 not a command line")
                continue
            try:
                await method(arg)
            except Exception as error:  # noqa: BLE001  promise 2: our own faults are 4xx
                await self.push(await self.handle_exception(error))

    # replies

    async def push(self, status: str | bytes) -> None:
        """Say a reply: text is worded, octets are said as they are."""
        await self.wire.say(status + b"\r\n" if isinstance(status, bytes) else worded(status))
        if not isinstance(status, bytes) and status.startswith(("221", "421")):
            await self.wire.flush()  # aiosmtpd closes behind these

    async def handle_exception(self, error: Exception) -> str:
        trace = "".join(traceback.format_exception(error))
        self.listener.telemetry.event("session.failed", {"trace": trace}, level="error")
        return "451 4.3.0 trouble of our own, try again"

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
        # RFC 2033 §5 asks for the first two. No CHUNKING: Exim's cutthrough delivery ends where it is offered.
        lines = (
            self.hostname,
            "PIPELINING",
            "ENHANCEDSTATUSCODES",
            "8BITMIME",
            "SMTPUTF8",
            f"SIZE {self.listener.config.relay.max_message_size}",
        )
        said = "\r\n".join(f"250{'-' if line is not lines[-1] else ' '}{line}" for line in lines)
        await self.push(said.encode())

    # the envelope

    @syntax("MAIL FROM:<address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802  aiosmtpd's name
        # What Exim says for nearly every message is understood at a glance; aiosmtpd takes the rest apart.
        usual = usual_mail(arg) if arg else None
        assert self.session is not None
        assert self.envelope is not None
        listener = self.listener
        first = self.session.host_name and not self.envelope.mail_from
        if usual and first and listener.has_room and usual[1] <= listener.config.relay.max_message_size:
            self.envelope.mail_from = usual[0]
            self.envelope.mail_options = ["BODY=8BITMIME"] if usual[2] else []
            await self.push(b"250 2.1.0 Ok")
        else:
            await super().smtp_MAIL(arg)

    @syntax("RCPT TO:<address>", extended=" [SP <mail-parameters>]")
    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802  aiosmtpd's name
        usual = usual_rcpt(arg) if arg else None
        assert self.envelope is not None
        if usual and self.envelope.mail_from and len(self.envelope.rcpt_tos) < MAX_RECIPIENTS:
            self.envelope.rcpt_tos.append(usual)
            await self.push(b"250 2.1.5 Ok")
        else:
            await super().smtp_RCPT(arg)

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        # aiosmtpd reads them with the parser of header fields, which is slow, takes what is no path, and rewrites it.
        return path(arg) or (None, None)

    # the message

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802  aiosmtpd's name
        if await self.check_helo_needed("LHLO" if self.door == "lmtp" else "EHLO"):
            return
        envelope = self._taken_envelope()
        if not envelope.recipients:
            await self.push("503 5.5.1 no valid recipients")
            return
        if arg:
            await self.push("501 5.5.4 DATA takes no parameter")
            return
        await self.push(b"354 end with <CRLF>.<CRLF>")
        replies = await self._take(envelope)
        self._phase = "command"
        self._reset_timeout()
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        await self._say(replies, envelope)
        if self._farewell:
            await self.wire.flush()
            self._hang_up()

    def _taken_envelope(self) -> Envelope:
        taken = self.envelope
        assert taken is not None
        sender = taken.mail_from if taken.mail_from and taken.mail_from != "<>" else ""
        eight_bit = "BODY=8BITMIME" in taken.mail_options
        return Envelope(sender, tuple(taken.rcpt_tos), smtputf8=bool(taken.smtp_utf8), eight_bit=eight_bit)

    async def _take(self, envelope: Envelope) -> Sequence[Reply]:
        """Read the message and have it relayed. Replies for all, whatever happens."""
        assert self.session is not None
        peer = Peer(self.door, self.listener.address_of(self.session.peer), self.session.host_name or "")
        try:
            self._phase = "data"
            pieces, refusal = await receive(self.wire, self.listener, self._reset_timeout)
            self._phase = "relay"
            if refusal:
                return self.listener.turn_away(peer, envelope, *refusal)
            return await self.listener.relay(peer, envelope, message(pieces), sum(map(len, pieces)))
        except Exception as error:  # noqa: BLE001  promise 2 and 3: N times 4xx for our own faults
            await self.handle_exception(error)
            self._farewell = "421 4.3.0 trouble of our own, try again"  # where the peer stands can't be known any more
            return [Reply(451, "4.3.0", "trouble of our own, try again")] * len(envelope.recipients)

    async def _say(self, replies: Sequence[Reply], envelope: Envelope) -> None:
        """RFC 2033 §4.2: LMTP has a reply for each recipient; SMTP has one for all."""
        assert len(replies) == len(envelope.recipients)
        said = replies if self.door == "lmtp" else replies[:1]
        await self.wire.say(b"".join(worded(str(reply)) for reply in said))


class LMTPSession(Session, LMTP):
    """LMTP: LHLO instead of HELO and EHLO."""

    door: Door = "lmtp"
    smtp_LHLO = Session.smtp_EHLO  # noqa: N815  aiosmtpd's name
    smtp_HELO = LMTP.smtp_HELO  # noqa: N815  aiosmtpd's name
    smtp_EHLO = LMTP.smtp_EHLO  # noqa: N815  aiosmtpd's name
