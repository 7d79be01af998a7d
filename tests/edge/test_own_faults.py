"""Faults of our own, put in from within: a 4xx for each recipient, never a 5xx; and the next message is well."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from mailgate import config as configuration
from mailgate.case import Case
from mailgate.core import headers
from mailgate.core.envelope import Envelope, Peer
from mailgate.core.message import Message, message
from mailgate.core.outcome import Outcome, Result
from mailgate.core.reply import Reply
from mailgate.core.triage import all_alike
from mailgate.edge.listener import Listener
from mailgate.edge.spool.ledger import Ledger
from mailgate.edge.spool.unscored import Note
from mailgate.ports import Claimed, Parked, SpoolError, SpoolFull, Valve
from mailgate.relay import Relay
from mailgate.scanner import Scorers
from tests.edge.failures import A, B
from tests.edge.pair import mail
from tests.stack.client import Client
from tests.stack.ports import Port

TAKEN = Reply(250, "", "Ok")
Fault = Callable[[], Awaitable[None]]


class Telemetry:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, object]]] = []

    def count(self, *_: Any, **__: Any) -> None: ...
    def observe(self, *_: Any, **__: Any) -> None: ...
    def event(self, name: str, fields: Mapping[str, object], **_: Any) -> None:
        self.events.append((name, fields))


@dataclass
class Upstream:
    """Takes everything, but for what `fault` does."""

    fault: Fault | None = None
    result: Result = Result.DELIVERED
    up: bool = True

    async def deliver(self, envelope: Envelope, *_: Any, **__: Any) -> tuple[Outcome, ...]:
        if self.fault:
            await self.fault()
        return all_alike(self.result, TAKEN, len(envelope.recipients))


async def _written(notes: Sequence[Note]) -> None:
    """All is well with the ledger."""


def _told(name: str, *, level: str = "error", **fields: object) -> None:
    raise AssertionError(f"the ledger has trouble: {name} {fields}")


@dataclass
class Spool:
    """Takes everything, but for what `fault` does."""

    fault: Fault | None = None
    stored: list[Sequence[Parked]] = field(default_factory=list)
    ledger: Ledger = field(default_factory=lambda: Ledger(_written, _told))

    async def store(self, *arguments: Any) -> None:
        if self.fault:
            await self.fault()
        self.stored.append(arguments[3])

    async def claim(self, *_: Any) -> list[Claimed]:
        return []

    async def claim_awaiting(self, *_: Any) -> list[Claimed]:
        return []

    async def load(self, *_: Any) -> Message | None:
        return None

    async def settle(self, *_: Any) -> None: ...


def raising(error: Exception) -> Fault:
    """A fault that raises."""

    async def fault() -> None:
        raise error

    return fault


class Doorkeeper(Listener):
    """A listener with a bug that shows when mail data comes in, once `fault` is set."""

    fault: Exception | None = None

    @property
    def has_room(self) -> bool:
        if self.fault:
            raise self.fault
        return super().has_room


class Door:
    """A listener on both doors, in this process."""

    def __init__(self, upstream: Upstream, spool: Spool) -> None:
        self.ports = Port(), Port()
        self.telemetry = Telemetry()
        relay = {"lmtp": [str(self.ports[0])], "smtp": [str(self.ports[1])], "budget": "2s"}
        self.config = configuration.parse(
            {
                "hostname": "gate.lists.test",
                "relay": relay,
                "mailman": {"connect_timeout": "0.5s"},
                "spam": {"engine": "off"},
            }
        )
        nobody = Scorers((), self.telemetry, timeout=1)
        self.relay = Relay(self.config, nobody, upstream, spool, Valve(), self.telemetry)
        self.listener = Doorkeeper(self.config, self.handle, self.relay.turn_away, self.telemetry)
        self.broken = False

    async def handle(self, peer: Peer, envelope: Envelope, message: Message) -> tuple[Reply, ...]:
        if self.broken:
            raise RuntimeError("beyond the relay's own care")
        return await self.relay.handle(peer, envelope, message)

    async def say(self, *recipients: str, lmtp: bool = True) -> list[str]:
        """The final replies to a message; the gate ids taken out. The session must go on after them."""

        def speak() -> list[str]:
            with Client(self.ports[0 if lmtp else 1].address, lmtp=lmtp) as client:
                said = [str(reply) for reply in client.deliver("", recipients, mail("<own@example.net>")).final]
                said.append(str(client.command("NOOP")))
                return said

        said = await asyncio.to_thread(speak)
        return [" ".join(word for word in line.split() if len(word) != 18) for line in said]

    def traces(self) -> list[str]:
        return [str(fields["trace"]) for _, fields in self.telemetry.events if "trace" in fields]


@asynccontextmanager
async def _door(upstream: Upstream | None = None, spool: Spool | None = None) -> AsyncIterator[Door]:
    door = Door(upstream or Upstream(), spool or Spool())
    await door.listener.start()
    try:
        yield door
        assert await door.listener.drain(60)
    finally:
        await door.listener.stop()
        for port in door.ports:
            port.close()


NOT_NOW = "451 4.3.0 could not be taken care of now, try again"
NO_SPACE = "452 4.3.1 no space to keep the message, try again later"
GOES_ON = "250 2.0.0 OK"
BUGS = [
    RuntimeError("a bug"),
    KeyError("a bug"),
    AssertionError("a bug"),
    MemoryError(),
    RecursionError(),
    OSError(28, "x"),
]


@pytest.mark.parametrize("lmtp", [True, False])
@pytest.mark.parametrize("bug", BUGS, ids=repr)
async def test_a_bug_in_the_relay(bug: Exception, lmtp: bool) -> None:
    upstream = Upstream(raising(bug))
    async with _door(upstream) as door:
        assert await door.say(A, B, A, lmtp=lmtp) == [NOT_NOW] * (3 if lmtp else 1) + [GOES_ON]
        (trace,) = door.traces()
        assert type(bug).__name__ in trace
        assert door.telemetry.events[-1][0] == "message.failed"
        upstream.fault = None
        assert await door.say(A) == ["250 2.0.0 delivered: Ok", GOES_ON]


@pytest.mark.parametrize("bug", BUGS, ids=repr)
async def test_a_bug_in_the_telling_takes_nothing_back(bug: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Mailman took, Exim would hand over again and again."""

    def final(*_: object) -> dict[str, object]:
        raise bug

    monkeypatch.setattr(Case, "final", final)
    async with _door() as door:
        assert await door.say(A, B) == ["250 2.0.0 delivered: Ok"] * 2 + [GOES_ON]
        (trace,) = door.traces()
        assert type(bug).__name__ in trace
        assert [name for name, _ in door.telemetry.events] == ["message.failed"]


@pytest.mark.parametrize("bug", BUGS, ids=repr)
async def test_a_bug_in_the_spool(bug: Exception) -> None:
    spool = Spool(raising(bug))
    async with _door(Upstream(result=Result.DEFERRED), spool) as door:
        assert await door.say(A, B) == [NOT_NOW] * 2 + [GOES_ON]
        assert len(door.traces()) == 1


@pytest.mark.parametrize(
    ("trouble", "said"), [(SpoolError("broken"), NOT_NOW), (SpoolFull("full"), NO_SPACE)], ids=["broken", "full"]
)
async def test_trouble_of_the_spool(trouble: SpoolError, said: str) -> None:
    spool = Spool(raising(trouble))
    async with _door(Upstream(result=Result.UNCERTAIN), spool) as door:
        assert await door.say(A, B) == [said, said, GOES_ON]
        assert await door.say(A, B, lmtp=False) == [said, GOES_ON]
        assert not door.traces()


async def test_a_bug_outside_the_relay_ends_the_session() -> None:
    """As many replies as recipients; then 421, since nobody knows where the peer stands."""
    async with _door() as door:
        door.broken = True
        said = await door.say(A, B, A)
        assert said == ["451 4.3.0 trouble of our own, try again"] * 3 + ["421 4.3.0 trouble of our own, try again"]
        assert "beyond the relay's own care" in door.traces()[0]
        door.broken = False
        assert await door.say(A) == ["250 2.0.0 delivered: Ok", GOES_ON]
        assert door.listener.in_flight == 0


@pytest.mark.parametrize("pipelined", [True, False])
@pytest.mark.parametrize("bug", [RuntimeError("a bug"), MemoryError()], ids=repr)
async def test_a_bug_while_the_message_comes_in(bug: Exception, pipelined: bool) -> None:
    """As many replies as recipients; then 421, since nobody knows where the peer stands."""
    async with _door() as door:

        def speak() -> list[str]:
            with Client(door.ports[0].address, lmtp=True) as client:
                commands = ["MAIL FROM:<>", f"RCPT TO:<{A}>", f"RCPT TO:<{B}>", "DATA"]
                said = client.pipeline(commands) if pipelined else [client.command(line) for line in commands]
                assert said[-1].code == 354
                door.listener.fault = bug
                client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
                return [str(client.reply()) for _ in range(3)]

        said = await asyncio.to_thread(speak)
        assert said == ["451 4.3.0 trouble of our own, try again"] * 2 + ["421 4.3.0 trouble of our own, try again"]
        (trace,) = door.traces()
        assert type(bug).__name__ in trace
        door.listener.fault = None
        assert await door.say(A) == ["250 2.0.0 delivered: Ok", GOES_ON]
        assert door.listener.in_flight == 0


@pytest.mark.parametrize("pipelined", [True, False])
async def test_a_bug_before_the_message_ends_the_session(pipelined: bool) -> None:
    async with _door() as door:

        def speak() -> list[str]:
            with Client(door.ports[0].address, lmtp=True) as client:
                door.listener.fault = RuntimeError("a bug")
                client.send(b"MAIL FROM:<>\r\n" + (f"RCPT TO:<{A}>\r\nDATA\r\n".encode() if pipelined else b""))
                said = [str(client.reply())]
                with pytest.raises(EOFError):
                    client.reply()
                door.listener.fault = None
                return said

        assert await asyncio.to_thread(speak) == ["421 4.3.0 trouble of our own, try again"]
        assert len(door.traces()) == 1


async def test_a_large_header_is_not_the_loops_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fields may take a third of a second to look through, in which nobody else would be served."""
    threads: list[bool] = []

    def cut(head: bytes, our_authserv_id: str) -> bytes:
        threads.append(threading.current_thread() is threading.main_thread())
        return real(head, our_authserv_id)

    real = headers.cut
    monkeypatch.setattr(headers, "cut", cut)
    async with _door() as door:
        peer = Peer("lmtp", "127.0.0.1", "x")
        for lines, loops in ((1, True), (2500, False)):
            octets = message([b"Authentication-Results: gate.lists.test\r\n" * lines + mail("<large@example.net>")])
            (reply,) = await door.relay.handle(peer, Envelope("", (A,)), octets)
            assert (reply.code, threads.pop()) == (250, loops)


async def test_a_spool_that_hangs_is_not_waited_for() -> None:
    """No await without a deadline (promise 6), even when the spool forgets its own."""
    loop = asyncio.get_running_loop()

    async def hang() -> None:
        await asyncio.sleep(60)

    async with _door(Upstream(result=Result.UNCERTAIN), Spool(hang)) as door:
        begun = loop.time()
        assert await door.say(A, B) == [NOT_NOW] * 2 + [GOES_ON]
        assert loop.time() - begun < 20  # relay.budget, a grace, and a busy machine


async def test_shutting_down_answers_what_is_in_flight() -> None:
    """And sends away who waits, and who comes. In time, also when somebody never ends."""
    going, told = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        going.set()
        await told.wait()

    async with _door(Upstream(slow)) as door:
        idle = await asyncio.to_thread(Client, door.ports[0].address, lmtp=True)
        sending = asyncio.create_task(door.say(A, B))
        await going.wait()
        draining = asyncio.create_task(door.listener.drain(60))
        assert str(await asyncio.to_thread(idle.reply)) == "421 4.3.2 shutting down"
        late = await asyncio.to_thread(Client, door.ports[0].address, lmtp=True, hello=False)
        assert str(await asyncio.to_thread(late.reply)) == "421 4.3.2 shutting down"
        assert not sending.done()
        told.set()
        delivered = "250 2.0.0 delivered: Ok"
        assert await sending == [delivered, delivered, "421 4.3.2 shutting down"]
        assert await draining
        for client in (idle, late):
            client.close()


@pytest.mark.parametrize("pipelined", [True, False])
async def test_shutting_down_waits_for_the_rest_of_a_message(pipelined: bool) -> None:
    async with _door() as door:
        with await asyncio.to_thread(Client, door.ports[0].address, lmtp=True) as client:
            commands = ["MAIL FROM:<>", f"RCPT TO:<{A}>", "DATA"]
            if pipelined:
                await asyncio.to_thread(client.pipeline, commands)
            else:
                for line in commands:
                    await asyncio.to_thread(client.command, line)
            client.send(b"Subject: x\r\n")
            draining = asyncio.create_task(door.listener.drain(60))
            await asyncio.sleep(0)
            client.send(b"\r\nx\r\n.\r\n")
            said = [str(await asyncio.to_thread(client.reply)) for _ in range(2)]
            assert [said[0][:3], said[1]] == ["250", "421 4.3.2 shutting down"]
            assert await draining


async def test_shutting_down_does_not_wait_for_ever() -> None:
    async with _door() as door:
        with await asyncio.to_thread(Client, door.ports[0].address, lmtp=True) as client:
            await asyncio.to_thread(client.pipeline, ["MAIL FROM:<>", f"RCPT TO:<{A}>", "DATA"])
            assert not await door.listener.drain(0.2)
            await door.listener.stop()
            with pytest.raises((EOFError, ConnectionResetError)):
                await asyncio.to_thread(client.reply)
