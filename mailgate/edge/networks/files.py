"""The files of networks: which there are, whether one has changed, and what stands in it.

How it fails: a file that can't be read, or is not what it should be, is Broken with the reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mailgate.core import network_lists
from mailgate.core.located import Broken
from mailgate.core.network_lists import MAX_ENTRIES, MAX_OCTETS, MAX_SETS, Bad, Entry
from mailgate.core.networks import NetworkSet
from mailgate.core.units import said_octets
from mailgate.edge.networks import yaml

_MISSING = "missing"
_YAML = {".yaml", ".yml"}
_TREES = {*_YAML, ".json"}  # where an empty list has a word or two
_OF_DIRECTORIES = {*_TREES, ".txt", ".list", ".nft"}  # not editors' copies, nor packages' leftovers
# What is no comment, of any format: a write that was cut off may have left just the file's head.
_WORD = re.compile(r"^[\ufeff \t\r]*[^\ufeff \t\r\n#;/]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sources:
    """The files and directories that the configuration names, and mailgate's own file, which need not exist."""

    files: tuple[Path, ...]
    own: Path

    def versions(self) -> dict[str, str]:
        """Each file that there is, or should be, by its name, and what tells this version of it from another."""
        found = {str(file): _version(file) for path in self.files for file in _inside(path)}
        if (version := _version(self.own)) != _MISSING:
            found[str(self.own)] = version
        return found


def _inside(path: Path) -> Iterable[Path]:
    """The files of a directory; else the path itself, also where an empty directory is: that is not meant."""
    with contextlib.suppress(OSError):  # that it can't be read is found out, and told, by who reads it
        if path.is_dir():
            return sorted(file for file in path.iterdir() if _counts(file)) or [path]
    return [path]


def _counts(file: Path) -> bool:
    """Also a link that leads nowhere: what it led to is missed, not gone."""
    return file.suffix in _OF_DIRECTORIES and not file.name.startswith(".") and not file.is_dir()


def _version(file: Path) -> str:
    try:
        found = file.stat()
    except OSError as error:
        return _MISSING if error.errno == errno.ENOENT else str(error.strerror)
    return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"


class Room:
    """The bounds of all files together, for who reads one after the other: the daemon, and verbs that say what it does.

    Of a file that is Broken nothing counts but what is kept of it; `sets` and `entries` say what is taken.
    """

    def __init__(self) -> None:
        self.sets = self.entries = 0

    def read(self, name: str) -> Iterator[NetworkSet | Entry | Bad]:
        """What stands in a file. Raises Broken, also where there is no room for it."""
        before = self.sets, self.entries
        try:
            for one in read(name):
                self._take(one)
                yield one
        except Broken:
            self.sets, self.entries = before
            raise

    def _take(self, one: NetworkSet | Entry | Bad) -> None:
        if isinstance(one, Entry):
            self.entries += 1
            if self.entries > MAX_ENTRIES:
                raise Broken(f"is too much: more than {MAX_ENTRIES} networks in all files")
        elif isinstance(one, NetworkSet):
            self.sets += 1
            if self.sets > MAX_SETS:
                raise Broken(f"is too much: more than {MAX_SETS} sets in all files")


def read(name: str) -> Iterator[NetworkSet | Entry | Bad]:
    """What stands in a file by itself, as `core.network_lists.read` has it. Raises Broken, at once or later."""
    file = Path(name)
    try:
        with open(file, "rb", opener=_opened) as opened:
            octets = opened.read(MAX_OCTETS + 1)
        text = octets.decode()
    except IsADirectoryError:
        raise Broken(f"there is no file of networks in it (*{', *'.join(sorted(_OF_DIRECTORIES))})") from None
    except OSError as error:
        raise Broken(str(error.strerror)) from None
    except UnicodeDecodeError as error:
        raise Broken(f"is no text: octet {error.start + 1} is not UTF-8") from None
    if len(octets) > MAX_OCTETS:
        raise Broken(f"is larger than {said_octets(MAX_OCTETS)}")
    if file.suffix in _TREES and not _WORD.search(text):
        raise Broken("is empty: whoever writes it has not got to the end, or not begun")
    return network_lists.read(name, text, yaml.read(text) if file.suffix in _YAML else None)


def _opened(name: str, flags: int) -> int:
    """A handle to a plain file. A pipe would have us wait for its writer, and a device has no end."""
    handle = os.open(name, flags | os.O_NONBLOCK)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # a directory is refused by whoever asked
        return handle
    os.close(handle)
    raise Broken("is no file, but a pipe or a device")
