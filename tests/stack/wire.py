"""A recording proxy for one hop of the mail's way: Exim → Recorder → gate, gate → Recorder → Mailman.

Octets go through unchanged and at once. What passed is kept as transactions (`dialogue.py`), so that a test compares
octet for octet what one program gave with what the other was given. An upstream that can't be reached shows to the
client as a reset connection; to have the client see a refused one, as without a recorder, call `refuse`.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.stack.dialogue import Dialogue, Transaction
from tests.stack.loop import Loop, stop_listening
from tests.stack.ports import Port
from tests.stack.waiting import PATIENCE, wait_until


class Recorder:
    """Listens on a port of its own and passes all on to `upstream`, which may be changed for the next connections."""

    def __init__(self, upstream: tuple[str, int], name: str = "wire") -> None:
        self.upstream = upstream
        self.port = Port()
        self._dialogues: list[Dialogue] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = Loop(name)
        self.accept()

    @property
    def address(self) -> tuple[str, int]:
        """Where the recorder listens."""
        return self.port.address

    @property
    def transactions(self) -> list[Transaction]:
        """All messages whose final dot has passed, in the order of their connections."""
        return [transaction for dialogue in list(self._dialogues) for transaction in list(dialogue.transactions)]

    @property
    def dialogues(self) -> list[Dialogue]:
        """All connections so far, the refused commands and unasked replies included."""
        return list(self._dialogues)

    def forget(self) -> None:
        """Start an empty record (for connections made from now on too; what is under way stays unrecorded)."""
        self._dialogues.clear()

    def with_id(self, message_id: str) -> list[Transaction]:
        """The transactions whose message has this Message-ID (with its brackets)."""
        return [found for found in self.transactions if message_id.encode() in found.octets.partition(b"\r\n\r\n")[0]]

    def wait_for(self, message_id: str, *, answered: bool = True, deadline: float = PATIENCE) -> Transaction:
        """The first transaction with this Message-ID, once all its replies have passed (or at once, not `answered`)."""

        def found() -> Transaction | None:
            return next((one for one in self.with_id(message_id) if one.answered or not answered), None)

        transaction = wait_until(found, f"{message_id} on the wire", deadline=deadline)
        assert transaction is not None
        return transaction

    def accept(self) -> None:
        """Listen (again)."""
        if self._server is None:
            self._server = self._loop.run(asyncio.start_server(self._passes, sock=self.port.listener()))

    def refuse(self) -> None:
        """Refuse new connections, as if nothing listened, and reset those that are open."""
        if self._server is not None:
            self._loop.run(self._stop_listening(self._server))
            self._server = None

    def close(self) -> None:
        """End all connections and the recorder; the record stays."""
        self.refuse()
        self._loop.close()
        self.port.close()

    async def _stop_listening(self, server: asyncio.Server) -> None:
        await stop_listening(server)
        for writer in self._writers:
            writer.transport.abort()

    async def _passes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialogue = Dialogue(len(self._dialogues) + 1)
        self._dialogues.append(dialogue)
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.upstream)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, up_writer}
        self._writers |= pair
        try:
            down = asyncio.create_task(_pump(up_reader, writer, dialogue.server))
            up = asyncio.create_task(_pump(reader, up_writer, dialogue.client))
            await asyncio.gather(down, up)
        except OSError:
            for one in pair:
                one.transport.abort()  # a reset on one side is a reset on the other
        finally:
            down.cancel()
            up.cancel()
            self._writers -= pair
            for one in pair:
                one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: Callable[[bytes], None]) -> None:
    while octets := await reader.read(2**16):
        record(octets)
        writer.write(octets)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
