"""An rspamd server, asked with POST /checkv2 through aiohttp.

Promises: an answer by the deadline, a score or the reason why there is none; the message goes out once, in the pieces
that are in memory already; of the answer no more than _MOST is read; no connection is used twice (one that rspamd has
just closed would look like a server that is down).
How it fails: never with an exception; see `core.scan.Unscored`. A truncated answer is no answer.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter

from mailgate.core.endpoint import Endpoint
from mailgate.core.envelope import Client, Envelope, printable
from mailgate.core.message import Message
from mailgate.core.scan import Scored, Unscored, report

_MOST = 1024 * 1024  # octets of an answer: it names every symbol, address and URL of the message
_PIECE = 256 * 1024  # octets that are given to the connection at a time


class Rspamd:
    """The rspamd server at `at`: its normal worker or a proxy, not the controller."""

    def __init__(self, at: Endpoint) -> None:
        self.name = str(at)
        self._path = at.path
        self._base = "http://localhost" if at.path else f"http://{at}"
        self._session: aiohttp.ClientSession | None = None

    async def score(
        self, envelope: Envelope, message: Message, client: Client, deadline: float, queue_id: str = ""
    ) -> Scored | Unscored:
        """Its score for the message, by `deadline` (of the loop's clock)."""
        fields = [*_fields(envelope, client, queue_id), ("Content-Length", str(message.size))]
        body = _Body(_pieces(message))
        try:
            answer = await self._ask("POST", "/checkv2", deadline, fields, body)
        finally:
            body.abort()
        if isinstance(answer, Unscored):
            return answer
        try:
            return _scored(json.loads(answer), self.name)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            return Unscored("garbage", f"not an answer: {printable(str(error))[:200]}")

    async def ping(self, deadline: float) -> str:
        """What is wrong with it, by `deadline`; "" if it is alive."""
        answer = await self._ask("GET", "/ping", deadline)
        if isinstance(answer, Unscored):
            return answer.detail
        said = answer.decode("utf-8", "replace").strip()
        return "" if said == "pong" else f"/ping answered with {printable(said[:80])}"

    async def close(self) -> None:
        """End what is open."""
        if self._session:
            await self._session.close()

    async def _ask(
        self,
        method: str,
        path: str,
        deadline: float,
        fields: Iterable[tuple[str, str]] = (),
        body: _Body | None = None,
    ) -> bytes | Unscored:
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._client().request(
                    method, self._base + path, headers=fields, data=body, allow_redirects=False
                ) as response,
            ):
                answer = await _read(response)
                if response.status != 200:
                    said = answer[:200].decode("utf-8", "replace")
                    return Unscored("error", printable(f"HTTP status {response.status}: {said}"))
                return answer
        except TimeoutError:
            return Unscored("timeout", "no answer in time")
        except aiohttp.ClientConnectorError as error:
            number = error.os_error.errno or 0  # the name server's are negative
            return Unscored("refused", os.strerror(number) if number > 0 else str(error.os_error))
        except (aiohttp.ClientResponseError, aiohttp.InvalidURL, ValueError) as error:
            return Unscored("garbage", f"not an answer: {printable(str(error))[:200]}")
        except (aiohttp.ClientError, OSError) as error:
            return Unscored("closed", printable(str(error) or type(error).__name__)[:200])

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = (
                aiohttp.UnixConnector(self._path, force_close=True, limit=0)
                if self._path
                else aiohttp.TCPConnector(force_close=True, limit=0)
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the deadline is the caller's
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept-Encoding", "Content-Type"),
                auto_decompress=False,
            )
        return self._session


def _fields(envelope: Envelope, client: Client, queue_id: str) -> Iterator[tuple[str, str]]:
    """What rspamd can't see in the message. It takes an absent field for "not known"."""
    known = {"IP": client.ip, "Helo": client.helo, "Hostname": client.host, "User": client.user, "Queue-Id": queue_id}
    yield from ((name, printable(value)) for name, value in known.items() if value)
    if not envelope.sender or _plain(envelope.sender):
        yield "From", f"<{envelope.sender}>"
    yield from (("Rcpt", f"<{recipient}>") for recipient in envelope.recipients if _plain(recipient))


def _plain(address: str) -> bool:
    """Does rspamd understand it? For an address that it does not it adds 10 points to the message (BROKEN_HEADERS)."""
    return address.isascii() and address.isprintable() and "@" in address


class _Body(aiohttp.AsyncIterablePayload):
    """The body of a question. Who gives up on it calls `abort`: aiohttp would leave the connection open until the
    server has taken what is still to be sent, and one that hangs never does.
    """

    _transport: asyncio.Transport | None = None

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        if isinstance(writer, StreamWriter):
            self._transport = writer.transport
        await super().write_with_length(writer, content_length)

    def abort(self) -> None:
        """End the connection now; nothing happens if it has ended."""
        if self._transport:
            self._transport.abort()


async def _pieces(message: Message) -> AsyncIterator[bytes]:
    for chunk in message.chunks:
        for start in range(0, len(chunk), _PIECE):
            yield chunk[start : start + _PIECE]


async def _read(response: aiohttp.ClientResponse) -> bytes:
    answer = bytearray()
    async for piece in response.content.iter_any():
        answer += piece
        if len(answer) > _MOST:
            raise ValueError("the answer has no end")
    return bytes(answer)


def _scored(answer: Any, server: str) -> Scored:
    """What the answer says. Raises one of the errors of wrong types and values where it does not make sense."""
    symbols = sorted(answer.get("symbols", {}).items(), key=lambda entry: -abs(_number(entry[1]["score"])))
    lines = [f"Action: {answer['action']}"]
    for name, symbol in symbols:
        options = ", ".join(map(str, symbol.get("options", ())))
        lines.append(f"Symbol: {name}({symbol['score']:.2f})" + (f"[{options}]" if options else ""))
    text = report("\n".join(line.replace("\n", " ") for line in lines))
    return Scored(_number(answer["score"]), _number(answer["required_score"]), text, server)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)
