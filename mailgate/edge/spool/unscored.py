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

from sqlalchemy import (
    Connection,
    Delete,
    Update,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from mailgate.core import scan
from mailgate.core.envelope import address_octets
from mailgate.core.fate import Fate, weaker
from mailgate.core.scan import Scored, Unscored
from mailgate.edge.spool.leases import Verdicts
from mailgate.edge.spool.schema import DELIVERED, messages, recipients, unindexed, unscored, unscored_recipients
from mailgate.edge.spool.storing import Deposit, text
from mailgate.ports import Post

_people = unscored_recipients.c
_INSERT_POST, _INSERT_RECIPIENT = insert(unscored), insert(unscored_recipients)
_KNOWN = select(unscored.c.id).where(unscored.c.id.in_(bindparam("ids", expanding=True)))
_KNOWN_PEOPLE = select(unscored_recipients).where(_people.post_id.in_(bindparam("ids", expanding=True)))
_THIS = (_people.post_id == bindparam("of"), _people.address == bindparam("whom"))
_BECAME: dict[Fate, Update | Delete] = {
    word: update(unscored_recipients)
    .where(*_THIS, or_(*(_people.fate == one for one in weaker(word))))
    .values(fate=word)
    for word in (Fate.SPOOLED, Fate.UNCERTAIN, Fate.DELIVERED)
}
_BECAME[Fate.REFUSED] = delete(unscored_recipients).where(*_THIS, _people.fate == Fate.BEGUN)
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
_taken = exists().where(*_in_spool, unindexed(_here.c.state) == DELIVERED)
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
    """What is known of a post: of recipients that `fates` does not name, that they are to get it. `again`: its entry
    has been written, there is only more to say of it.
    """

    post: Post
    outage: str
    fates: Mapping[str, Fate] = field(default_factory=dict)
    again: bool = False


@contextmanager
def aside(connection: Connection, doing: str, what: str = "the ledger") -> Iterator[None]:
    """What goes wrong in the block is undone and said, and the transaction goes on. It is only not said, but raised,
    where the database has given up the transaction as a whole.
    """
    point = connection.begin_nested()
    try:
        yield
    except Exception:
        point.rollback()
        logging.getLogger(__name__).exception("%s: %s lacks something", doing, what)
    else:
        point.commit()


def of_deposit(deposit: Deposit) -> Note:
    """What there is to note when it has been stored."""
    post = Post(deposit.gate_id, deposit.envelope.only(tuple(one.recipient for one in deposit.parked)), deposit.size,
                deposit.facts, deposit.now)  # fmt: skip
    fates = {one.recipient: Fate.UNCERTAIN if one.uncertain else Fate.SPOOLED for one in deposit.parked}
    return Note(post, deposit.outage, fates)


def write(connection: Connection, notes: Sequence[Note]) -> None:
    """Bring the entries of these posts to what is known: first those that may be new."""
    entries = {note.post.id: note for note in notes if not note.again}
    known = _known(connection, list(entries)) if entries else {}
    heads: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    words: list[tuple[str, bytes, Fate]] = []
    for gate_id, note in entries.items():
        there = known.get(gate_id)
        fates = {address_octets(r): note.fates.get(r, Fate.BEGUN) for r in note.post.envelope.recipients}
        new = {address: word for address, word in fates.items() if address not in (there or {})}
        taken = [(address, word) for address, word in new.items() if word is not Fate.REFUSED]
        if there is None and taken:
            heads.append(_head(note))
        first = 1 + max((there or {}).values(), default=-1)
        people.extend(_person(gate_id, number, *one) for number, one in enumerate(taken, first))
        words.extend((gate_id, address, word) for address, word in fates.items() if address not in new)
    for note in notes:
        if note.again:
            words.extend((note.post.id, address_octets(recipient), word) for recipient, word in note.fates.items())
    if heads:
        connection.execute(_INSERT_POST, heads)
    if people:
        connection.execute(_INSERT_RECIPIENT, people)
    _write_words(connection, words)


def _known(connection: Connection, ids: Sequence[str]) -> dict[str, dict[bytes, int]]:
    """The entries that are there, with the numbers of their recipients by address."""
    known: dict[str, dict[bytes, int]] = {gate_id: {} for gate_id in connection.scalars(_KNOWN, {"ids": ids})}
    if known:
        for row in connection.execute(_KNOWN_PEOPLE, {"ids": list(known)}):
            known[row.post_id][row.address] = row.number
    return known


def _write_words(connection: Connection, words: Sequence[tuple[str, bytes, Fate]]) -> None:
    for word, statement in _BECAME.items():
        rows = [{"of": gate_id, "whom": address} for gate_id, address, said in words if said is word]
        if rows:
            connection.execute(statement, rows)
            if word is Fate.REFUSED:
                connection.execute(_WITHOUT_ANYBODY, [{"of": row["of"]} for row in rows])


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
