"""What the database's errors mean to the spool.

Everything that goes wrong below leaves here as a SpoolError with words for the log; SpoolFull where space is what is
missing, SpoolDamaged where what is on disk is not what was written. The engine's own names are kept in the words.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError, StatementError

from mailgate.ports import SpoolError, SpoolFull

# SHMSIZE: the index of the write-ahead log could not grow, which SQLite does not call "full" though the disk is.
_FULL = {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", "ENOSPC", "EDQUOT"}
# Not IOERR: a disk that can't be read now may be read later, and then nothing is wrong with the message.
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_MISMATCH", "SQLITE_TOOBIG")
_HINTS = {"SQLITE_CANTOPEN": ": it or a file beside it can't be made; no permission, or no space or inode is free"}
_ODD = (TypeError, ValueError, AttributeError, KeyError)


class SpoolAbsent(SpoolError):
    """There is no spool file: nothing was ever spooled here, or the path is wrong."""


class SpoolBusy(SpoolError):
    """Another process serves or replays this spool."""


class SpoolDamaged(SpoolError):
    """The database can not read what it wrote."""


def code(error: BaseException) -> str:
    """The engine's or the system's name for an error ("SQLITE_FULL", "ENOSPC"), or "" if it has none."""
    origin = error.orig if isinstance(error, StatementError) else error
    if isinstance(origin, OSError):
        return errno.errorcode.get(origin.errno or 0, "")
    return str(getattr(origin, "sqlite_errorname", "") or "")


def is_full(error: BaseException) -> bool:
    """The disk had no room for it."""
    return code(error) in _FULL


def is_damage(error: BaseException) -> bool:
    """What is on disk is not what was written; reading it again would fail again."""
    undecodable = isinstance(error, StatementError) and "Could not decode" in str(error.orig)
    return code(error).startswith(_DAMAGE) or undecodable


def said(error: BaseException) -> str:
    """The error in one line for the log."""
    origin = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    name = code(error)
    text = f"{origin}" or type(origin).__name__
    return f"{text} ({name or type(origin).__name__}){_HINTS.get(name, '')}".replace("\n", " ")


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
    except (SQLAlchemyError, sqlite3.Error, OSError, MemoryError) as error:
        raise translated(error, doing) from error


@contextmanager
def believing(what: str) -> Iterator[None]:
    """Rows are taken apart in the block: a value of a kind that was never written there is damage."""
    try:
        yield
    except _ODD as error:
        raise SpoolDamaged(f"{what}: a value that was never written there: {error}") from error
