"""Opening the spool to serve, and all that is open then. Blocking: the store runs it in a thread.

Fails with SpoolError in words for a person. A full disk costs the ballast, not the opening; damage in the queue is
found and told, and does not keep the rest closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from mailgate.config import SpoolConfig
from mailgate.edge.spool import control, place, unscored, upkeep
from mailgate.edge.spool.database import READERS, Database
from mailgate.edge.spool.work import Work
from mailgate.edge.spool.writer import Writer
from mailgate.ports import SpoolError
from mailgate.strays import Stray, caught

T = TypeVar("T")
_CLOSED = "the spool is closed"


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found: `abandoned` are messages that a process which is gone was delivering, now marked uncertain;
    `stuck` those of them where damage kept that from being written. `foreign`: see `control.foreign`. `unscored`: the
    outage of the last post in the ledger, and when that came in.
    """

    created: bool
    abandoned: tuple[str, ...]
    stuck: tuple[str, ...]
    foreign: str
    unscored: tuple[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """The open file, the thread that writes, what it does, and the threads that read."""

    database: Database
    writer: Writer
    work: Work
    threads: ThreadPoolExecutor

    async def aside(self, job: Callable[[], T]) -> T:
        """What the job returns, done in one of the threads that read. Raises SpoolError if the file is let go first."""
        try:
            doing = asyncio.get_running_loop().run_in_executor(self.threads, job)
        except RuntimeError as error:
            raise SpoolError(_CLOSED) from error
        try:
            return await caught(doing)
        except Stray as error:  # `close` has cancelled it
            raise SpoolError(_CLOSED) from error

    def close(self, timeout: float) -> None:
        """Finish what was submitted and let go of the file. A writer that is not done within `timeout` seconds keeps
        file and lock until the process ends: nobody else may have them while it may still write.
        """
        ended = self.writer.close(timeout)
        self.threads.shutdown(wait=ended, cancel_futures=True)
        if ended:
            self.database.close()


def open_file(config: SpoolConfig, hostname: str) -> tuple[Database, Opened]:
    """Open the file to serve. Raises SpoolError."""
    database = Database(config.path, hostname, serve=True)
    try:
        abandoned, stuck = upkeep.end_old_leases(database)
        foreign = database.read(lambda c: control.foreign(c, database.owner_mark))
        last = _last(database)
        place.Ballast(database.path).take(config)
    except BaseException:
        database.close()
        raise
    return database, Opened(database.created, tuple(abandoned), tuple(stuck), foreign, last)


def _last(database: Database) -> tuple[str, float] | None:
    try:
        return database.read(unscored.last)
    except SpoolError:  # what is wrong with the ledger is said when it is written to, and mail does not depend on it
        return None


def begin(
    database: Database,
    config: Callable[[], SpoolConfig],
    on_commit: Callable[[float], None],
    on_trouble: Callable[[str], None],
) -> Serving:
    """Start the threads. `on_commit` and `on_trouble`: see `Writer`."""
    relief = place.Ballast(database.path).give_up
    writer = Writer(database.writing, relief, on_commit, on_trouble)
    return Serving(database, writer, Work(database, config), ThreadPoolExecutor(READERS, "spool-reader"))
