"""One connection at the verdict door: a question, the message, an answer, the end.

Promises: an end within `verdict.budget` and a few seconds; of a message no more than `relay.max_message_size` octets
are kept; a peer that hangs up or ends its half does not end the story that has begun, whose record serves the relay
door all the same.
How it fails: what is no question, comes too slowly or finds no room is answered with an error of the protocol and the
event `verdict.refused`; a bug is one, too, and the event `session.failed`. Exim takes each as a reason to defer.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

from mailgate.core import spamc
from mailgate.core.mbox import Unwrapper
from mailgate.core.message import Message, message
from mailgate.core.reply import Reply
from mailgate.core.spamc import BadQuestion, Question, Variant
from mailgate.strays import caught

if TYPE_CHECKING:
    from mailgate.edge.verdictport.port import VerdictPort

READ_AHEAD = 256 * 1024  # octets that may wait to be read before the peer has to
_LAST_WORDS = 2.0  # seconds in which a peer may read what we said, and finish what it says


class _Refused(Exception):
    """There will be no verdict: what to say of it in the protocol and in the log, and how to count it."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(cause)
        self.reason = reason


class Session:
    """`asked` is True once the whole message has come."""

    def __init__(
        self, port: VerdictPort, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.asked = False
        self._port = port
        self._peer = peer
        self._reader = reader
        self._writer = writer
        self._variant: Variant = "RSPAMC"
        self._buffer = b""
        self._kept = 0  # octets, of those that the port counts as in flight
        self._deadline = asyncio.get_running_loop().time() + port.config.verdict.budget

    async def serve(self) -> None:
        """From the first octet to the last."""
        try:
            try:
                said = await self._answer()
            finally:
                self._keep(-self._kept)
            await self._say(said)
        except OSError as gone:  # the peer did not wait for the answer, or does not read it: it goes on without us
            self._port.telemetry.event("verdict.unheard", {"peer": self._peer, "cause": str(gone) or "too slow"})
        finally:
            self._writer.transport.abort()

    async def turn_away(self) -> None:
        """Say that there is no verdict now, whatever is asked, and keep nothing of it."""
        try:
            with contextlib.suppress(OSError):  # one that does not wait for it goes on without us, as it would anyway
                await self._say(spamc.failed(self._variant, "not now"))
        finally:
            self._writer.transport.abort()

    async def _answer(self) -> bytes:
        """What to say in the end; nothing to a peer that said nothing."""
        try:
            return await self._exchange()
        except BadQuestion as bad:
            return self._refuse(str(bad), "bad-question", spamc.refused(bad))
        except _Refused as no:
            return self._refuse(str(no), no.reason, spamc.failed(self._variant, str(no)))
        except TimeoutError:
            return self._refuse("too slow", "too-slow", spamc.failed(self._variant, "too slow"))
        except Exception:  # noqa: BLE001  promise 2: a bug of ours is no verdict
            self._port.telemetry.event("session.failed", {"trace": traceback.format_exc()}, level="error")
            return spamc.failed(self._variant, "trouble of our own")

    async def _exchange(self) -> bytes:
        async with asyncio.timeout_at(self._deadline):
            head = await self._head()
            if not head:
                return b""
            asked = spamc.question(head)
            self._variant = asked.variant
            if asked.verb == "PING":
                return spamc.pong(asked)
            asked, whole = await self._message(asked)
        self.asked = True
        if isinstance(whole, Message):
            found = await caught(self._port.judge(self._peer, asked, whole, self._deadline))
        else:
            found = self._port.turn_away(self._peer, asked, whole, "message-too-large")
        return spamc.answer(asked, found) if found else spamc.failed(self._variant, "trouble of our own")

    async def _head(self) -> bytes:
        """The question to its empty line; b"" if the peer ended without a word. What is behind stays in `_buffer`."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if spamc.bare_lf(self._buffer):
                raise BadQuestion("a line without CRLF")
            if len(self._buffer) > spamc.MAX_HEAD:
                raise BadQuestion("a question without end")
            piece = await self._read(READ_AHEAD)
            if not piece:
                if self._buffer:
                    raise BadQuestion("broke off")
                return b""
            self._buffer += piece
        head, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
        return head

    async def _message(self, asked: Question) -> tuple[Question, Message | Reply]:
        """The message, or the reply that refuses one that is too large (but it is read to its end); and the question
        with the envelope in it, if the copy says it.
        """
        most = self._port.config.relay.max_message_size
        unwrapper = Unwrapper(asked.envelope)
        pieces: list[bytes] = []
        size, left = 0, asked.length
        while True:
            piece = await self._some(left)
            left -= len(piece)
            octets = unwrapper.feed(piece, last=not left)
            size += len(octets)
            if size <= most:
                self._keep(len(octets))
                pieces.append(octets)
            else:
                self._keep(-self._kept)
                pieces.clear()
            if not left:
                break
        asked = replace(asked, envelope=unwrapper.envelope)
        too_large = Reply(552, "5.3.4", f"message larger than {most} octets")
        return asked, message(pieces, unwrapper.ends.bare_cr) if size <= most else too_large

    async def _some(self, most: int) -> bytes:
        """What comes next of the copy, at most so many octets."""
        if not most:
            return b""
        if self._buffer:
            piece, self._buffer = self._buffer[:most], b""
        else:
            piece = await self._read(min(most, READ_AHEAD))
        if not piece:
            raise _Refused("broke off", "broken-off")
        return piece

    async def _read(self, most: int) -> bytes:
        try:
            return await self._reader.read(most)
        except OSError as error:
            raise _Refused(error.strerror or str(error), "broken-off") from error

    def _keep(self, octets: int) -> None:
        """Count what is kept of the message (less than nothing: what is given up)."""
        if octets > 0 and not self._port.has_room:
            raise _Refused("too much mail in flight", "too-much-in-flight")
        self._kept += octets
        self._port.in_flight += octets

    def _refuse(self, cause: str, reason: str, said: bytes) -> bytes:
        fields = {"peer": self._peer, "cause": cause}
        self._port.telemetry.event("verdict.refused", fields, level="warning")
        self._port.telemetry.count("reasons", reason=reason)
        return said

    async def _say(self, octets: bytes) -> None:
        """The last that we say. To close at once would take it from a peer that has not finished what it says."""
        if not octets or self._writer.is_closing():  # to write would be a RuntimeError of uvloop's
            return
        left = self._port.config.relay.slack_size + spamc.MAX_HEAD  # the largest that Exim asks about
        async with asyncio.timeout(_LAST_WORDS):
            self._writer.write(octets)
            await self._writer.drain()
            if not self._writer.is_closing():
                self._writer.write_eof()
            while left > 0 and (piece := await self._reader.read(READ_AHEAD)):
                left -= len(piece)
