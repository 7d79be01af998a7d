"""The octets of one session: commands line by line, mail data in bulk, replies collected until we have to wait.

aiosmtpd reads DATA line by line and writes each reply by itself, which takes most of its time; this stands where its
StreamReader stood and has the two methods that it calls. What a client pipelined behind the final dot (RFC 2920)
stays in the buffer. At the peer's end of file the session ends as aiosmtpd ends it: by cancellation.
"""

from __future__ import annotations

import asyncio

MAX_LINE = 64 * 1024  # octets of a command line that are looked at; the session refuses far shorter ones
_READ = 256 * 1024
_WRITE = 16 * 1024  # octets of replies that are collected at most


class Wire:
    """Buffered reading and writing over asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._in = b""
        self._out: list[bytes] = []
        self._out_size = 0

    async def readuntil(self) -> bytes:
        """The next line with its end. Raises asyncio.LimitOverrunError for one longer than MAX_LINE."""
        while (end := self._in.find(b"\n")) < 0:
            if len(self._in) > MAX_LINE:
                raise asyncio.LimitOverrunError("a command line without end", len(self._in))
            self._in += await self._more()
        line, self._in = self._in[: end + 1], self._in[end + 1 :]
        return line

    async def read(self, count: int) -> bytes:
        """Up to `count` octets, at least one."""
        octets = self._in or await self.some()
        self._in = octets[count:]
        return octets[:count]

    async def some(self) -> bytes:
        """What the peer sends next, however little; what was to be said is said before we wait."""
        if self._in:
            octets, self._in = self._in, b""
            return octets
        return await self._more()

    async def _more(self) -> bytes:
        await self.flush()
        octets = await self._reader.read(_READ)
        if not octets:
            raise asyncio.CancelledError  # end of file
        return octets

    def unread(self, octets: bytes) -> None:
        """Put back what was read too far."""
        self._in = octets + self._in

    async def say(self, octets: bytes) -> None:
        """Say it, at the latest when we wait for the peer."""
        self._out.append(octets)
        self._out_size += len(octets)
        if self._out_size > _WRITE:
            await self.flush()

    async def flush(self) -> None:
        """Say what has been collected."""
        if self._out:
            self._writer.write(b"".join(self._out))
            self._out.clear()
            self._out_size = 0
            await self._writer.drain()
