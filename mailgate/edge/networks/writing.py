"""A file written whole or not at all: whoever reads it meanwhile reads the one before.

How it fails: OSError, and the file is as it was.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def write(path: Path, octets: bytes, mode: int) -> None:
    """Put these octets in the place of what `path` holds, synced. A new file is its directory's owner's, with this
    mode; one that is there keeps both. A symbolic link is followed.
    """
    path = path.resolve()
    uid, gid, mode = _looks(path, mode)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123  a handle, not a path
            file.write(octets)
            file.flush()
            if os.geteuid() == 0:
                os.fchown(handle, uid, gid)
            os.fchmod(handle, mode)
            os.fsync(handle)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _looks(path: Path, mode: int) -> tuple[int, int, int]:
    try:
        found = path.stat()
        return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)
    except FileNotFoundError:
        found = path.parent.stat()
        return found.st_uid, found.st_gid, mode
