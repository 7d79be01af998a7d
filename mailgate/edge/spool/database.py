"""The spool's file, open: connections for reading and writing, the lock, the mark of its owner.

The daemon opens it to serve (exclusive lock, made if it is missing); operator verbs open it beside the daemon.
All that is written goes through BEGIN IMMEDIATE, so what a transaction has read stays true until it commits.
Fails with SpoolError in clear words: missing directory, no permission, not a database, a newer schema, in use.

After a COMMIT that failed (an fsync error, say) the connection stays open and something is written at once. The
frames of the failed transaction, its commit mark included, may stand in the write-ahead log; SQLite has only not
advanced its index over them. If the process died now, whoever opens the file next would rebuild the index from the
log and so bring back what its sender was told we do not have. The next transaction is written over the same place,
and the checksums of the log are chained: whatever frames stay behind it no longer fit. That holds even if the second
commit fails as well. It is also why a later fsync may be believed: Linux forgets pages whose write failed, but these
have been written again, and pages before them had been synced.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from mailgate.edge.spool import control, place, schema
from mailgate.edge.spool.errors import SpoolAbsent, SpoolBusy, code, said, translated, translating
from mailgate.ports import SpoolError, SpoolFull

T = TypeVar("T")

BUSY_TIMEOUT = 5.0  # seconds to wait for another process's write; verbs write in small steps
LOG_KEPT = 64 * 2**20  # octets of the write-ahead log's file that are kept for the next messages
READERS = 4
PATIENCE = 1.0  # seconds: a verb holds the lock for a moment only


class Database:
    """An open spool. `run` names this process's leases. Threads may share it."""

    def __init__(self, path: Path, hostname: str, *, serve: bool = False) -> None:
        """Open the spool at `path`; `hostname` is the gate's. With `serve` it is made if missing, and locked."""
        self.path = path
        self.run = secrets.token_hex(8)
        self.created = False
        self._lock: place.Lock | None = None
        self._engines: list[Engine] = []
        self._mark: dict[str, str] = {}
        self._ballast = place.Ballast(path)
        with translating(f"opening {path}"):
            self._check(serve=serve)
            try:
                self._relieved(lambda: self._open(hostname, serve=serve))
            except BaseException:
                self.close()
                raise

    def _check(self, *, serve: bool) -> None:
        directory = self.path.parent
        if not directory.is_dir():
            raise SpoolError(f"{directory}: no such directory: make it, writable for mailgate (spool.url)")
        try:
            mode = self.path.stat().st_mode
        except FileNotFoundError:
            if not serve:
                raise SpoolAbsent(f"{self.path}: there is no spool (spool.url)") from None
            if not os.access(directory, os.W_OK | os.X_OK):
                raise SpoolError(f"{directory}: not writable for mailgate (spool.url)") from None
            return
        if not stat.S_ISREG(mode):
            raise SpoolError(f"{self.path}: not a file (spool.url)")
        for where in (directory, self.path):
            if not os.access(where, os.R_OK | os.W_OK):
                raise SpoolError(f"{where}: not readable and writable for mailgate (spool.url)")

    def _open(self, hostname: str, *, serve: bool) -> None:
        if serve and self._lock is None:
            self._lock = place.Lock(self.path, PATIENCE)
        if not self.path.exists():
            # Before SQLite has it open: closing any other handle of the file later would drop SQLite's locks on it.
            os.close(place.create(self.path))
        self._check_tables()
        self._mark = place.fingerprint(self.path, hostname)
        self.writing = self._engine(_begin_writing, pool_size=1)
        self.reading = self._engine(_begin_reading, pool_size=READERS)
        try:
            self.created = self._prepare(serve=serve)
        except SpoolError as error:
            raise type(error)(f"{self.path}: {error}") from error.__cause__
        place.sync_directory(self.path.parent)
        self._identity = self._seen()

    def _check_tables(self) -> None:
        """Before anything is changed in it, and be it the kind of its log."""
        with translating("opening"), closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT)) as connection:
            try:
                names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            except sqlite3.DatabaseError as error:
                if code(error) == "SQLITE_NOTADB":
                    raise SpoolError(f"{self.path}: not a database: {said(error)}") from error
                raise
        if names and "meta" not in names:
            raise SpoolError(f"{self.path}: this database is not a spool: it has other tables")

    def _prepare(self, *, serve: bool) -> bool:
        first = {"owner": json.dumps(self._mark), "instance": secrets.token_hex(8)}
        try:
            return self._write(lambda c: schema.prepare(c, first, forward=serve), "opening")
        except schema.Outdated as error:
            try:
                lock = place.Lock(self.path, 0)
            except SpoolBusy:
                raise error from None
            try:
                return self._write(lambda c: schema.prepare(c, first, forward=True), "opening")
            finally:
                lock.release()

    def _relieved(self, do: Callable[[], T]) -> T:
        """Where the disk is full the ballast is given up for it."""
        try:
            return do()
        except SpoolFull:
            if not self._ballast.give_up():
                raise
            return do()

    def _engine(self, begin: Callable[[Connection], None], pool_size: int) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            poolclass=QueuePool,
            pool_size=pool_size,
            pool_timeout=BUSY_TIMEOUT,
            connect_args={"timeout": BUSY_TIMEOUT, "check_same_thread": False},
        )
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", begin)
        self._engines.append(engine)
        return engine

    @property
    def owner_mark(self) -> dict[str, str]:
        """The mark of this gate on this file, to compare with the one the file carries."""
        return self._mark

    @property
    def serving(self) -> bool:
        """True if this process has the lock: nobody else claims."""
        return self._lock is not None

    def write(self, job: Callable[[Connection], T], doing: str = "writing") -> T:
        """Run `job` in a transaction of its own, in this thread, and commit it. Raises SpoolError. On a full disk it
        is run once more with the ballast given up: this is for what settles, removes or steers, not for new mail.
        """
        return self._relieved(lambda: self._write(job, doing))

    def _write(self, job: Callable[[Connection], T], doing: str) -> T:
        with translating(doing), self.writing.connect() as connection:
            connection.begin()
            try:
                result = job(connection)
            except BaseException:
                roll_back(connection)
                raise
            commit(connection)
            return result

    def read(self, job: Callable[[Connection], T], doing: str = "reading") -> T:
        """Run `job` on one consistent state of the spool, in this thread. Raises SpoolError."""
        with translating(doing), self.reading.connect() as connection, connection.begin():
            return job(connection)

    def room(self, connection: Connection) -> place.Room:
        """The room on its disk. The pages that the log adds are not in the file yet, and have to find their place."""
        room = place.room(self.path)
        pages = _pragma(connection, "page_count") * _pragma(connection, "page_size")
        return replace(room, unwritten=max(0, pages - self.path.stat().st_size))

    def _seen(self) -> tuple[int, int] | None:
        try:
            state = self.path.stat()
        except OSError:
            return None
        return state.st_dev, state.st_ino

    @property
    def replaced(self) -> bool:
        """True when the path no longer leads to the file that is open: what we write would be lost on closing. Or when
        the lock is not there any more: another process could take it.
        """
        return self._seen() != self._identity or (self._lock is not None and self._lock.lost)

    def close(self) -> None:
        """Let go of the file and the lock."""
        for engine in self._engines:
            engine.dispose()
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def commit(connection: Connection) -> None:
    """Commit. If that fails it is rolled back and made worthless (see the head of this file), and raised."""
    transaction = connection.get_transaction()
    assert transaction is not None
    try:
        transaction.commit()
    except BaseException:
        roll_back(connection)
        with suppress(Exception):  # even failing it has done its work, and the first failure is what is told
            connection.begin()
            control.touch(connection)
            connection.commit()
        roll_back(connection)
        raise


def roll_back(connection: Connection) -> None:
    """End the transaction, whatever state it is in. Raises SpoolError if the database will not even do that."""
    try:
        transaction = connection.get_transaction()
        if transaction is not None:
            transaction.rollback()
        # After a COMMIT that failed SQLAlchemy has forgotten the transaction, the database may still be in it.
        connection.connection.rollback()
    except Exception as error:
        raise translated(error, "rolling back") from error


def reusable(connection: Connection) -> int:
    """Octets inside the file that are free to be used again."""
    return _pragma(connection, "freelist_count") * _pragma(connection, "page_size")


def _pragma(connection: Connection, name: str) -> int:
    # Past SQLAlchemy, as `_begin`: each group commit asks.
    row = connection.connection.cursor().execute(f"PRAGMA {name}").fetchone()
    return int(row[0]) if row else 0


def give_back(connection: Connection, pages: int) -> None:
    """Return up to that many free pages at the end of the file to the disk."""
    cursor = connection.connection.cursor()
    for _ in range(pages):  # the module takes one step of a statement that has no columns: one page
        cursor.execute("PRAGMA incremental_vacuum(1)")
    cursor.close()


def _configure(handle: Any, _record: object) -> None:
    handle.isolation_level = None  # the module must not begin transactions by itself: `_begin_…` do
    cursor = handle.cursor()
    for pragma in (
        "auto_vacuum = INCREMENTAL",  # only heeded in an empty file; lets the disk come back after an outage
        "journal_mode = WAL",
        "synchronous = FULL",
        f"journal_size_limit = {LOG_KEPT}",
        "secure_delete = FAST",  # Debian's default writes zeros over a message's pages, as much I/O as storing it
        "trusted_schema = OFF",
        "cell_size_check = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_writing(connection: Connection) -> None:
    _begin(connection, "BEGIN IMMEDIATE")


def _begin_reading(connection: Connection) -> None:
    _begin(connection, "BEGIN")


def _begin(connection: Connection, statement: str) -> None:
    # Past SQLAlchemy, which would take ten times as long over it as SQLite.
    connection.connection.cursor().execute(statement)
