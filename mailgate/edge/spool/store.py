"""The daemon's spool: `mailgate.ports.Spool` on a database file.

Promises: what `store` has returned from is synced to disk; what it raised for is not kept. No call blocks the event
loop: writes happen in the writer's thread, reads in a few others, each with a deadline. A spool that can not be
opened stops nothing: `open` raises and may be called again, everything else raises SpoolError until then.
Events: `spool.opened`, `spool.corrupt` (a message was set aside), `spool.trouble` (a write without a caller failed).
Telemetry is called from the writer's thread too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection

from mailgate.config import SpoolConfig
from mailgate.core.envelope import Envelope
from mailgate.core.message import Message
from mailgate.edge.spool import content, control, place, query, rows
from mailgate.edge.spool.control import Pause
from mailgate.edge.spool.database import READERS, Database, reusable
from mailgate.edge.spool.errors import SpoolDamaged
from mailgate.edge.spool.query import Counts
from mailgate.edge.spool.rows import Deposit, Verdicts
from mailgate.edge.spool.schema import FAILED, HELD, PENDING
from mailgate.edge.spool.writer import Operation, Writer
from mailgate.ports import Claimed, Facts, Parked, Settlement, SpoolError, SpoolFull, Telemetry

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")

DEADLINE = 30.0  # seconds for whatever the caller sets no deadline
BEGINNINGS = {PENDING, HELD, FAILED}


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found: `abandoned` are messages that a process which is gone was delivering, now marked uncertain."""

    created: bool
    abandoned: tuple[str, ...]
    foreign: str


@dataclass(frozen=True, slots=True)
class Control:
    """What stands in the file now: the pause that holds, and why the spool is not ours ("" if it is). Replay rests
    while either is set.
    """

    paused: Pause | None
    foreign: str
    counts: Counts


class Store:
    """See `mailgate.ports.Spool`. `config` may be exchanged at any time; a new `url` counts from the next `open`."""

    def __init__(self, config: SpoolConfig, hostname: str, telemetry: Telemetry) -> None:
        self.config = config
        self._hostname = hostname
        self._telemetry = telemetry
        self._database: Database | None = None
        self._writer: Writer | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._why = "the spool is not open"
        self._shunned: set[str] = set()  # can not be read or settled: not claimed again by this process
        self._storing = Operation("storing", self._run_store, self._undo_store, vital=False)
        self._claiming = Operation("claiming", self._run_claim, self._undo_claim)
        self._settling = Operation("settling", self._run_settle)
        self._setting_aside = Operation("setting aside", self._run_set_aside)

    @property
    def opened(self) -> bool:
        """True between a successful `open` and `close`."""
        return self._database is not None

    @property
    def database(self) -> Database:
        """The open file. Raises SpoolError while it is not open."""
        if self._database is None:
            raise SpoolError(self._why)
        return self._database

    async def open(self) -> Opened | None:
        """Open the file, make it if it is missing, lock it. None if it is open already. Raises SpoolError."""
        if self._database is not None:
            if not self._database.replaced:
                return None
            await self.close()
        threads = ThreadPoolExecutor(READERS, "spool-reader")
        opening = asyncio.get_running_loop().run_in_executor(threads, self._open)
        try:
            async with asyncio.timeout(DEADLINE):
                database, opened = await asyncio.shield(opening)
        except BaseException as error:
            opening.add_done_callback(_close_late)
            threads.shutdown(wait=False)
            self._why = f"the spool is not open: {error}" if isinstance(error, SpoolError) else self._why
            if isinstance(error, TimeoutError):
                raise SpoolError(f"{self.config.path}: not open within {DEADLINE:g} s") from error
            raise
        ballast = place.Ballast(database.path)
        self._database, self._threads = database, threads
        self._writer = Writer(
            database.writing,
            control.touch,
            ballast.give_up,
            lambda seconds: self._telemetry.observe("spool_commit_seconds", seconds),
            lambda words: self._telemetry.event("spool.trouble", {"error": words}, level="error"),
        )
        self._telemetry.event(
            "spool.opened",
            {"path": str(database.path), "created": opened.created, "abandoned": list(opened.abandoned)},
            level="warning" if opened.abandoned or opened.foreign else "info",
        )
        return opened

    def _open(self) -> tuple[Database, Opened]:
        database = Database(self.config.path, self._hostname, serve=True)
        try:
            abandoned = database.write(lambda c: rows.abandoned_leases(c, database.run), "recovering leases")
            foreign = database.read(lambda c: control.foreign(c, database.owner_mark))
            place.Ballast(database.path).take(self.config)
        except BaseException:
            database.close()
            raise
        return database, Opened(database.created, tuple(abandoned), foreign)

    async def close(self) -> None:
        """Finish what was submitted and let go of the file."""
        database, writer, threads = self._database, self._writer, self._threads
        self._database = self._writer = self._threads = None
        self._why = "the spool is closed"
        if database is not None and writer is not None and threads is not None:
            await asyncio.get_running_loop().run_in_executor(None, _shut, database, writer, threads)

    async def store(
        self,
        gate_id: str,
        envelope: Envelope,
        message: Message,
        parked: Sequence[Parked],
        facts: Facts,
        now: float,
        timeout: float,
    ) -> None:
        """Keep the message: see `mailgate.ports.Spool.store`."""
        if not parked or any(one.state not in BEGINNINGS for one in parked):
            raise ValueError(f"{gate_id}: nobody to keep it for, or in a state to which nothing begins")
        deposit = Deposit(gate_id, envelope, message, tuple(parked), facts, now, message.size)
        await self._write(self._storing, deposit, timeout, deposit.size)

    def _run_store(self, connection: Connection, deposits: Sequence[Deposit]) -> Sequence[SpoolError | None]:
        if self.database.replaced:
            raise SpoolError(f"{self.database.path}: has been moved or deleted while in use")
        room = place.room(self.database.path)
        spooled = rows.spooled(connection)
        answers: list[SpoolError | None] = []
        taken: list[Deposit] = []
        more = 0
        for deposit in deposits:
            words = place.refusal(self.config, room, spooled, more + deposit.size, 0)
            if words:
                words = place.refusal(self.config, room, spooled, more + deposit.size, reusable(connection))
            answers.append(SpoolFull(words) if words else None)
            if not words:
                more += deposit.size
                taken.append(deposit)
        if taken:
            rows.insert_messages(connection, taken)
        return answers

    def _undo_store(self, connection: Connection, deposit: Deposit, _: None) -> None:
        rows.remove_messages(connection, [deposit.gate_id])

    async def claim(self, now: float, most: int) -> list[Claimed]:
        """Lease what is due: see `mailgate.ports.Spool.claim`."""
        return await self._write(self._claiming, (now, most), DEADLINE)

    def _run_claim(self, connection: Connection, calls: Sequence[tuple[float, int]]) -> Sequence[list[Claimed]]:
        shunned = frozenset(self._shunned)
        return [rows.claim(connection, self.database.run, now, most, shunned) for now, most in calls]

    def _undo_claim(self, connection: Connection, _: tuple[float, int], claimed: list[Claimed]) -> None:
        rows.unclaim(connection, self.database.run, claimed)

    async def load(self, gate_id: str) -> Message | None:
        """The octets of a message: see `mailgate.ports.Spool.load`."""
        try:
            return await self._read(lambda connection: content.load(connection, gate_id), "loading")
        except SpoolDamaged as error:
            await self._set_aside(gate_id, str(error))
            return None

    async def settle(self, gate_id: str, settlements: Sequence[Settlement], now: float) -> None:
        """Write down what became of recipients: see `mailgate.ports.Spool.settle`. May be called again with the
        same after it raised; until it succeeds the message is not claimed again.
        """
        self._shunned.add(gate_id)
        await self._write(self._settling, Verdicts(gate_id, tuple(settlements), now), DEADLINE)
        self._shunned.discard(gate_id)

    def _run_settle(self, connection: Connection, verdicts: Sequence[Verdicts]) -> Sequence[None]:
        rows.settle(connection, self.database.run, verdicts)
        return [None] * len(verdicts)

    async def _set_aside(self, gate_id: str, reason: str) -> None:
        self._shunned.add(gate_id)
        fields: dict[str, object] = {"id": gate_id, "reason": reason}
        try:
            await self._write(self._setting_aside, (gate_id, reason), DEADLINE)
        except SpoolError as error:
            fields["not_marked"] = str(error)
        self._telemetry.event("spool.corrupt", fields, level="error")

    def _run_set_aside(self, connection: Connection, those: Sequence[tuple[str, str]]) -> Sequence[None]:
        for gate_id, reason in those:
            rows.set_aside(connection, gate_id, reason)
        return [None] * len(those)

    async def control(self, now: float) -> Control:
        """What a verb in any process may have written, and the counts."""
        mark = self.database.owner_mark
        return await self._read(
            lambda c: Control(control.paused(c, now), control.foreign(c, mark), query.counts(c)), "reading"
        )

    def counts(self) -> Counts:
        """What is in the spool, for a scrape from any thread. Blocks for some milliseconds. Raises SpoolError."""
        return self.database.read(query.counts, "counting")

    async def _write(self, operation: Operation[A, R], argument: A, timeout: float, octets: int = 0) -> R:
        if self._writer is None:
            raise SpoolError(self._why)
        return await self._writer.do(operation, argument, timeout, octets)

    async def _read(self, job: Callable[[Connection], T], doing: str) -> T:
        database, threads = self.database, self._threads
        try:
            async with asyncio.timeout(DEADLINE):
                return await asyncio.get_running_loop().run_in_executor(threads, database.read, job, doing)
        except TimeoutError as error:
            raise SpoolError(f"{doing}: not done within {DEADLINE:g} s") from error


def _close_late(opening: asyncio.Future[tuple[Database, Opened]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()


def _shut(database: Database, writer: Writer, threads: ThreadPoolExecutor) -> None:
    writer.close(DEADLINE)
    threads.shutdown(wait=True, cancel_futures=True)
    database.close()
