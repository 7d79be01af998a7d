"""Where the spool lies: the directory's limits, the ballast, the lock, and whose file it is.

Fails with SpoolError and words that name the file or the key. The ballast is space kept for a full disk: giving it
up lets what is spooled still be claimed, settled and so removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from mailgate.config import SpoolConfig
from mailgate.core.units import said_octets
from mailgate.edge.spool.errors import SpoolBusy
from mailgate.ports import SpoolError

BALLAST = 8 * 2**20  # octets: about two hundred settled messages between two checkpoints
MODE = 0o640
HELD_SHARE = 0.75  # of spool.max_bytes: what nobody releases must not take the room that an outage needs
MIN_INODES = 1000  # or a hundredth of them where there are few


def beside(path: Path, ending: str) -> Path:
    """A file of ours next to the database."""
    return path.with_name(path.name + ending)


def create(path: Path, mode: int = MODE, *, new: bool = False) -> int:
    """Open a file for writing, made if it is missing (or `new`: if it is there, an error), owned as the directory's
    other files are. A link is never followed: whoever owns the directory must not have root's verbs write elsewhere.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(path, flags | os.O_EXCL if new else flags, mode)
    if os.geteuid() == 0:
        # A verb run by root must not leave a file behind that the daemon's user can not open.
        owner = path.parent.stat()
        os.fchown(handle, owner.st_uid, owner.st_gid)
    return handle


def sync_directory(directory: Path) -> None:
    """Make the directory's entries durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Lock:
    """Held by the one process that claims from this spool. Ends with the process, however that ends."""

    def __init__(self, path: Path, patience: float) -> None:
        """Take it. Raises SpoolBusy if another process has it and keeps it for longer than `patience` seconds."""
        self._path = beside(path, ".lock")
        self._handle = create(self._path)
        try:
            self._take(path, time.monotonic() + patience)
        except BaseException:
            self.release()  # what stays open would keep it locked, from ourselves too
            raise
        with contextlib.suppress(OSError):  # the disk may be full; it is only what others are told
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def _take(self, path: Path, until: float) -> None:
        while not self._taken():
            if time.monotonic() > until:
                holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip()
                raise SpoolBusy(f"{path}: the spool is in use by process {holder or 'unknown'}")
            time.sleep(0.02)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @property
    def lost(self) -> bool:
        """True when the file that we hold is not the one that others would take: it was deleted, or replaced."""
        try:
            return not os.path.samestat(os.fstat(self._handle), self._path.stat())
        except OSError:
            return True

    def release(self) -> None:
        """Let another process have the spool."""
        os.close(self._handle)


@dataclass(frozen=True, slots=True)
class Room:
    """What a store may still use. `free` and `total` in octets; `inodes` -1 where the file system does not count.

    `unwritten` are those of the free octets by which the database's file will grow when its log is written back.
    """

    free: int
    total: int
    inodes: int
    all_inodes: int
    unwritten: int = 0


def room(path: Path) -> Room:
    """The room on the disk of `path`."""
    state = os.statvfs(path.parent)
    inodes = state.f_favail if state.f_files else -1
    return Room(state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize, inodes, state.f_files)


def floor(config: SpoolConfig, room: Room, owed: int) -> int:
    """The octets that have to stay free on the disk; `owed` are those that the ballast lacks."""
    return config.min_free.of(room.total) + owed


def refusal(
    config: SpoolConfig,
    room: Room,
    spooled: int,
    more: int,
    reusable: int = 0,
    owed: int = 0,
    most: float = 1.0,
) -> str:
    """Why `more` octets may not be added to the `spooled` ones, naming the key; "" if they may.

    `reusable` are free octets inside the database's own file, `owed` those that the ballast lacks, `most` the share of
    spool.max_bytes up to which there may be something. Twice the size has
    to fit: once in the write-ahead log and once in the file, or else the log could not be written back and nothing
    could be settled any more.
    """
    if spooled + more > config.max_bytes * most:
        kept = "" if most == 1.0 else f"; the last {1 - most:.0%} are not for mail that is held"
        return (
            f"spool.max_bytes: {said_octets(spooled)} of {said_octets(config.max_bytes)} are in use, "
            f"{said_octets(more)} more do not fit{kept}"
        )
    least = floor(config, room, owed)
    free = room.free - room.unwritten
    grows = more - min(more, reusable)  # the file; the log does so by all of it
    if free - 2 * more + reusable < least or room.free < 2 * more or free < more + grows:
        logs = f", less {said_octets(room.unwritten)} for what the log holds," if room.unwritten else ""
        return (
            f"spool.min_free: {said_octets(room.free)}{logs} are free on the disk of {config.path.parent}, "
            f"{said_octets(least)} have to stay so"
        )
    if 0 <= room.inodes < min(MIN_INODES, room.all_inodes // 100 + 4):
        return f"spool.min_free: {room.inodes} inodes are free on the disk of {config.path.parent}"
    return ""


class Ballast:
    """The file of reserved space."""

    def __init__(self, path: Path) -> None:
        self._path = beside(path, ".ballast")

    @property
    def owed(self) -> int:
        """Octets that are missing from the reserve."""
        try:
            return 0 if self._path.lstat().st_size >= BALLAST else BALLAST
        except OSError:
            return BALLAST

    def give_up(self) -> bool:
        """Free the space. False if there was none to free."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def take(self, config: SpoolConfig) -> bool:
        """Reserve the space again if there is enough of it. False if it is not kept afterwards."""
        if not self.owed:
            return True
        if refusal(config, room(self._path), 0, BALLAST):
            return False
        try:
            handle = create(self._path)
            try:
                os.posix_fallocate(handle, 0, BALLAST)
            finally:
                os.close(handle)
        except OSError:
            self.give_up()
            return False
        return True


def fingerprint(path: Path, hostname: str) -> dict[str, str]:
    """What tells this gate's spool file from a copy of it, wherever the copy lies."""
    machine = ""
    with contextlib.suppress(OSError):  # not every system has one; the other marks remain
        machine = Path("/etc/machine-id").read_text("ascii", "replace").strip()
    try:
        inode = path.stat().st_ino
    except OSError as error:
        raise SpoolError(f"{path}: {error.strerror}") from error
    return {"machine": machine, "host": hostname or socket.gethostname(), "path": str(path), "inode": str(inode)}
