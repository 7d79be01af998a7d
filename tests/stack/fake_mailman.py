"""A stand-in for Mailman's LMTP server, for failures that the real one can't be brought to on command.

Left alone it answers as Mailman core 3.3.10 does, word for word, its known lies included (test_fake_mailman.py holds
it against the real one): one 501 for a message with defects, one 500 for a long line, one 552 for a big message,
whatever the number of recipients. `on` makes it misbehave (fake_script.py). What it took is in `taken`: what a real
Mailman would have queued, also when the reply never left.
"""

import asyncio
from types import TracebackType
from typing import Self

from tests.stack.fake_script import Act, Rule, Script, Stage
from tests.stack.fake_session import Manner, Session, Taken
from tests.stack.loop import Loop, stop_listening
from tests.stack.ports import Port
from tests.stack.waiting import PATIENCE, wait_until


class FakeMailman:
    """Listens on `address`. Its `manner` says what it offers and which lists it has."""

    def __init__(self, manner: Manner = Manner()) -> None:  # noqa: B008  frozen
        self.manner = manner
        self.port = Port()
        self.taken: list[Taken] = []
        self.commands: list[str] = []  # as they were said, of all connections
        self.connections = 0
        self._script = Script()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = Loop("fake-mailman")
        self.accept()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.port.address

    def on(self, stage: Stage, act: Act, *, only: str = "", times: int | None = None) -> None:
        """From now on answer so at that stage (for one recipient; so many times). What was told first goes first."""
        self._script.add(Rule(stage, only, act, times))

    def behave(self) -> None:
        """Do as usual again. Connections that are open are reset, those that hang included."""
        self._script.clear()
        self._loop.run(self._abort_all())

    def accept(self) -> None:
        """Listen (again)."""
        if self._server is None:
            self._server = self._loop.run(asyncio.start_server(self._serve, sock=self.port.listener()))

    def refuse(self) -> None:
        """Refuse new connections and reset those that are open, as if it had died."""
        if self._server is not None:
            self._loop.run(self._stop(self._server))
            self._server = None

    def arrived(self, address: str) -> list[str]:
        """The Message-IDs of what it took for that recipient, a repeated one repeated."""
        return [taken.message_id for taken in list(self.taken) for one in taken.recipients if one == address]

    def wait_taken(self, count: int = 1, deadline: float = PATIENCE) -> list[Taken]:
        """All that it took, once that is `count` or more."""
        wait_until(lambda: len(self.taken) >= count, f"the fake Mailman has taken {count}", deadline=deadline)
        return list(self.taken)

    def close(self) -> None:
        """End it."""
        self.refuse()
        self._loop.close()
        self.port.close()

    async def _stop(self, server: asyncio.Server) -> None:
        await stop_listening(server)
        await self._abort_all()

    async def _abort_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        session = Session(self.manner, self._script, reader, writer)
        session.number, session.taken, session.commands = self.connections, self.taken, self.commands
        try:
            await session.run()
        except (EOFError, OSError):
            writer.close()
        finally:
            self._writers.discard(writer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
