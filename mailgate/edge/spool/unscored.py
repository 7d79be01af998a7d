"""The ledger's tables, as functions of a connection for the writer's transactions: each may be run again from the start
if its transaction fails.

Promises: one entry a post, whatever is written twice or late; an entry says no less than it once said (`core.fate`).
How it fails: where an entry is written beside mail (`aside`), that is undone and said in the log, and the mail goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, delete, exists, func, insert, select, update

from mailgate.core import scan
from mailgate.core.envelope import address_octets
from mailgate.core.fate import Fate, stronger
from mailgate.core.scan import Scored, Unscored
from mailgate.edge.spool.leases import Verdicts
from mailgate.edge.spool.schema import DELIVERED, messages, recipients, unscored, unscored_recipients
from mailgate.edge.spool.storing import Deposit, text
from mailgate.ports import Post

_people = unscored_recipients.c
_INSERT_POST, _INSERT_RECIPIENT = insert(unscored), insert(unscored_recipients)
_THIS = (_people.post_id == bindparam("of"), _people.number == bindparam("which"))
_UPDATE = update(unscored_recipients).where(*_THIS).values(fate=bindparam("new_fate"))
_REFUSED = delete(unscored_recipients).where(*_THIS)
_WITHOUT_ANYBODY = delete(unscored).where(
    unscored.c.id == bindparam("of"), ~exists().where(_people.post_id == bindparam("of"))
)
# By other names: what stands around these conditions may speak of the same tables.
_here, _entry = recipients.alias(), unscored.alias()
_in_spool = (_here.c.message_id == _people.post_id, _here.c.address == _people.address)
_PASSED = (
    update(unscored_recipients)
    .where(
        _people.post_id == bindparam("of"),
        _people.fate != Fate.DELIVERED,
        exists().where(*_in_spool, _here.c.number == bindparam("which")),
    )
    .values(fate=bindparam("new_fate"))
)
_CAME_TO = update(unscored).where(unscored.c.id == bindparam("of")).values(score=bindparam("new_score"))
_ABANDONED = (
    update(unscored_recipients)
    .where(
        _people.post_id == bindparam("of"),
        _people.fate == Fate.SPOOLED,
        exists().where(*_in_spool, _here.c.lease != "", _here.c.lease != bindparam("run")),
        exists().where(messages.c.id == _people.post_id, messages.c.scan.startswith("unscored:")),
    )
    .values(fate=Fate.UNCERTAIN)
)
_taken = exists().where(*_in_spool, _here.c.state == DELIVERED)
_has_score = exists().where(_entry.c.id == _people.post_id, _entry.c.score.is_not(None))
TAKEN_AS_IT_WAS = and_(_people.fate == Fate.SPOOLED, _taken, ~_has_score)
_SETTLED = (
    update(unscored_recipients)
    .where(_people.post_id == bindparam("of"), _people.fate == Fate.SPOOLED)
    .values(fate=case((~_taken, Fate.DROPPED), (_has_score, Fate.SCORED), else_=Fate.DELIVERED))
)
_WITHDRAWN = delete(unscored_recipients).where(_people.post_id == bindparam("of"), _people.fate == Fate.SPOOLED)


@dataclass(slots=True)
class Note:
    """What is known of a post: of recipients that `fates` does not name, that they are to get it."""

    post: Post
    outage: str
    fates: Mapping[str, Fate] = field(default_factory=dict)


@contextmanager
def aside(connection: Connection, doing: str) -> Iterator[None]:
    """What goes wrong in the block is undone and said, and the transaction goes on. It is only not said, but raised,
    where the database has given up the transaction as a whole.
    """
    point = connection.begin_nested()
    try:
        yield
    except Exception:
        point.rollback()
        logging.getLogger(__name__).exception("%s: the ledger lacks something", doing)
    else:
        point.commit()


def of_deposit(deposit: Deposit) -> Note:
    """What there is to note when it has been stored."""
    post = Post(deposit.gate_id, deposit.envelope.only(tuple(one.recipient for one in deposit.parked)), deposit.size,
                deposit.facts, deposit.now)  # fmt: skip
    fates = {one.recipient: Fate.UNCERTAIN if one.uncertain else Fate.SPOOLED for one in deposit.parked}
    return Note(post, deposit.outage, fates)


def write(connection: Connection, notes: Sequence[Note]) -> None:
    """Bring the entries of these posts to what is known. Of one post several notes may come, in their order."""
    posts = {note.post.id: note for note in notes}
    known = _known(connection, list(posts))
    heads: list[dict[str, Any]] = []
    new: dict[str, dict[bytes, Fate]] = {}
    for gate_id, note in posts.items():
        if gate_id not in known:
            heads.append(_head(note))
            known[gate_id] = {}
        new[gate_id] = {address: Fate(row.fate) for address, row in known[gate_id].items()}
    for note in notes:
        fates = new[note.post.id]
        for recipient in note.post.envelope.recipients:
            address, said = address_octets(recipient), note.fates.get(recipient, Fate.BEGUN)
            fates[address] = stronger(fates.get(address, said), said)
    if heads:
        connection.execute(_INSERT_POST, heads)
    _write_people(connection, known, new)


def _known(connection: Connection, ids: Sequence[str]) -> dict[str, dict[bytes, Any]]:
    """The entries that are there, with their recipients by address."""
    known: dict[str, dict[bytes, Any]] = {
        gate_id: {} for gate_id in connection.scalars(select(unscored.c.id).where(unscored.c.id.in_(ids)))
    }
    if known:
        for row in connection.execute(select(unscored_recipients).where(_people.post_id.in_(list(known)))):
            known[row.post_id][row.address] = row
    return known


def _write_people(
    connection: Connection, known: Mapping[str, Mapping[bytes, Any]], new: Mapping[str, Mapping[bytes, Fate]]
) -> None:
    inserted: list[dict[str, Any]] = []
    updated: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    emptied: list[dict[str, Any]] = []
    for gate_id, fates in new.items():
        there = known[gate_id]
        number = max((row.number for row in there.values()), default=-1)
        for address, word in fates.items():
            row = there.get(address)
            if row is not None and word != row.fate:
                key = {"of": gate_id, "which": row.number}
                (refused if word is Fate.REFUSED else updated).append(key | {"new_fate": word})
            elif row is None and word is not Fate.REFUSED:
                number += 1
                inserted.append(_person(gate_id, number, address, word))
        if Fate.REFUSED in fates.values():
            emptied.append({"of": gate_id})
    for statement, rows in (
        (_INSERT_RECIPIENT, inserted),
        (_UPDATE, updated),
        (_REFUSED, refused),
        (_WITHOUT_ANYBODY, emptied),
    ):
        if rows:
            connection.execute(statement, rows)


def _head(note: Note) -> dict[str, Any]:
    post, found = note.post, scan.read(note.post.facts.scan)
    reason, detail = (found.reason, found.detail) if isinstance(found, Unscored) else ("error", "")
    return {
        "id": post.id,
        "outage": note.outage,
        "received": post.received,
        "sender": address_octets(post.envelope.sender),
        "size": post.size,
        "exim_id": text(post.facts.exim_id),
        "message_id": text(post.facts.message_id),
        "client": text(post.facts.client),
        "reason": reason,
        "detail": text(detail),
        "score": None,
    }


def _person(gate_id: str, number: int, address: bytes, word: Fate) -> dict[str, Any]:
    shown = text(address.decode("utf-8", "surrogateescape")).lower()
    return {"post_id": gate_id, "number": number, "address": address, "address_text": shown, "fate": word}


# what becomes of posts in the spool


def settled(connection: Connection, verdicts: Sequence[Verdicts]) -> None:
    """Note who got, or may have got, such a post unscored, and what was scored at last."""
    passed: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for verdict in verdicts:
        found = scan.read(verdict.scan)
        if isinstance(found, Scored):
            scores.append({"of": verdict.gate_id, "new_score": found.score})
        elif found is not None:
            for one in verdict.settlements:
                key = {"of": verdict.gate_id, "which": one.number}
                if one.state == DELIVERED:
                    passed.append(key | {"new_fate": Fate.DELIVERED})
                elif one.uncertain:
                    passed.append(key | {"new_fate": Fate.UNCERTAIN})
    for statement, rows in ((_PASSED, passed), (_CAME_TO, scores)):
        if rows:
            with aside(connection, "settling"):
                connection.execute(statement, rows)


def abandoned(connection: Connection, run: str, ids: Sequence[str]) -> None:
    """Note that the next hop may have those of these that another run, which is gone, has leased."""
    with aside(connection, "ending old leases"):
        connection.execute(_ABANDONED, [{"of": gate_id, "run": run} for gate_id in ids])


def outlived(connection: Connection, ids: Sequence[str]) -> None:
    """Note the last of these messages before they are forgotten."""
    with aside(connection, "purging"):
        connection.execute(_SETTLED, [{"of": gate_id} for gate_id in ids])


def withdrawn(connection: Connection, gate_id: str) -> None:
    """A message is not in the spool after all."""
    with aside(connection, "undoing storing"):
        connection.execute(_WITHDRAWN, {"of": gate_id})
        connection.execute(_WITHOUT_ANYBODY, {"of": gate_id})


# how much of it is kept


def count(connection: Connection) -> int:
    """How many posts stand in the ledger."""
    return int(connection.scalar(select(func.count()).select_from(unscored)) or 0)


def last(connection: Connection) -> tuple[str, float] | None:
    """The outage of the last post, and when that was received."""
    row = connection.execute(
        select(unscored.c.outage, unscored.c.received).order_by(unscored.c.received.desc()).limit(1)
    ).first()
    return (row.outage, row.received) if row else None


def forget(connection: Connection, before: float | None, most: int) -> int:
    """Forget up to `most` of the oldest posts (received before that time), but none that is in the spool; how many."""
    waits = exists().where(messages.c.id == unscored.c.id, messages.c.settled.is_(None))
    old = select(unscored.c.id).where(~waits).order_by(unscored.c.received).limit(most)
    if before is not None:
        old = old.where(unscored.c.received < before)
    ids = list(connection.scalars(old))
    if ids:
        connection.execute(delete(unscored_recipients).where(_people.post_id.in_(ids)))
        connection.execute(delete(unscored).where(unscored.c.id.in_(ids)))
    return len(ids)
