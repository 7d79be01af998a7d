"""The daemon's spool: `mailgate.ports.Spool` on a database file.

Promises: what `store` has returned from is synced to disk; what it raised for is not kept. No call waits in the
loop: writes happen in the writer's thread, reads in a few others, each with a deadline. A spool that can not be
opened stops nothing: `open` raises and may be called again, everything else raises SpoolError until then.
Events: `spool.opened`, `spool.corrupt` (a message was set aside), `spool.trouble` (a write without a caller failed),
`records.failed` (a verdict's record could not be kept or found).
Telemetry is called from the writer's thread too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection

from mailgate.config import HistoryConfig, SpoolConfig
from mailgate.core import scan
from mailgate.core.envelope import Envelope
from mailgate.core.message import Message
from mailgate.core.scan import Scored, Unscored
from mailgate.edge.spool import chronicle, content, control, leases, place, query
from mailgate.edge.spool.chronicle import Event
from mailgate.edge.spool.control import Pause
from mailgate.edge.spool.database import Database, reusable
from mailgate.edge.spool.errors import SpoolDamaged
from mailgate.edge.spool.history import History
from mailgate.edge.spool.housekeeping import Tended, tend
from mailgate.edge.spool.leases import Due, Those, Verdicts
from mailgate.edge.spool.ledger import Ledger
from mailgate.edge.spool.opening import Opened, Serving, begin, open_file
from mailgate.edge.spool.query import Counts
from mailgate.edge.spool.records import Records
from mailgate.edge.spool.schema import FAILED, HELD, PENDING
from mailgate.edge.spool.storing import Deposit, spooled
from mailgate.edge.spool.unscored import Note
from mailgate.edge.spool.writer import Operation
from mailgate.ports import Claimed, Facts, Parked, Settlement, SpoolError, Telemetry

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")

DEADLINE = 30.0  # seconds for whatever the caller sets no deadline
SMALL = 64 * 2**10  # octets of a message, as most of them have
SOME = 20  # ids that an event names
BEGINNINGS = {PENDING, HELD, FAILED}


@dataclass(frozen=True, slots=True)
class Control:
    """What stands in the file now: the pause that holds, and why the spool is not ours ("" if it is). Replay rests
    while either is set.
    """

    paused: Pause | None
    foreign: str


@dataclass(frozen=True, slots=True)
class Space:
    """Octets and inodes that are free on the disk (-1 where inodes are not counted), the octets that have to stay so,
    and why a small message would not be stored for want of them, or because of `spool.max_bytes`; "" if it would.
    """

    free: int
    floor: int
    inodes: int
    refusal: str


class Store:
    """See `mailgate.ports.Spool`. `config` may be exchanged at any time; a new `url` counts from the next `open`."""

    def __init__(
        self,
        config: SpoolConfig,
        hostname: str,
        telemetry: Telemetry,
        history: HistoryConfig = HistoryConfig(),  # noqa: B008  frozen
    ) -> None:
        self.config = config
        self._hostname = hostname
        self._telemetry = telemetry
        self._serving: Serving | None = None
        self._why = "the spool is not open"
        self._trouble = ""
        self.ledger = Ledger(self._note, self._event)
        self.history = History(
            history, self._chronicle, self._event, lambda number: telemetry.count("history_lost", number)
        )
        self.records = Records(lambda: self._spool, lambda words: self._event("records.failed", cause=words))

    @property
    def opened(self) -> bool:
        """True between a successful `open` and `close`."""
        return self._serving is not None

    @property
    def trouble(self) -> str:
        """Why the last write failed, "" if it did not."""
        return self._trouble if self.opened else self._why

    @property
    def database(self) -> Database:
        """The open file. Raises SpoolError while it is not open."""
        return self._spool.database

    @property
    def _spool(self) -> Serving:
        if self._serving is None:
            raise SpoolError(self._why)
        return self._serving

    async def open(self) -> Opened | None:
        """Open the file, make it if it is missing, lock it. None if it is open already. Raises SpoolError."""
        self.history.start()
        if self._serving is not None:
            if not self._serving.database.replaced:
                return None
            self._event(
                "spool.replaced", cause=f"{self.config.path}: it or its lock was moved or deleted, opening anew"
            )
            await self._let_go()
        opening = asyncio.get_running_loop().run_in_executor(None, open_file, self.config, self._hostname)
        try:
            async with asyncio.timeout(DEADLINE):
                database, opened = await asyncio.shield(opening)
        except SpoolError as error:
            self._why = f"the spool is not open: {error}"
            raise
        except (TimeoutError, asyncio.CancelledError) as error:
            opening.add_done_callback(_close_late)
            if isinstance(error, TimeoutError):
                raise SpoolError(f"{self.config.path}: not open within {DEADLINE:g} s") from error
            raise
        self._serving = begin(
            database,
            lambda: self.config,
            lambda seconds: self._telemetry.observe("spool_commit_seconds", seconds),
            lambda words: self._event("spool.trouble", cause=words),
        )
        self._trouble = ""
        if opened.unscored:
            self.ledger.resume(*opened.unscored)
        self._event(
            "spool.opened",
            path=str(database.path),
            created=opened.created,
            uncertain=len(opened.abandoned),
            ids=list(opened.abandoned[:SOME]),
            stuck=list(opened.stuck),
            foreign=opened.foreign,
            level="warning" if opened.abandoned or opened.stuck or opened.foreign else "info",
        )
        return opened

    async def close(self) -> None:
        """Finish what was submitted and let go of the file."""
        await asyncio.gather(self.ledger.close(DEADLINE), self.history.close(DEADLINE))
        await self._let_go()

    async def _let_go(self) -> None:
        serving, self._serving, self._why = self._serving, None, "the spool is closed"
        if serving is not None:
            await asyncio.get_running_loop().run_in_executor(None, serving.close, DEADLINE)

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
            raise ValueError(f"{gate_id}: nobody to keep it for, or in a state in which nothing begins")
        outage = self.ledger.outage(gate_id, now) if isinstance(scan.read(facts.scan), Unscored) else ""
        deposit = Deposit(gate_id, envelope, message, tuple(parked), facts, now, message.size, outage)
        await self._write(self._spool.work.store, deposit, timeout, deposit.size)

    async def claim(self, now: float, most: int) -> list[Claimed]:
        """Lease what is due: see `mailgate.ports.Spool.claim`. Nothing is written while nothing is due."""
        work = self._spool.work
        claimed: list[Claimed] = []
        while not claimed and (ids := await self._due(now, most)):
            those: Those = dict.fromkeys(ids)
            try:
                return await self._write(work.claim, (now, those))
            except SpoolDamaged:
                claimed = await self._claim_one_by_one(work.claim, now, those)
        return claimed

    async def claim_those(self, now: float, those: Those) -> list[Claimed]:
        """Lease those of these that are due, and nothing else."""
        work = self._spool.work
        try:
            return await self._write(work.claim, (now, those))
        except SpoolDamaged:
            return await self._claim_one_by_one(work.claim, now, those)

    async def _due(self, now: float, most: int) -> list[str]:
        shunned, when = frozenset(self._spool.work.shunned), Due.at(now, self.config)
        try:
            return await self._read(lambda c: leases.due(c, when, most, shunned), "claiming")
        except SpoolDamaged:
            return await self._read(lambda c: leases.due(c, when, most, shunned, scan=True), "claiming")

    async def claim_awaiting(self, now: float, before: float, most: int) -> list[Claimed]:
        """Lease what is held until it can be scored: see `mailgate.ports.Spool.claim_awaiting`."""
        work, when = self._spool.work, Due.at(now, self.config)
        found = await self._read(lambda c: leases.awaiting(c, when, before, most), "looking for what awaits a score")
        those: Those = dict.fromkeys(gate_id for gate_id in found if gate_id not in work.shunned)
        if not those:
            return []
        try:
            return await self._write(work.claim_held, (now, those))
        except SpoolDamaged:
            return await self._claim_one_by_one(work.claim_held, now, those)

    async def _claim_one_by_one(
        self, claim: Operation[tuple[float, Those], list[Claimed]], now: float, those: Those
    ) -> list[Claimed]:
        """Something on the way is damaged: this shows what, and the rest goes on."""
        claimed: list[Claimed] = []
        for gate_id, numbers in those.items():
            try:
                one = await self._write(claim, (now, {gate_id: numbers}))
                claimed.extend(one)
            except SpoolDamaged as error:
                await self._set_aside(gate_id, str(error))
            except SpoolError:
                if not claimed:
                    raise
                break  # what is leased has to be tried
        return claimed

    async def load(self, gate_id: str) -> Message | None:
        """The octets of a message: see `mailgate.ports.Spool.load`."""
        try:
            return await self._read(lambda connection: content.load(connection, gate_id), "loading")
        except SpoolDamaged as error:
            await self._set_aside(gate_id, str(error))
            return None

    async def settle(self, gate_id: str, settlements: Sequence[Settlement], now: float, scanned: str = "") -> None:
        """Write down what became of recipients: see `mailgate.ports.Spool.settle`. May be called again with the
        same after it raised; until it succeeds this process does not claim the message again. Where damage makes it
        impossible for good that is said (`spool.corrupt`), not raised.
        """
        work, verdicts = self._spool.work, Verdicts(gate_id, tuple(settlements), now, scanned)
        work.shunned.add(gate_id)
        try:
            await self._write(work.settle, verdicts)
        except SpoolDamaged:
            try:
                await self._write(work.settle_only, verdicts)
            except SpoolDamaged as error:
                self._event("spool.corrupt", id=gate_id, cause="can not be settled", not_marked=str(error))
                return
            self._event("spool.trouble", id=gate_id, cause="settled, but damage keeps the content from being removed")
        work.shunned.discard(gate_id)
        if isinstance(scan.read(scanned), Scored):
            self.ledger.scored()

    async def _note(self, notes: Sequence[Note]) -> None:
        spool = self._spool
        await spool.writer.do(spool.work.note, notes, DEADLINE)

    async def _chronicle(self, events: Sequence[Event]) -> None:
        spool = self._spool
        rows = await spool.aside(lambda: chronicle.rows_of(events))
        await spool.writer.do(spool.work.chronicle, rows, DEADLINE, chronicle.size_of(rows))

    async def _set_aside(self, gate_id: str, reason: str) -> None:
        work = self._spool.work
        work.shunned.add(gate_id)
        marked = ""
        try:
            await self._write(work.set_aside, (gate_id, reason))
            work.shunned.discard(gate_id)  # its state says it from now on
        except SpoolError as error:
            marked = str(error)
        self._event("spool.corrupt", id=gate_id, cause=reason, not_marked=marked)

    async def tend(self, now: float) -> Tended:
        """Housekeeping: see `housekeeping.tend`. To be called every few seconds. Raises SpoolError."""
        return await tend(self._spool, self.config, self.history.config, now, self._event)

    async def control(self, now: float) -> Control:
        """What a verb in any process may have written. To be called every second or so: it also looks whether the
        spool's trouble is over, which no message may come to show.
        """
        if self._trouble:
            with contextlib.suppress(SpoolError):  # it is not over: `trouble` says so
                await self._write(self._spool.work.touch, None)
        mark = self.database.owner_mark
        return await self._read(lambda c: Control(control.paused(c, now), control.foreign(c, mark)), "reading")

    def counts(self) -> Counts:
        """What is in the spool, for a scrape from any thread. Blocks for some milliseconds. Raises SpoolError."""
        return self.database.read(query.counts, "counting")

    def space(self) -> Space:
        """The room on its disk, for any thread. Raises SpoolError."""
        database, config = self.database, self.config
        owed = place.Ballast(database.path).owed

        def space(connection: Connection) -> Space:
            room = database.room(connection)
            words = place.refusal(config, room, spooled(connection), SMALL, reusable(connection), owed)
            return Space(room.free, place.floor(config, room, owed), room.inodes, words)

        return database.read(space, "looking at the disk")

    async def _write(self, operation: Operation[A, R], argument: A, timeout: float = DEADLINE, octets: int = 0) -> R:
        try:
            result = await self._spool.writer.do(operation, argument, timeout, octets)
        except SpoolError as error:
            self._trouble = str(error)
            raise
        self._trouble = ""
        return result

    async def _read(self, job: Callable[[Connection], T], doing: str) -> T:
        spool = self._spool
        try:
            async with asyncio.timeout(DEADLINE):
                return await spool.aside(lambda: spool.database.read(job, doing))
        except TimeoutError as error:
            raise SpoolError(f"{doing}: not done within {DEADLINE:g} s") from error

    def _event(self, name: str, *, level: str = "error", **fields: object) -> None:
        self._telemetry.event(name, {key: value for key, value in fields.items() if value != ""}, level=level)


def _close_late(opening: asyncio.Future[tuple[Database, Opened]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()
