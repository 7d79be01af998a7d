"""Looking after the file: old leases, verify, backup, adopt. Synchronous; the daemon may be up."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, exists, select, update

from mailgate.edge.spool import by_hand, content, control, leases, place, unscored
from mailgate.edge.spool.database import Database
from mailgate.edge.spool.errors import SpoolBusy, SpoolDamaged, translated, translating
from mailgate.edge.spool.schema import CORRUPT, HELD, LIVE, messages, recipients, unindexed
from mailgate.ports import SpoolError

BACKUP_PAGES = 2048  # copied between two reports of progress

Progress = Callable[[int, int], None]  # done, of how many

_RESTORE = (
    update(recipients)
    .where(recipients.c.message_id == bindparam("of"), unindexed(recipients.c.state) == CORRUPT)
    .values(state=HELD, reply="was set aside as damaged; verify found it whole")
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `verify` found: with the message (id) or, with "", with the file. `done` is what it did about
    it: "set aside", "restored" (was set aside, is whole: held now), "" for nothing.
    """

    id: str
    problem: str
    done: str


def end_old_leases(database: Database) -> tuple[list[str], list[str]]:
    """End what a dead process has left leased: ids of messages that are uncertain from now on, and of those where
    that could not be written because of damage (they are not tried again). Nothing is done while another process
    serves the spool. Raises SpoolError.
    """
    with translating("ending old leases"):
        try:
            lock = None if database.serving else place.Lock(database.path, 0)
        except SpoolBusy:
            return [], []
        try:
            return _end_leases(database)
        finally:
            if lock is not None:
                lock.release()


def _end_leases(database: Database) -> tuple[list[str], list[str]]:
    try:
        ids = database.read(lambda c: leases.abandoned(c, database.run))
    except SpoolDamaged:
        ids = database.read(lambda c: leases.abandoned(c, database.run, scan=True))
    if not ids:
        return [], []
    try:
        database.write(lambda c: _abandon(c, database.run, ids))
    except SpoolDamaged:
        stuck = [gate_id for gate_id in ids if not _ended(database, gate_id)]
        return [gate_id for gate_id in ids if gate_id not in stuck], stuck
    return ids, []


def _ended(database: Database, gate_id: str) -> bool:
    try:
        database.write(lambda c: _abandon(c, database.run, [gate_id]))
    except SpoolDamaged:
        return False
    return True


def _abandon(connection: Connection, run: str, ids: Sequence[str]) -> None:
    unscored.abandoned(connection, run, ids)  # before the leases, which tell it, are gone
    leases.abandon(connection, run, ids)
    cause = "the gate ended while it was being delivered: Mailman may have it"
    told = [{"id": gate_id, "cause": cause} for gate_id in ids]
    by_hand.note(connection, "spool.uncertain", told, time.time(), level="warning")


def verify(database: Database, progress: Progress | None = None) -> Iterator[Finding]:
    """Check the file's structure and every content against its digest, while the result is being iterated."""
    for row in _structure(database):
        if row != "ok":
            yield Finding("", row, "")
    for gate_id in database.read(leases.orphans, "looking for orphans"):
        yield database.write(partial(_lost, gate_id=gate_id))
    living = exists().where(recipients.c.message_id == messages.c.id, unindexed(recipients.c.state).in_(LIVE))
    query = select(messages.c.id).where(living).order_by(messages.c.received)
    ids = database.read(lambda c: list(c.scalars(query)), "choosing")
    for done, gate_id in enumerate(ids, 1):
        finding = _verified(database, gate_id)
        if finding:
            yield finding
        if progress:
            progress(done, len(ids))


def _structure(database: Database) -> list[str]:
    def check(connection: Connection) -> list[str]:
        return [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]

    try:
        return database.read(check, "checking")
    except SpoolError as error:
        return [str(error)]


def _verified(database: Database, gate_id: str) -> Finding | None:
    problem = ""
    try:
        for _ in content.octets(database, gate_id):
            pass
    except SpoolDamaged as error:
        problem = str(error)
    except SpoolError as error:  # the disk or another process is in the way, and the message may be well
        return Finding(gate_id, f"not checked: {error}", "")
    try:
        aside = database.read(lambda c: any(state == CORRUPT for state, _ in _living(c, gate_id)))
        if not problem and not aside:
            return None
        return database.write(lambda c: _judged(c, gate_id, problem))
    except SpoolError as error:
        return Finding(gate_id, f"{problem or 'is whole'}; nothing could be written about it: {error}", "")


def _living(connection: Connection, gate_id: str) -> list[tuple[str, str]]:
    """The living states of a message's recipients, each with the lease under it."""
    query = select(recipients.c.state, recipients.c.lease).where(recipients.c.message_id == gate_id)
    return [(row.state, row.lease) for row in connection.execute(query) if row.state in LIVE]


def _judged(connection: Connection, gate_id: str, problem: str) -> Finding | None:
    living = _living(connection, gate_id)
    if not living:
        return None  # settled or dropped while it was read
    if not problem:
        connection.execute(_RESTORE, {"of": gate_id})
        return _said(connection, Finding(gate_id, "had been set aside, but its content is what was stored", "restored"))
    if any(lease for _, lease in living) or all(state == CORRUPT for state, _ in living):
        return Finding(gate_id, problem, "")  # a replay is at it and finds the same, or nothing new
    leases.set_aside(connection, gate_id, problem)
    return _said(connection, Finding(gate_id, problem, "set aside"))


def _lost(connection: Connection, gate_id: str) -> Finding:
    finding = Finding(gate_id, "the message is lost, only its recipients are here", "set aside")
    leases.set_aside(connection, gate_id, finding.problem)
    return _said(connection, finding)


def _said(connection: Connection, finding: Finding) -> Finding:
    """The same, in the history too."""
    fields = {"id": finding.id, "by": by_hand.who(), "done": finding.done, "cause": finding.problem}
    by_hand.note(connection, "operator.verify", [fields], time.time())
    return finding


def backup(database: Database, target: Path, progress: Progress | None = None) -> None:
    """A consistent copy in one file, marked as a copy so that no gate replays it unasked. It is there whole or not at
    all; a file of that name is replaced. Raises SpoolError.
    """
    if target.exists() and target.samefile(database.path):
        raise SpoolError(f"{target}: is the spool itself")
    part = place.beside(target, ".part")
    try:
        with translating(f"writing {target}"):
            part.unlink(missing_ok=True)
            os.close(place.create(part, 0o600, new=True))
            _copy(database, part, progress)
            _sync(part)
            part.replace(target)
            place.sync_directory(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _copy(database: Database, part: Path, progress: Progress | None) -> None:
    def report(_: int, left: int, total: int) -> None:
        if progress:
            progress(total - left, total)

    copy = sqlite3.connect(part, isolation_level=None)
    try:
        with database.reading.connect() as connection, connection.begin():
            control.read(connection, "owner")  # what is copied is what stands there now, whatever comes meanwhile
            source: Any = connection.connection.driver_connection
            source.backup(copy, pages=BACKUP_PAGES, progress=report, sleep=0)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, no log beside it
        copy.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('copy', 'yes')")
    except sqlite3.Error as error:
        raise translated(error, "copying") from error
    finally:
        copy.close()


def _sync(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def adopt(database: Database, *, uncertain: bool = True) -> int:
    """Make the file this gate's own, so that it is replayed. With `uncertain` everything that waits in it is marked
    so, because the gate it comes from may have delivered it; how many recipients that were.
    """
    return database.write(lambda c: control.adopt(c, database.owner_mark, uncertain=uncertain), "adopting")
