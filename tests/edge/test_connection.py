"""How long a connection to Mailman waits for replies: for each of them anew, and not for octets that end no reply."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from mailgate.core.endpoint import Endpoint
from mailgate.edge.mailman.connection import Broken, Connection, open_connection
from tests.stack.waiting import PATIENCE

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def connected(answer: Answer) -> AsyncIterator[Connection]:
    """A connection to a server that greets, and then says `answer`, whatever it is told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        await reader.readline()
        writer.write(b"250-hello\r\n250 PIPELINING\r\n")
        await reader.readline()
        try:
            await answer(writer)
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(PATIENCE):
        host, port = server.sockets[0].getsockname()
        connection = await open_connection(Endpoint(host=host, port=port), "gate.test")
        try:
            yield connection
        finally:
            connection.close()


async def octet_by_octet(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"2")
        await writer.drain()
        await asyncio.sleep(0.02)


async def one_after_the_other(writer: asyncio.StreamWriter) -> None:
    for number in range(4):
        await asyncio.sleep(0.8)
        writer.write(b"250 %d\r\n" % number)


async def test_octets_that_end_no_reply_earn_no_more_time() -> None:
    async with connected(octet_by_octet) as connection:
        connection.send(b"RSET\r\n")
        await connection.answered(1, wait=0.5)
        with pytest.raises(Broken, match="no answer in time"):
            connection.take()
        assert connection.expired


async def test_each_reply_has_its_own_time() -> None:
    async with connected(one_after_the_other) as connection:
        connection.send(b"RSET\r\n")
        await connection.answered(4, wait=2.5)
        assert [connection.take().text for _ in range(4)] == ["0", "1", "2", "3"]


async def test_what_has_come_before_it_broke_is_there() -> None:
    async with connected(one_after_the_other) as connection:
        connection.send(b"RSET\r\n")
        await connection.answered(1)
        deadline = asyncio.get_running_loop().time() + 0.2
        await connection.answered(4, deadline)
        assert connection.take().text == "0"
        with pytest.raises(Broken, match="no answer in time"):
            connection.take()
