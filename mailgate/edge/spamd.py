"""A spamd server (SpamAssassin), asked with REPORT. The protocol is aiospamc's, the connection is ours.

Promises: an answer by the deadline, a score or the reason why there is none; the message goes out once, in the pieces
that are in memory already; of the answer no more than _MOST is read; the connection ends with its question.
aiospamc's own connections promise none of this: after a time-out they stay open for as long as the server likes, they
hold three copies of a message, read without a bound, and read all certificates of the machine anew for each message
(0.1 s in which the loop stands still).
How it fails: never with an exception; see `core.scan.Unscored`. A truncated answer is no answer.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence

from aiospamc.client import Client as Protocol
from aiospamc.exceptions import BadResponse, NotEnoughDataError
from aiospamc.header_values import ContentLengthValue, SpamValue
from aiospamc.requests import Request
from aiospamc.responses import Response, ResponseException

from mailgate.core.endpoint import Endpoint
from mailgate.core.envelope import Client, Envelope, address_octets, printable
from mailgate.core.message import Message
from mailgate.core.scan import Scored, Unscored, report

_MOST = 64 * 1024  # octets of an answer
_PIECE = 256 * 1024  # octets that are given to the connection at a time


class Spamd:
    """The spamd server at `at`."""

    def __init__(self, at: Endpoint) -> None:
        self.name = str(at)
        self._at = at

    async def score(
        self,
        envelope: Envelope,
        message: Message,
        client: Client,  # noqa: ARG002  spamd reads it from Received
        deadline: float,
        queue_id: str = "",  # noqa: ARG002  the protocol has no place for it
    ) -> Scored | Unscored:
        """Its score for the message, by `deadline` (of the loop's clock)."""
        chunks = (_envelope_fields(envelope), *message.chunks)
        length = ContentLengthValue(sum(map(len, chunks)))
        answer = await self._ask(Request("REPORT", headers={"Content-length": length}), chunks, deadline)
        if isinstance(answer, Unscored):
            return answer
        spam = answer.headers.get("Spam")
        if not isinstance(spam, SpamValue) or not (math.isfinite(spam.score) and math.isfinite(spam.threshold)):
            return Unscored("garbage", f"no score: {spam}")
        return Scored(spam.score, spam.threshold, report(answer.body.decode("utf-8", "replace")), self.name)

    async def ping(self, deadline: float) -> str:
        """What is wrong with it, by `deadline`; "" if it is alive."""
        answer = await self._ask(Request("PING"), (), deadline)
        if isinstance(answer, Unscored):
            return answer.detail
        return "" if answer.message.strip() == "PONG" else f"PING answered with {printable(answer.message)}"

    async def close(self) -> None:
        """Nothing is held open."""

    async def _ask(self, request: Request, chunks: Sequence[bytes], deadline: float) -> Response | Unscored:
        exchange = _Exchange(self._at, chunks)
        try:
            async with asyncio.timeout_at(deadline):
                return await Protocol(exchange).request(request)
        except TimeoutError:
            return Unscored("timeout", exchange.stage)
        except OSError as error:
            return Unscored("closed" if exchange.connected else "refused", _said(error))
        except ResponseException as error:
            return Unscored("error", f"EX_ code {error.code}: {printable(str(error))}")
        except (BadResponse, ValueError) as error:
            if isinstance(error.__cause__, NotEnoughDataError):
                return Unscored("closed", f"the answer broke off behind {len(exchange.answer)} octets")
            return Unscored("garbage", f"not an answer: {printable(exchange.answer[:80].decode('utf-8', 'replace'))}")


class _Exchange:
    """One connection, one question, one answer: what aiospamc calls a connection manager."""

    def __init__(self, at: Endpoint, chunks: Sequence[bytes]) -> None:
        self._at = at
        self._chunks = chunks
        self.connected = False
        self.answer = b""
        self.stage = "no connection in time"

    async def request(self, head: bytes) -> bytes:
        """Send the head of the request, then the message; the whole answer."""
        if self._at.path:
            reader, writer = await asyncio.open_unix_connection(self._at.path)
        else:
            reader, writer = await asyncio.open_connection(self._at.host, self._at.port)
        self.connected, self.stage = True, "the message was not taken in time"
        try:
            writer.write(head)
            for chunk in self._chunks:
                for start in range(0, len(chunk), _PIECE):
                    writer.write(memoryview(chunk)[start : start + _PIECE])
                    await writer.drain()
            writer.write_eof()
            self.stage = "no answer in time"
            while piece := await reader.read(_MOST):
                self.answer += piece
                if len(self.answer) > _MOST:
                    raise ValueError("the answer has no end")
            return self.answer
        finally:
            writer.transport.abort()


def _said(error: OSError) -> str:
    """The system's word, not asyncio's sentence with the address in it."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _envelope_fields(envelope: Envelope) -> bytes:
    """The envelope as Exim shows it to spamd, so that rules that look at it come to the same score."""
    recipients = b", ".join(map(address_octets, envelope.recipients))
    return b"X-Envelope-From: <%s>\r\nX-Envelope-To: %s\r\n" % (address_octets(envelope.sender), recipients)
