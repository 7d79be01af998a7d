"""The history's tables, as functions of a connection for transactions: each may be run again from the start.

Events that were written together are one row: packed, with the checksums of all names that one of them is found by in
a row of its own, which is all that a search goes through. So it grows at its end only, costs no index, and is forgotten
at its beginning.
How it fails: what can't be unpacked is SpoolDamaged, for that row alone. A checksum that fits by chance costs a look.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, select

from mailgate.core import story
from mailgate.edge.spool import control
from mailgate.edge.spool.errors import SpoolDamaged
from mailgate.edge.spool.schema import history, history_events

_TOTAL = "history_octets"  # in `meta`
_ROW = 100  # octets that a row takes besides its contents
_ROW_EVENTS = 250  # in a row: a search unpacks it whole
_LARGEST = 64 * 2**20  # octets of a row when it is unpacked
_INSERT, _INSERT_EVENTS = insert(history), insert(history_events)
_OLDEST = select(history.c.id, history.c.ended, history.c.size).order_by(history.c.id).limit(bindparam("most"))


class Event(NamedTuple):
    """Something that happened to a message, `at` seconds since the epoch: as `ports.Telemetry.event` was told it."""

    at: float
    name: str
    level: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Packed:
    """Events as they are written: when the first and the last of them were, the checksums of their names, and they."""

    began: float
    ended: float
    names: bytes
    events: bytes

    @property
    def size(self) -> int:
        """Octets that it takes on disk, near enough."""
        return len(self.names) + len(self.events) + _ROW


def size_of(rows: Iterable[Packed]) -> int:
    """Octets that these rows take on disk, near enough."""
    return sum(row.size for row in rows)


def rows_of(events: Sequence[Event]) -> list[Packed]:
    """The rows of these events; takes some 20 µs for each event, so not in the event loop."""
    return [pack(events[first : first + _ROW_EVENTS]) for first in range(0, len(events), _ROW_EVENTS)]


def pack(events: Sequence[Event]) -> Packed:
    """The row of these events."""
    names: set[str] = set()
    lines = []
    for at, name, level, fields in events:  # one after the other: what is made of one is soon out of the cache
        lines.append(f'[{at!r}, "{name}", "{level}", {story.as_json(fields)}]')
        names |= story.names(fields)
    sums = sorted(checksums(names))
    return Packed(
        began=min(event.at for event in events),
        ended=max(event.at for event in events),
        names=struct.pack(f"<{len(sums)}I", *sums),
        events=zlib.compress("\n".join(lines).encode("ascii"), 1),
    )


def unpack(octets: bytes) -> list[Event]:
    """The events of a row. Raises SpoolDamaged."""
    try:
        lines = zlib.decompressobj().decompress(octets, _LARGEST)
        return [_event(json.loads(line)) for line in lines.split(b"\n")]
    except (zlib.error, ValueError, TypeError, RecursionError) as error:
        raise SpoolDamaged(f"a part of the history can't be read: {error}") from error


def _event(values: Any) -> Event:
    at, name, level, fields = values
    if not isinstance(fields, dict):
        raise TypeError("an event without fields")
    return Event(float(at), str(name), str(level), fields)


def checksums(names: Iterable[str]) -> set[int]:
    """What stands for these names in a row."""
    return {zlib.crc32(name.encode("utf-8", "surrogatepass")) for name in names}


def fits(octets: bytes, sums: frozenset[int]) -> bool:
    """May one of the events of this row have a name with one of these checksums?"""
    return not sums.isdisjoint(struct.unpack(f"<{len(octets) // 4}I", octets[: len(octets) // 4 * 4]))


def write(connection: Connection, rows: Sequence[Packed]) -> list[int]:
    """Write rows; their numbers."""
    numbers = [_write_head(connection, row) for row in rows]
    contents = [{"id": number, "events": row.events} for number, row in zip(numbers, rows, strict=True)]
    connection.execute(_INSERT_EVENTS, contents)
    _resized(connection, size_of(rows))
    return numbers


def _write_head(connection: Connection, row: Packed) -> int:
    head = {"began": row.began, "ended": row.ended, "size": row.size, "names": row.names}
    made = connection.execute(_INSERT, head).inserted_primary_key
    assert made is not None
    return int(made[0])


def add(connection: Connection, events: Sequence[Event]) -> None:
    """Write events of a verb's, in its transaction."""
    if events:
        write(connection, [pack(events)])


def remove(connection: Connection, numbers: Sequence[int], octets: int) -> None:
    """Take rows out, which have so many octets together."""
    connection.execute(delete(history_events).where(history_events.c.id.in_(numbers)))
    connection.execute(delete(history).where(history.c.id.in_(numbers)))
    _resized(connection, -octets)


def forget(connection: Connection, before: float, octets: int, most: int) -> int:
    """Forget up to `most` of the oldest rows: what is older than `before`, and what is more than `octets` together. How
    many rows these were.
    """
    total = size(connection)
    gone: list[int] = []
    given_back = 0
    for row in connection.execute(_OLDEST, {"most": most}):
        if row.ended >= before and total - given_back <= octets:
            break
        gone.append(row.id)
        given_back += row.size
    if gone:
        remove(connection, gone, given_back)
    return len(gone)


def size(connection: Connection) -> int:
    """Octets of the whole history."""
    return int(control.read(connection, _TOTAL) or 0)


def _resized(connection: Connection, by: int) -> None:
    control.write(connection, _TOTAL, str(max(0, size(connection) + by)))
