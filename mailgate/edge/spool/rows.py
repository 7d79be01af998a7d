"""What is written into the tables, as functions of a connection. Each runs inside somebody's transaction and
may be run again from the start if that fails. They take many at once: one statement serves a whole group commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, Connection, bindparam, delete, exists, func, insert, or_, select, update

from mailgate.core.envelope import Envelope, address_octets, address_text, printable
from mailgate.core.message import PIECE, Message, in_pieces
from mailgate.edge.spool.schema import (
    CORRUPT,
    DELIVERED,
    FAILED,
    HELD,
    LIVE,
    PENDING,
    bodies,
    messages,
    recipients,
    totals,
)
from mailgate.ports import Claimed, Facts, Parked, Settlement

MAX_TEXT = 2000  # characters of a reply or a fact that are kept

_INSERT_MESSAGE = insert(messages)
_INSERT_BODY = insert(bodies)
_INSERT_RECIPIENT = insert(recipients)
_SPOOLED = select(totals.c.octets).where(totals.c.name == "spool")
_MOVE_TOTAL = update(totals).where(totals.c.name == "spool").values(octets=totals.c.octets + bindparam("more"))
_SETTLE = (
    update(recipients)
    .where(
        recipients.c.message_id == bindparam("of"),
        recipients.c.number == bindparam("which"),
        recipients.c.lease == bindparam("run"),
    )
    .values(
        state=bindparam("new_state"),
        reply=bindparam("new_reply"),
        uncertain=or_(recipients.c.uncertain, bindparam("maybe", type_=Boolean)),
        alone=bindparam("new_alone"),
        next_attempt=bindparam("again"),
        attempts=recipients.c.attempts + bindparam("tried"),
        lease="",
    )
)


@dataclass(frozen=True, slots=True)
class Deposit:
    """A message to be stored. `size` is that of the message."""

    gate_id: str
    envelope: Envelope
    message: Message
    parked: Sequence[Parked]
    facts: Facts
    now: float
    size: int


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a replay made of claimed recipients of one message."""

    gate_id: str
    settlements: Sequence[Settlement]
    now: float


def text(value: str) -> str:
    """Text as the database can hold it and a table can show it."""
    return printable(value)[:MAX_TEXT]


def spooled(connection: Connection) -> int:
    """Octets of all content in the spool."""
    return int(connection.scalar(_SPOOLED) or 0)


def move_total(connection: Connection, more: int) -> None:
    """Account for content that was added, or with a negative number removed."""
    connection.execute(_MOVE_TOTAL, {"more": more})


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
    move_total(connection, sum(deposit.size for deposit in deposits))


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
        "trouble": "",
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
        "next_attempt": deposit.now,
        "last_attempt": deposit.now if parked.attempts else None,
        "reply": text(parked.reply),
        "lease": "",
    }


def remove_messages(connection: Connection, ids: Sequence[str]) -> None:
    """Take messages out without a trace: those whose store was given up, and old history."""
    wanted = messages.c.id.in_(ids)
    gone = connection.scalar(select(func.sum(messages.c.size)).where(wanted, messages.c.settled.is_(None)))
    connection.execute(delete(bodies).where(bodies.c.message_id.in_(ids)))
    connection.execute(delete(recipients).where(recipients.c.message_id.in_(ids)))
    connection.execute(delete(messages).where(wanted))
    if gone:
        move_total(connection, -int(gone))


def claim(connection: Connection, run: str, now: float, most: int, shunned: Iterable[str]) -> list[Claimed]:
    """Lease the due recipients of up to `most` messages, oldest received first, but none of the `shunned`."""
    due = (recipients.c.state == PENDING, recipients.c.lease == "", recipients.c.next_attempt <= now)
    order = (recipients.c.received, recipients.c.message_id)
    oldest = select(recipients.c.message_id).where(*due).group_by(*order).order_by(*order).limit(most)
    if shunned:
        oldest = oldest.where(recipients.c.message_id.not_in(list(shunned)))
    ids = list(connection.scalars(oldest))
    if not ids:
        return []
    wanted = (recipients.c.message_id.in_(ids), *due)
    people = connection.execute(select(recipients).where(*wanted).order_by(recipients.c.number)).all()
    heads = {row.id: row for row in connection.execute(select(messages).where(messages.c.id.in_(ids)))}
    connection.execute(update(recipients).where(*wanted).values(lease=run, last_attempt=now))
    by_message: dict[str, list[Any]] = {gate_id: [] for gate_id in ids}
    for row in people:
        by_message[row.message_id].append(row)
    return [_claimed(heads[gate_id], rows) for gate_id, rows in by_message.items()]


def _claimed(head: Any, rows: Sequence[Any]) -> Claimed:
    return Claimed(
        id=head.id,
        envelope=Envelope(
            address_text(head.sender),
            tuple(address_text(row.address) for row in rows),
            head.smtputf8,
            head.eight_bit,
        ),
        numbers=tuple(row.number for row in rows),
        attempts=tuple(row.attempts for row in rows),
        received=head.received,
        alone=any(row.alone for row in rows),
        facts=Facts(head.exim_id, head.message_id, head.client),
    )


def unclaim(connection: Connection, run: str, claimed: Sequence[Claimed]) -> None:
    """Give back leases under which nothing was sent."""
    ids = [claim.id for claim in claimed]
    where = (recipients.c.message_id.in_(ids), recipients.c.lease == run)
    connection.execute(update(recipients).where(*where).values(lease=""))


def settle(connection: Connection, run: str, verdicts: Sequence[Verdicts]) -> None:
    """Write down what became of recipients leased by `run`; what is not leased (any more) is left as it is."""
    rows = [
        {
            "of": verdict.gate_id,
            "which": settlement.number,
            "run": run,
            "new_state": settlement.state,
            "new_reply": text(settlement.reply),
            "maybe": settlement.uncertain,
            "new_alone": settlement.alone,
            "again": settlement.next_attempt,
            "tried": int(settlement.tried),
        }
        for verdict in verdicts
        for settlement in verdict.settlements
    ]
    if rows:
        connection.execute(_SETTLE, rows)
    done = {v.gate_id: v.now for v in verdicts if any(s.state == DELIVERED for s in v.settlements)}
    if done:
        remove_settled_content(connection, list(done), max(done.values()))


def remove_settled_content(connection: Connection, ids: Sequence[str], now: float) -> list[str]:
    """Delete the content of those messages that no recipient needs any more; their ids are returned."""
    wanting = exists().where(recipients.c.message_id == messages.c.id, recipients.c.state.in_(LIVE))
    over = select(messages.c.id, messages.c.size).where(messages.c.id.in_(ids), messages.c.settled.is_(None), ~wanting)
    sizes = {row.id: row.size for row in connection.execute(over)}
    if sizes:
        connection.execute(delete(bodies).where(bodies.c.message_id.in_(list(sizes))))
        connection.execute(update(messages).where(messages.c.id.in_(list(sizes))).values(settled=now))
        move_total(connection, -sum(sizes.values()))
    return list(sizes)


def set_aside(connection: Connection, gate_id: str, reason: str) -> None:
    """Take a message that can not be read out of the queue, with the reason; what is settled stays so."""
    waiting = (recipients.c.message_id == gate_id, recipients.c.state.in_((PENDING, HELD, FAILED)))
    connection.execute(update(recipients).where(*waiting).values(state=CORRUPT, lease=""))
    connection.execute(update(messages).where(messages.c.id == gate_id).values(trouble=text(reason)))


def abandoned_leases(connection: Connection, run: str) -> list[str]:
    """Leases of processes that are gone: what they held may have been delivered. The messages' ids."""
    where = (recipients.c.lease != "", recipients.c.lease != run)
    ids = list(connection.scalars(select(recipients.c.message_id).where(*where).distinct()))
    if ids:
        connection.execute(
            update(recipients).where(*where).values(lease="", uncertain=True, attempts=recipients.c.attempts + 1)
        )
    return ids
