"""From files to a table: a process of its own, so that a million networks don't hold the daemon's loop up.

Promises: the table is there whole or not at all. What a broken file listed before stays listed, from the table before.
How it fails: exit status 1 and the reason on stderr, also where the files want more memory than there is to be; the
table is the one before then.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mailgate.core.located import Broken
from mailgate.core.network_lists import Bad, Entry
from mailgate.core.network_table import Listed, ListFile, Table
from mailgate.core.networks import NetworkSet
from mailgate.edge.networks.files import Room, Sources
from mailgate.edge.networks.writing import write

MODE = 0o640
_TOLD = 20  # bad entries of a file that are told one by one
_NICE = 10  # mail goes first
_MOST = 3 * 2**30  # octets of memory; a million entries with words of their own, as YAML, take half of that


def made(sources: Sources, before: Table | None, now: float) -> bytes:
    """The octets of a table of all files as they are now."""
    listed = Listed()
    sets: list[NetworkSet] = []
    reports = []
    room = Room()
    for name, version in sources.versions().items():
        mark = listed.mark()
        try:
            found, bad = _read(name, listed, room)
            told = tuple(f"line {one.line}: {one.problem}" for one in bad[:_TOLD])
            reports.append(ListFile(name, version, "", now, len(bad), told))
        except Broken as error:
            listed.back_to(mark)
            found = _keep(name, listed, before)
            room.sets, room.entries = len(sets) + len(found), listed.count
            reports.append(ListFile(name, version, str(error), read_before(name, before)))
        sets += found
    return listed.built(sets, reports, now)


def _read(name: str, listed: Listed, room: Room) -> tuple[list[NetworkSet], list[Bad]]:
    found: list[NetworkSet] = []
    bad: list[Bad] = []
    for one in room.read(name):
        if isinstance(one, Entry):
            listed.add(one.span, one.of, one.expires)
        elif isinstance(one, NetworkSet):
            found.append(one)
        else:
            bad.append(one)
    return found, bad


def _keep(name: str, listed: Listed, before: Table | None) -> list[NetworkSet]:
    for one in kept(name, before):
        listed.add(one.span, one.of, one.expires)
    return _of_file(name, before)


def kept(name: str, before: Table | None) -> Iterator[Entry]:
    """What this file, or the files of this directory, listed before; no line and no comment is known of it."""
    if before and (sets := _of_file(name, before)):
        for stretch, cover in before.stretches():
            yield from (Entry(of, stretch, 0, expires, "") for of, expires in cover if of in sets)


def read_before(name: str, before: Table | None) -> float:
    """When it was read last, or the files of this directory; 0.0 if never."""
    found = (one.read for one in before.files if name in {one.name, str(Path(one.name).parent)}) if before else ()
    return max(found, default=0.0)


def _of_file(name: str, before: Table | None) -> list[NetworkSet]:
    return [one for one in before.sets if name in {one.file, str(Path(one.file).parent)}] if before else []


def load(path: Path) -> Table | None:
    """The table in a file; None if there is none. Raises OSError or ValueError."""
    try:
        return Table(path.read_bytes())
    except FileNotFoundError:
        return None


def last(path: Path) -> Table | None:
    """The same, where a damaged table, or another version's, is as good as none. Raises OSError."""
    with contextlib.suppress(ValueError):
        return load(path)
    return None


def make(sources: Sources, path: Path) -> Table:
    """Make the table anew and put it where it belongs. Raises OSError."""
    octets = made(sources, last(path), time.time())
    write(path, octets, MODE)
    return Table(octets)


def main() -> None:
    """The process: `making --table FILE --own FILE [FILE …]`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--own", type=Path, required=True)
    parser.add_argument("files", type=Path, nargs="*")
    given = parser.parse_args()
    os.nice(_NICE)
    with contextlib.suppress(OSError):  # where /proc is not to be had, the kernel chooses by itself
        Path("/proc/self/oom_score_adj").write_text("500")
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (min(_MOST, allowed) if allowed >= 0 else _MOST, allowed))
    try:
        make(Sources(tuple(given.files), given.own), given.table)
    except (OSError, MemoryError) as error:
        sys.exit(f"{given.table}: {getattr(error, 'strerror', '') or str(error) or 'no memory'}")


if __name__ == "__main__":
    main()
