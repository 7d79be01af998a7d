"""What the database's errors mean to the spool.

Everything that goes wrong below leaves here as a SpoolError with words for the log; SpoolFull where space is what is
missing, SpoolDamaged where what is on disk is not what was written. The engine's own names are kept in the words.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from mailgate.ports import SpoolError, SpoolFull

# SHMSIZE: the index of the write-ahead log could not grow, which SQLite does not call "full" though the disk is.
_FULL = {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"}
_PASSING = {"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_INTERRUPT", "SQLITE_NOMEM", "SQLITE_IOERR_NOMEM"}
_SCHEMA = {"SQLITE_ERROR", "SQLITE_MISUSE"}


class SpoolAbsent(SpoolError):
    """There is no spool file: nothing was ever spooled here, or the path is wrong."""


class SpoolBusy(SpoolError):
    """Another process serves or replays this spool."""


class SpoolDamaged(SpoolError):
    """The database can not read what it wrote."""


def code(error: BaseException) -> str:
    """The engine's name for an error ("SQLITE_FULL"), or "" if it has none."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(origin, "sqlite_errorname", "") or "")


def is_full(error: BaseException) -> bool:
    """The disk had no room for it."""
    return code(error) in _FULL


def is_damage(error: BaseException) -> bool:
    """Reading the same again would fail again: a bad page, a bad sector, a value of the wrong kind."""
    if not isinstance(error, DBAPIError | sqlite3.Error):
        return False
    name = code(error)
    return name not in _FULL | _PASSING | _SCHEMA and not name.startswith("SQLITE_BUSY")


def said(error: BaseException) -> str:
    """The error in one line for the log."""
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    name = code(error)
    text = f"{origin}" or type(origin).__name__
    return f"{text} ({name or type(origin).__name__})".replace("\n", " ")


def translated(error: BaseException, doing: str) -> SpoolError:
    """The same trouble as the stories know it; `doing` says what was tried ("storing")."""
    if isinstance(error, SpoolError):
        return error
    text = f"{doing}: {said(error)}"
    if is_full(error):
        return SpoolFull(f"{doing}: no space left on the disk of the spool ({code(error)})")
    if is_damage(error):
        return SpoolDamaged(text)
    return SpoolError(text)


@contextmanager
def translating(doing: str) -> Iterator[None]:
    """Every error of the database or the file system that leaves the block does so as a SpoolError."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, OSError, MemoryError) as error:
        raise translated(error, doing) from error
