"""What steers replay and stands in the file itself: the pause, and whose spool this is.

Both are read from the file each time, so a running daemon notices what a verb in another process wrote. Functions
of a connection, for any transaction.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from mailgate.edge.spool.schema import CORRUPT, FAILED, HELD, PENDING, meta, recipients

_READ = select(meta.c.value).where(meta.c.key == bindparam("of"))
_WRITE = update(meta).where(meta.c.key == bindparam("of")).values(value=bindparam("to"))
_PARTS = {"machine": "machine", "host": "host name", "path": "path", "inode": "file"}


@dataclass(frozen=True, slots=True)
class Pause:
    """Replay and delivery are paused: why, from when, until when (None: until `resume`), in seconds since 1970."""

    reason: str
    since: float
    until: float | None


def read(connection: Connection, key: str) -> str:
    """A value of `meta`, "" if there is none."""
    return str(connection.scalar(_READ, {"of": key}) or "")


def write(connection: Connection, key: str, value: str) -> None:
    """Set a value of `meta`."""
    if not connection.execute(_WRITE, {"of": key, "to": value}).rowcount:
        connection.execute(insert(meta).values(key=key, value=value))


def touch(connection: Connection) -> None:
    """Write something of no meaning."""
    write(connection, "touched", str(int(read(connection, "touched") or 0) + 1))


def pause(connection: Connection, reason: str, until: float | None, now: float) -> None:
    """Pause until `until`, or until it is resumed. A pause that is there already is replaced."""
    write(connection, "pause", json.dumps(asdict(Pause(reason, now, until))))


def resume(connection: Connection, now: float) -> Pause | None:
    """End the pause; it is returned if there was one."""
    was = paused(connection, now)
    connection.execute(delete(meta).where(meta.c.key == "pause"))
    return was


def paused(connection: Connection, now: float) -> Pause | None:
    """The pause that holds at `now`. One that can't be read holds until it is resumed."""
    value = read(connection, "pause")
    if not value:
        return None
    try:
        told = json.loads(value)
        until = None if told["until"] is None else float(told["until"])
        found = Pause(str(told["reason"]), float(told["since"]), until)
    except (ValueError, TypeError, KeyError):
        return Pause(f"what was written about it can't be read: {value}", now, None)
    return None if until is not None and until <= now else found


def foreign(connection: Connection, mark: dict[str, str]) -> str:
    """Why this file is not the one its gate made, for people; "" if it is. `mark` is what this gate would write."""
    owner = _owner(connection)
    if read(connection, "copy"):
        return f"this spool is a copy that was made of {owner.get('path')} on {owner.get('host')}"
    differing = [part for part in _PARTS if _compared(part, owner) != _compared(part, mark)]
    if not differing:
        return ""
    was = ", ".join(f"{_PARTS[part]} {owner.get(part)!r}" for part in differing)
    now = ", ".join(f"{_PARTS[part]} {mark.get(part)!r}" for part in differing)
    return f"this spool was written with {was}; here it is {now}"


def _owner(connection: Connection) -> dict[str, Any]:
    """The mark; of one that can't be read nothing is anybody's."""
    try:
        owner = json.loads(read(connection, "owner"))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def may_replay(connection: Connection, mark: dict[str, str], now: float) -> bool:
    """False while there is a pause, or the file is another gate's."""
    return not paused(connection, now) and not foreign(connection, mark)


def _compared(part: str, mark: dict[str, Any]) -> str:
    value = str(mark.get(part, ""))
    # Whether a name comes with its domain may depend on the name server at the moment of starting.
    return value.lower().partition(".")[0] if part == "host" else value


def adopt(connection: Connection, mark: dict[str, str], *, uncertain: bool) -> int:
    """Make this file ours. With `uncertain` all that waits is marked as maybe delivered by the other gate; the
    number of recipients so marked is returned.
    """
    write(connection, "owner", json.dumps(mark))
    connection.execute(delete(meta).where(meta.c.key == "copy"))
    if not uncertain:
        return 0
    waiting = (recipients.c.state.in_((PENDING, HELD, FAILED, CORRUPT)), recipients.c.uncertain.is_(False))
    return connection.execute(update(recipients).where(*waiting).values(uncertain=True)).rowcount
