"""What operators do, written into the history: in the transaction that does it, so it is there if and only if it was
done. A history that can't be written keeps nobody from acting: that is said, and the verb goes on.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from mailgate.edge.spool import chronicle
from mailgate.edge.spool.chronicle import Event
from mailgate.edge.spool.unscored import aside


def note(
    connection: Connection, name: str, found: Sequence[Mapping[str, object]], now: float, *, level: str = "info"
) -> None:
    """Write an event of that name for each of these messages, with these fields."""
    with aside(connection, name, "the history"):
        chronicle.add(connection, [Event(now, name, level, fields) for fields in found])


def who() -> str:
    """Who it is that acts, as far as the system knows: the user who became root by sudo, not root."""
    known = os.environ.get("SUDO_USER")
    if known:
        return known
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
