"""Messages into the tables and out again, as functions of a connection for the writer's transactions: each may be
run again from the start if its transaction fails. They take many at once: one statement serves a whole group commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, insert, select, update

from mailgate.core.envelope import Envelope, address_octets, printable
from mailgate.core.message import PIECE, Message, in_pieces, message
from mailgate.edge.spool.schema import DELIVERED, DROPPED, bodies, messages, recipients
from mailgate.ports import Facts, Parked

MAX_TEXT = 2000  # characters of a reply or a fact that are kept

_INSERT_MESSAGE = insert(messages)
_INSERT_BODY = insert(bodies)
_INSERT_RECIPIENT = insert(recipients)
_SETTLED = (
    update(messages)
    .where(
        messages.c.id == bindparam("of"),
        messages.c.settled.is_(None),
        ~exists().where(
            recipients.c.message_id == bindparam("of"), recipients.c.state != DELIVERED, recipients.c.state != DROPPED
        ),
    )
    .values(settled=bindparam("now"))
)
_REMOVE_CONTENT = delete(bodies).where(
    bodies.c.message_id == bindparam("of"),
    exists().where(messages.c.id == bindparam("of"), messages.c.settled.is_not(None)),
)
_SPOOLED = select(func.sum(messages.c.size)).where(messages.c.settled.is_(None))


@dataclass(frozen=True, slots=True)
class Deposit:
    """A message to be stored. `size` is that of the message, `outage` the one in which it came in unscored."""

    gate_id: str
    envelope: Envelope
    message: Message
    parked: Sequence[Parked]
    facts: Facts
    now: float
    size: int
    outage: str = ""


def text(value: str) -> str:
    """Text as the database can hold it and a table can show it."""
    return (value if value.isprintable() else printable(value))[:MAX_TEXT]


def spooled(connection: Connection) -> int:
    """Octets of all content in the spool."""
    return int(connection.scalar(_SPOOLED) or 0)


def insert_messages(connection: Connection, deposits: Sequence[Deposit]) -> None:
    """Store messages with their content and recipients."""
    heads: list[dict[str, Any]] = []
    small: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    for deposit in deposits:
        if deposit.size <= PIECE:
            data = b"".join(deposit.message.chunks)
            digest, parts = hashlib.sha256(data).digest(), 1
            small.append({"message_id": deposit.gate_id, "part": 0, "data": data})
        else:
            digest, parts = _insert_pieces(connection, deposit)
        heads.append(_message_row(deposit, digest, parts))
        people.extend(_recipient_row(deposit, number, parked) for number, parked in enumerate(deposit.parked))
    connection.execute(_INSERT_MESSAGE, heads)
    if small:
        connection.execute(_INSERT_BODY, small)
    connection.execute(_INSERT_RECIPIENT, people)


def insert_lost(connection: Connection, gate_id: str, received: float) -> None:
    """Put a row where the message of some recipients is lost. Its digest is none: it is never taken for whole."""
    deposit = Deposit(gate_id, Envelope("", ()), message(()), (), Facts(), received, 0)
    connection.execute(_INSERT_MESSAGE, [_message_row(deposit, b"", 0)])


def _insert_pieces(connection: Connection, deposit: Deposit) -> tuple[bytes, int]:
    sha = hashlib.sha256()
    parts = 0
    for parts, data in enumerate(in_pieces(deposit.message.chunks), 1):
        sha.update(data)
        connection.execute(_INSERT_BODY, {"message_id": deposit.gate_id, "part": parts - 1, "data": data})
    return sha.digest(), parts


def _message_row(deposit: Deposit, digest: bytes, parts: int) -> dict[str, Any]:
    envelope, facts = deposit.envelope, deposit.facts
    return {
        "id": deposit.gate_id,
        "received": deposit.now,
        "settled": None,
        "sender": address_octets(envelope.sender),
        "sender_text": text(envelope.sender).lower(),
        "smtputf8": envelope.smtputf8,
        "eight_bit": envelope.eight_bit,
        "size": deposit.size,
        "parts": parts,
        "digest": digest,
        "exim_id": text(facts.exim_id),
        "message_id": text(facts.message_id),
        "client": text(facts.client),
        "scan": facts.scan,
    }


def _recipient_row(deposit: Deposit, number: int, parked: Parked) -> dict[str, Any]:
    return {
        "message_id": deposit.gate_id,
        "number": number,
        "address": address_octets(parked.recipient),
        "address_text": text(parked.recipient).lower(),
        "state": parked.state,
        "uncertain": parked.uncertain,
        "alone": parked.alone,
        "attempts": parked.attempts,
        "received": deposit.now,
        "since": deposit.now,
        "next_attempt": parked.next_attempt or deposit.now,
        "last_attempt": deposit.now if parked.attempts else None,
        "reply": text(parked.reply),
        "lease": "",
    }


def remove_messages(connection: Connection, ids: Sequence[str]) -> None:
    """Take messages out without a trace: those whose store was given up, and old history."""
    connection.execute(delete(bodies).where(bodies.c.message_id.in_(ids)))
    connection.execute(delete(recipients).where(recipients.c.message_id.in_(ids)))
    connection.execute(delete(messages).where(messages.c.id.in_(ids)))


def history(connection: Connection, before: float, most: int) -> list[str]:
    """The ids of up to `most` messages whose last recipient was settled before that time."""
    return list(connection.scalars(select(messages.c.id).where(messages.c.settled < before).limit(most)))


def remove_settled_content(connection: Connection, ids: Sequence[str], now: float) -> None:
    """Delete the content of those messages that no recipient needs any more."""
    keys = [{"of": gate_id, "now": now} for gate_id in ids]
    connection.execute(_SETTLED, keys)
    connection.execute(_REMOVE_CONTENT, keys)
