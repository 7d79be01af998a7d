"""A message that Mailman never answers, replayed again and again: it takes nothing from the others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mailgate.config import MailmanConfig
from mailgate.core.envelope import Envelope
from mailgate.core.message import Message
from mailgate.core.outcome import Result
from mailgate.edge.log import EventLog
from mailgate.edge.mailman import Mailman
from mailgate.edge.telemetry import Telemetry
from tests.stack.waiting import PATIENCE

ENVELOPE = Envelope("ann@example.org", ("dev@lists.test",))
STUCK, FINE = (Message(b"Subject: %s\r\n\r\n" % word, (b"A line.\r\n",)) for word in (b"stuck", b"fine"))


class Server:
    """Answers everything at once, but for the message of that subject; `stuck` is set when one has come."""

    def __init__(self) -> None:
        self.stuck = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        writer.write(b"220 hello\r\n")
        while line := await reader.readline():
            if line == b"DATA\r\n":
                writer.write(b"354 go on\r\n")
                if b"Subject: stuck" in await reader.readuntil(b"\r\n.\r\n"):
                    self.stuck.set()
                    continue
            writer.write(b"250 Ok\r\n")

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def mailman(connections: int) -> AsyncIterator[tuple[Mailman, Server]]:
    """The client to such a server; its breaker has just closed, so that one delivery may go at a time."""
    serving = Server()
    server = await asyncio.start_server(serving.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = MailmanConfig.model_validate(
        {"lmtp": f"127.0.0.1:{port}", "connections": connections, "reply_timeout": "0.3s", "connect_timeout": "20s"}
    )
    made = Mailman(config, "gate.test", Telemetry(EventLog(level="error")))
    made._breaker.failed("it was away")
    made._breaker.probed()
    async with server, asyncio.timeout(PATIENCE):
        yield made, serving
        made.close()
        await serving.close()


def soon() -> float:
    return asyncio.get_running_loop().time() + PATIENCE


async def test_fresh_mail_goes_on_while_a_replay_waits_and_mailman_is_not_called_down() -> None:
    async with mailman(3) as (client, server):
        replay = asyncio.create_task(client.deliver(ENVELOPE, STUCK, soon(), background=True))
        await server.stuck.wait()
        for _ in range(3):
            (fresh,) = await client.deliver(ENVELOPE, FINE, soon())
            assert fresh.result is Result.DELIVERED
        assert not replay.done()
        (stuck,) = await replay
        assert stuck.result is Result.UNCERTAIN
        assert client.up, "it has answered others meanwhile"


async def test_no_more_connections_than_are_allowed() -> None:
    async with mailman(1) as (client, server):
        replay = asyncio.create_task(client.deliver(ENVELOPE, STUCK, soon(), background=True))
        await server.stuck.wait()
        loop = asyncio.get_running_loop()
        (fresh,) = await client.deliver(ENVELOPE, FINE, loop.time() + 0.4)
        assert fresh.result is Result.UNREACHED
        await replay


async def test_it_is_down_where_nobody_was_answered_meanwhile() -> None:
    async with mailman(3) as (client, _):
        (stuck,) = await client.deliver(ENVELOPE, STUCK, soon())
        assert stuck.result is Result.UNCERTAIN
        assert not client.up


@pytest.mark.parametrize("background", [False, True])
async def test_replayed_mail_waits_for_its_turn(background: bool) -> None:
    async with mailman(3) as (client, server):
        first = asyncio.create_task(client.deliver(ENVELOPE, STUCK, soon(), background=background))
        await server.stuck.wait()
        (other,) = await client.deliver(ENVELOPE, FINE, asyncio.get_running_loop().time() + 0.2, background=True)
        assert other.result is Result.UNREACHED
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        (other,) = await client.deliver(ENVELOPE, FINE, soon(), background=True)
        assert other.result is Result.DELIVERED
