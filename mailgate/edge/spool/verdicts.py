"""The table of what the verdict door found, as functions of a connection: each may be run again from the start.

Bounded in age and in octets; the oldest go first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, case, delete, func, insert, select

from mailgate.core.record import Miss
from mailgate.edge.spool.schema import verdicts

AGE = 86400.0  # seconds that a record is good for: what Exim has kept longer is looked at anew
HISTORY = 2 * AGE  # seconds after which it is forgotten; until then it can be said that it was too old
MOST = 64 * 2**20  # octets of all records together
LEAST = 1024  # octets that each counts for at least, so that there are no more than MOST / LEAST

# All of an id, with the record of the one that has this digest.
_OF_ID = select(
    verdicts.c.digest,
    verdicts.c.at,
    case((verdicts.c.digest == bindparam("wanted"), verdicts.c.record), else_=""),
).where(verdicts.c.exim_id == bindparam("id"))
_REMOVE = delete(verdicts).where(verdicts.c.exim_id == bindparam("id"), verdicts.c.digest == bindparam("wanted"))
_INSERT = insert(verdicts)
_NEWEST_FIRST = select(verdicts.c.at, verdicts.c.size).order_by(verdicts.c.at.desc())


@dataclass(frozen=True, slots=True)
class Kept:
    """A record on its way into the table."""

    exim_id: str
    digest: str
    at: float
    text: str

    @property
    def size(self) -> int:
        """What it counts for."""
        return max(len(self.text), LEAST)


def write(connection: Connection, kept: Sequence[Kept]) -> None:
    """Put records into the table, each in the place of an earlier one of the same message."""
    last = {(one.exim_id, one.digest): one for one in kept}.values()
    connection.execute(_REMOVE, [{"id": one.exim_id, "wanted": one.digest} for one in last])
    connection.execute(
        _INSERT,
        [
            {"exim_id": one.exim_id, "digest": one.digest, "at": one.at, "size": one.size, "record": one.text}
            for one in last
        ],
    )


def look_up(connection: Connection, exim_id: str, digest: str, now: float) -> str | Miss:
    """The record of that message as it was written, or why there is none."""
    found = {body: (at, record) for body, at, record in connection.execute(_OF_ID, {"id": exim_id, "wanted": digest})}
    if not found:
        return Miss.UNKNOWN
    if digest not in found:
        return Miss.CHANGED
    at, record = found[digest]
    return Miss.EXPIRED if at < now - AGE else record


def trim(connection: Connection, now: float, room: int = 0) -> int:
    """Forget what is older than HISTORY, and of the rest the oldest until `room` octets more fit below MOST: then an
    eighth more than that, so that it is not asked for again at once. The octets that are left.
    """
    connection.execute(delete(verdicts).where(verdicts.c.at < now - HISTORY))
    total = int(connection.scalar(select(func.sum(verdicts.c.size))) or 0)
    if total + room <= MOST:
        return total
    total = 0
    for at, size in connection.execute(_NEWEST_FIRST):
        if total + size + room > MOST - MOST // 8:
            connection.execute(delete(verdicts).where(verdicts.c.at <= at))
            break
        total += size
    return total
