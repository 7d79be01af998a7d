"""One LMTP connection to Mailman: octets out, replies in. RFC 2033, RFC 5321 §4.2.

Duty: hand out replies in order, say which extensions the server offers, bound the peer's output.
How it fails: every trouble (refused, closed, garbage) is `Broken` with a text for people; a wait without an answer is
the caller's deadline. After `Broken` the connection is closed and `usable` is False.
"""

from __future__ import annotations

import asyncio
import math
import os
from typing import cast

from mailgate.config import Endpoint
from mailgate.core.reply import Garbage, Reply, ReplyParser


class Broken(Exception):
    """The connection can't be used, or not any more."""


class Connection(asyncio.Protocol):
    """A connection whose LHLO has been answered, once `open_connection` returns it.

    `endpoint` is where it leads; `features` maps an LHLO keyword in capitals to its parameters; `size_limit` is what
    SIZE says in octets (RFC 1870 §4; 0: no limit); `pipelining` whether commands may be sent in groups. `reused` is
    True from the second transaction on; `expired` once a deadline has passed; `unsent` if what was written last had
    not all left us when it broke.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.features: dict[str, str] = {}
        self.size_limit = 0
        self.pipelining = False
        self.reused = False
        self.expired = False
        self.unsent = False
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._parser = ReplyParser()
        self._broken = ""
        self._garbled = False
        self._transport: asyncio.Transport | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._writable = True
        self._expires = math.inf
        self._timer: asyncio.TimerHandle | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except Garbage as error:
            self._garbled = True
            self._break(str(error))
        self._wake()

    def eof_received(self) -> bool:
        self._break("the server closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(f"connection lost: {exc}" if exc else "the server closed the connection")

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._writer and not self._writer.done():
            self._writer.set_result(None)

    # our side

    @property
    def usable(self) -> bool:
        """True if a new transaction may begin: open, and no reply is left over."""
        return not self._broken and self._parser.idle

    @property
    def excess(self) -> bool:
        """True if something has come that nobody has read: at a place where no reply is due, one too many."""
        return self._garbled or not self._parser.idle

    async def answered(self, count: int, deadline: float = math.inf, wait: float = math.inf) -> None:
        """Return when `count` replies are there to be taken, or the connection has broken: which it does at `deadline`
        (of the loop's clock), and when one of them does not come for `wait` seconds.
        """
        had = -1
        while (have := len(self._parser.replies)) < count and not self._broken:
            if have > had:  # what comes octet by octet earns no more time
                had = have
                self._expire_at(min(deadline, self._loop.time() + wait))
            self._reader = self._loop.create_future()
            await self._reader
        self._expires = math.inf

    def take(self) -> Reply:
        """The next of the replies that are there. Broken if there is none."""
        if not self._parser.replies:
            raise Broken(self._broken or "no reply has come")
        return self._parser.replies.pop(0)[0]

    def send(self, octets: bytes) -> None:
        """Write without waiting."""
        if self._broken or self._transport is None:
            raise Broken(self._broken or "not connected")
        self._transport.write(octets)

    async def drain(self, deadline: float) -> None:
        """Let others run, and wait until the socket takes more. Broken at `deadline`."""
        self._expire_at(deadline)
        await asyncio.sleep(0)  # else we would not hear that the connection has broken, and write on
        while not self._writable and not self._broken:
            self._writer = self._loop.create_future()
            await self._writer

    def close(self) -> None:
        """Give the connection up; what the socket has not taken yet is thrown away."""
        self._break("closed")

    async def greet(self, hostname: str) -> None:
        """Read the greeting and say LHLO. RFC 2033 §4.1."""
        await self.answered(1)
        greeting = self.take()
        if greeting.code != 220:
            raise Broken(f"greeted with {greeting}")
        self.send(f"LHLO {hostname}\r\n".encode())
        await self.answered(1)
        lines = self._parser.replies[0][1] if self._parser.replies else ()
        answer = self.take()
        if not answer.positive:
            raise Broken(f"LHLO answered with {answer}")
        for line in lines[1:]:
            keyword, _, parameters = line.partition(" ")
            self.features[keyword.upper()] = parameters
        size = self.features.get("SIZE", "")
        self.size_limit = int(size) if size.isdecimal() and size.isascii() else 0
        self.pipelining = "PIPELINING" in self.features

    def _expire_at(self, deadline: float) -> None:
        # One timer that is seldom moved is cheaper than one for each reply.
        self._expires = deadline
        if deadline < math.inf and (self._timer is None or self._timer.when() > deadline):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._expires <= self._loop.time():
            self.expired = True
            self._break("no answer in time")
        else:
            self._expire_at(self._expires)

    def _break(self, why: str) -> None:
        self._broken = self._broken or why
        if self._transport is not None:
            self.unsent = self.unsent or self._transport.get_write_buffer_size() > 0
            self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    def _wake(self) -> None:
        if self._reader and not self._reader.done():
            self._reader.set_result(None)
        if self._broken and self._writer and not self._writer.done():
            self._writer.set_result(None)


async def open_connection(endpoint: Endpoint, hostname: str) -> Connection:
    """Connect and greet; the caller bounds the time. Raises Broken with the address and the cause."""
    loop = asyncio.get_running_loop()
    connection = Connection(endpoint)
    try:
        if endpoint.path:
            await loop.create_unix_connection(lambda: connection, endpoint.path)
        else:
            await loop.create_connection(lambda: connection, endpoint.host, endpoint.port)
        await connection.greet(hostname)
    except OSError as error:
        connection.close()
        cause = os.strerror(error.errno) if error.errno else str(error)  # asyncio's own text says less
        raise Broken(f"{endpoint}: {cause}") from error
    except BaseException:
        connection.close()
        raise
    return connection
