"""The octets of one session: commands line by line, mail data in bulk, replies collected until we have to wait.

aiosmtpd reads DATA line by line through a StreamReader and writes each reply by itself, which takes most of its
time. What a client pipelined behind the final dot (RFC 2920) stays in the buffer. At the peer's end of file the
session ends as aiosmtpd ends it: by cancellation.
"""

from __future__ import annotations

import asyncio

MAX_LINE = 64 * 1024  # octets of a command line that are looked at; the session refuses far shorter ones
_IN = 512 * 1024  # octets that may wait to be read before the peer has to
_OUT = 16 * 1024  # octets of replies that are collected at most


class LineTooLong(Exception):
    """A command line of more than MAX_LINE octets; it has been read to its end."""


class Wire:
    """Buffered reading and writing on a session's transport."""

    def __init__(self, transport: asyncio.Transport, writer: asyncio.StreamWriter) -> None:
        self._transport = transport
        self._writer = writer
        self._in = b""
        self._start = 0  # where in it begins what has not been read
        self._eof = False
        self._paused = False
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self.idle = False  # True while the session waits for a command, and nothing of one has come
        self._out = b""  # what has been said and not been sent

    # the protocol's side

    def feed(self, octets: bytes) -> None:
        """What the peer sent."""
        self.idle = False
        self._in = self._in[self._start :] + octets if self._in else octets
        self._start = 0
        if len(self._in) > _IN and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def feed_eof(self) -> None:
        """The peer will send no more."""
        self._eof = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # the session's side

    async def line(self) -> bytes:
        """The next line with its end. Raises LineTooLong."""
        excess = False
        while (end := self._in.find(b"\n", self._start)) < 0:
            if len(self._in) - self._start > MAX_LINE:
                excess = True
                self._in, self._start = b"", 0
            self.idle = not self._in and not excess
            await self._more()
        line = self._in[self._start : end + 1]
        self._start = end + 1
        if self._start == len(self._in):
            self._in, self._start = b"", 0
        if excess or len(line) > MAX_LINE:
            raise LineTooLong
        return line

    async def some(self) -> bytes:
        """What the peer sends next, however little."""
        if not self._in:
            await self._more()
        octets = self._in[self._start :] if self._start else self._in
        self._in, self._start = b"", 0
        return octets

    def unread(self, octets: bytes) -> None:
        """Put back what was read too far."""
        self._in = octets + self._in[self._start :] if self._in else octets
        self._start = 0

    def put(self, octets: bytes) -> None:
        """Say it when the rest of what is collected is said."""
        self._out += octets

    def say_at_once(self) -> None:
        """Say what has been collected, without waiting until a peer that does not read has taken it."""
        if self._out:
            said, self._out = self._out, b""
            self._transport.write(said)

    async def say(self, octets: bytes) -> None:
        """Say it, at the latest when we wait for the peer."""
        self.put(octets)
        if len(self._out) > _OUT:
            await self.flush()
            await asyncio.sleep(0)  # a peer that pipelines thousands of commands is not alone here

    async def flush(self) -> None:
        """Say what has been collected."""
        if self._out:
            self.say_at_once()
            if self._transport.get_write_buffer_size():
                await self._writer.drain()

    async def _more(self) -> None:
        """Wait until more has come than there was; what was to be said is said before."""
        if self._out:
            await self.flush()
        if self._eof:
            raise asyncio.CancelledError
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._waiter = self._loop.create_future()
        await self._waiter
        if self._eof and not self._in:
            raise asyncio.CancelledError
