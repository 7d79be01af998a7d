"""A Mailman that stops reading in the middle of a message: what tests.stack's fake, which reads on, can't do."""

import asyncio
import socket
import struct
from typing import Self

from tests.stack.loop import Loop
from tests.stack.ports import Port

_WINDOW = 64 * 1024  # octets that the kernel takes for us and nobody reads


class SlowReader:
    """Answers every command with 250 (DATA with 354), reads `most` octets of the body, and then `resets` the
    connection, or leaves it as it is. `bodies` counts the messages of which it saw the beginning.
    """

    def __init__(self, port: Port, most: int, *, resets: bool) -> None:
        self._most, self._resets = most, resets
        self.bodies = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._loop = Loop("slow-reader")
        listener = port.listener()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW)
        self._server = self._loop.run(asyncio.start_server(self._serve, sock=listener, limit=4096))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        writer.write(b"220 slow\r\n")
        while line := await reader.readline():
            data = line.upper().startswith(b"DATA")
            writer.write(b"354 go on\r\n" if data else b"250 ok\r\n")
            if data:
                await self._body(reader, writer)
                return

    async def _body(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.bodies += 1
        left = self._most
        while left > 0:
            left -= len(await reader.read(min(left, 4096)))
        if not self._resets:
            await asyncio.Event().wait()
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def _stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def close(self) -> None:
        """End it."""
        self._loop.run(self._stop())
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
