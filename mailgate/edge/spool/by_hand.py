"""What is done in the spool by verbs, or found when it is opened, written into the history in the same transaction:
what stands there was done.
How it fails: a history that can't be written keeps nobody from acting. That is said in the log, and the verb goes on.
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
