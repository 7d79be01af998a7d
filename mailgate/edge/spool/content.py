"""The octets of a spooled message, a piece at a time, checked against the digest they were stored with.

What is not what was stored raises SpoolDamaged, at the latest after the last piece.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from sqlalchemy import Connection, and_, bindparam, select

from mailgate.core.message import Message, message
from mailgate.edge.spool.database import Database
from mailgate.edge.spool.errors import SpoolDamaged, believing, translating
from mailgate.edge.spool.schema import bodies, messages

_IS = bodies.c.message_id == bindparam("of"), bodies.c.part == bindparam("which")
_PART = select(bodies.c.data).where(*_IS)
_HEAD = (  # with the first piece, which most often is the only one
    select(messages.c.size, messages.c.parts, messages.c.digest, messages.c.settled, bodies.c.data)
    .join_from(messages, bodies, and_(*_IS), isouter=True)
    .where(messages.c.id == bindparam("of"))
)


def pieces(connection: Connection, gate_id: str) -> Iterator[bytes]:
    """The message's octets, 1 MiB at most at a time."""
    with believing(gate_id):
        head = connection.execute(_HEAD, {"of": gate_id, "which": 0}).one_or_none()
    if head is None:
        raise SpoolDamaged(f"{gate_id}: no such message")
    if head.settled is not None:
        raise SpoolDamaged(f"{gate_id}: the content has been removed: every recipient is settled")
    sha = hashlib.sha256()
    size = part = 0
    data = head.data
    while part < head.parts:
        with believing(gate_id):
            if part:
                data = connection.scalar(_PART, {"of": gate_id, "which": part})
            part += 1
            if data is None:
                raise SpoolDamaged(f"{gate_id}: piece {part} of {head.parts} is missing")
            sha.update(data)
        size += len(data)
        yield data
    if sha.digest() != head.digest or size != head.size:
        raise SpoolDamaged(f"{gate_id}: the content is not what was stored (SHA-256 differs)")


def load(connection: Connection, gate_id: str) -> Message:
    """The whole message."""
    return message(pieces(connection, gate_id))


def octets(database: Database, gate_id: str) -> Iterator[bytes]:
    """The same pieces for somebody outside a transaction, to write into a file. Raises SpoolError."""
    with translating("reading"), database.reading.connect() as connection, connection.begin():
        yield from pieces(connection, gate_id)
