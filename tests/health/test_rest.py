"""Mailman's REST interface, played by what does not behave: an answer, or words, and within bounds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mailgate.core.endpoint import Endpoint, Url
from mailgate.edge.mailmanwatch.rest import declared, version

SECRET = b"restadmin:restpass"
OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


@asynccontextmanager
async def played(answer: Callable[[str], bytes]) -> AsyncIterator[Url]:
    """A server that answers a request for a path so, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert "Authorization: Basic cmVzdGFkbWluOnJlc3RwYXNz\r\n" in head
        writer.write(answer(head.split(" ")[1]))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Url(Endpoint(*server.sockets[0].getsockname()[:2]), "/3.1")


async def test_its_version() -> None:
    async with played(lambda path: OK + b'{"mailman_version": "GNU %s"}' % path.encode()) as url:
        assert await version(url, SECRET) == "GNU /3.1/system/versions"


async def test_the_runners_that_it_should_have() -> None:
    pages = {
        "/3.1/system/configuration": b'{"sections": ["mailman", "runner", "runner.in", "runner.nntp", "runner.own"]}',
        "/3.1/system/configuration/runner.in": b'{"start": "yes"}',
        "/3.1/system/configuration/runner.nntp": b'{"start": "no"}',
        "/3.1/system/configuration/runner.own": b'{"start": "True"}',
    }
    async with played(lambda path: OK + pages[path]) as url:
        assert await declared(url, SECRET) == {"in", "own"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.0 401 Unauthorized\r\n\r\n", "401 Unauthorized"),
        (b"", "this is no HTTP"),
        (b"220 mx ESMTP\r\n", "this is no HTTP"),
        (b"x" * 600_000, "this is no HTTP"),
        (OK + b" " * 600_000, "the answer is too large"),
        (OK + b"[]", "this is no object"),
        (OK + b"nonsense", "Expecting value"),
    ],
)
async def test_what_is_no_answer(answer: bytes, words: str) -> None:
    async with played(lambda _: answer) as url:
        with pytest.raises((ValueError, OSError), match=words):
            await version(url, SECRET)


async def test_nobody_listens() -> None:
    async with played(lambda _: b"") as url:
        pass
    with pytest.raises(OSError, match="Connect call failed"):
        await version(url, SECRET)
