"""Who is trying which recipient now, and what became of it. Functions of a connection, for the writer's transactions;
each may be run again from the start if its transaction fails.

A lease is the name of a run (one process from open to close). It is written down before anything is sent: one that
is found when nobody can hold it any more means "may have been delivered".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Connection, and_, bindparam, case, exists, or_, select, update

from mailgate.config import SpoolConfig
from mailgate.core.envelope import Envelope, address_text
from mailgate.core.spam import AWAITS_SCORE
from mailgate.edge.spool import storing
from mailgate.edge.spool.schema import (
    CORRUPT,
    DELIVERED,
    DROPPED,
    FAILED,
    HELD,
    LIVE,
    PENDING,
    messages,
    recipients,
    unindexed,
)
from mailgate.edge.spool.storing import remove_settled_content, text
from mailgate.ports import Claimed, Facts, Settlement

_LEASE = (
    update(recipients)
    .where(recipients.c.message_id == bindparam("of"), recipients.c.number == bindparam("which"))
    .values(lease=bindparam("run"), last_attempt=bindparam("now"))
)
_SETTLE = (
    update(recipients)
    .where(
        recipients.c.message_id == bindparam("of"),
        recipients.c.number == bindparam("which"),
        recipients.c.lease == bindparam("run"),
    )
    .values(
        state=bindparam("new_state"),
        reply=case((bindparam("new_reply") == "", recipients.c.reply), else_=bindparam("new_reply")),
        uncertain=or_(recipients.c.uncertain, bindparam("maybe", type_=Boolean)),
        alone=bindparam("new_alone"),
        next_attempt=bindparam("again"),
        attempts=recipients.c.attempts + bindparam("tried"),
        lease="",
    )
)
_UNLEASE = (
    update(recipients)
    .where(
        recipients.c.message_id == bindparam("of"),
        recipients.c.number == bindparam("which"),
        recipients.c.lease == bindparam("run"),
    )
    .values(lease="")
)
_has_head = exists().where(messages.c.id == recipients.c.message_id)
_SCANNED = update(messages).where(messages.c.id == bindparam("of")).values(scan=bindparam("new_scan"))
_ABANDON = (
    update(recipients)
    .where(recipients.c.message_id == bindparam("of"), recipients.c.lease != "", recipients.c.lease != bindparam("run"))
    .values(lease="", uncertain=True, attempts=recipients.c.attempts + 1)
)


_LEAST_HORIZON = 60.0  # seconds: what failed for a reason of ours is put off for so long

Those = Mapping[str, Collection[int] | None]  # of these messages these recipients, or all (None)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a replay made of claimed recipients of one message."""

    gate_id: str
    settlements: Sequence[Settlement]
    now: float
    scan: str = ""


@dataclass(frozen=True, slots=True)
class Due:
    """What is due at `now`: what was put off until then, or past the `horizon`. Nothing is put off for so long, so that
    was done while the clock was ahead, and it would wait for as long as it was.
    """

    now: float
    horizon: float

    @staticmethod
    def at(now: float, config: SpoolConfig) -> Due:
        """With a horizon twice as far off as any attempt."""
        return Due(now, now + 2 * (config.retry_max + _LEAST_HORIZON))

    def __call__(self, next_attempt: Any) -> Any:
        """The condition on a time, or on a column."""
        return (next_attempt <= self.now) | (next_attempt > self.horizon)


def due(connection: Connection, when: Due, most: int, shunned: Collection[str], *, scan: bool = False) -> list[str]:
    """The ids of up to `most` messages with somebody due, oldest received first, but none of the `shunned`.

    With `scan` the index of the queue is not used: for a file in which it is damaged.
    """
    order = (recipients.c.received, recipients.c.message_id)
    wanted = (_waiting(scan=scan), recipients.c.lease == "", when(recipients.c.next_attempt))
    query = select(recipients.c.message_id).where(*wanted).group_by(*order).order_by(*order)
    ids = connection.scalars(query.limit(most + len(shunned)))
    return [gate_id for gate_id in ids if gate_id not in shunned][:most]


def _waiting(state: str = PENDING, *, scan: bool) -> ColumnElement[bool]:
    if scan:
        return and_(unindexed(recipients.c.state) == state, recipients.c.attempts >= 0)  # is in no index
    return recipients.c.state == state


def awaiting(connection: Connection, when: Due, before: float, most: int) -> list[str]:
    """The ids of up to `most` messages received before `before` with somebody held until they can be scored."""
    order = (recipients.c.received, recipients.c.message_id)
    held = (recipients.c.state == HELD, recipients.c.lease == "", recipients.c.reply == AWAITS_SCORE)
    received = or_(recipients.c.received < before, recipients.c.received > when.now)
    wanted = (*held, received, when(recipients.c.next_attempt))
    query = select(recipients.c.message_id).where(*wanted).group_by(*order).order_by(*order).limit(most)
    return list(connection.scalars(query))


def claim(connection: Connection, run: str, those: Those, when: Due, *, held: bool = False) -> list[Claimed]:
    """Lease those that are due, in this order; or those that are held until they can be scored."""
    ids = list(those)
    heads = {row.id: row for row in connection.execute(select(messages).where(messages.c.id.in_(ids)))}
    people: dict[str, list[Any]] = {gate_id: [] for gate_id in ids if gate_id in heads}
    # Who is due is decided here: asked for together with the ids, SQLite goes through all that is due instead.
    for row in connection.execute(select(recipients).where(recipients.c.message_id.in_(ids))):
        numbers = those[row.message_id]
        wanted = numbers is None or row.number in numbers
        if wanted and not row.lease and (_awaits_score(row) if held else _due(row, heads[row.message_id].scan, when)):
            people[row.message_id].append(row)
    keys = [{"of": row.message_id, "which": row.number} for rows in people.values() for row in rows]
    if keys:
        connection.execute(_LEASE, [key | {"run": run, "now": when.now} for key in keys])
    return [_claimed(heads[gate_id], rows, held=held) for gate_id, rows in people.items() if rows]


def _awaits_score(row: Any) -> bool:
    return bool(row.state == HELD and row.reply == AWAITS_SCORE)


def _due(row: Any, scan: str, when: Due) -> bool:
    return bool(row.state == PENDING and (when(row.next_attempt) or scan.startswith("unscored:")))


def _claimed(head: Any, rows: list[Any], *, held: bool) -> Claimed:
    rows.sort(key=lambda row: row.number)
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
        since=tuple(float(row.since) for row in rows),
        received=head.received,
        alone=any(row.alone for row in rows),
        facts=Facts(head.exim_id, head.message_id, head.client, head.scan),
        held=held,
        uncertain=tuple(row.number for row in rows if row.uncertain),
    )


def unclaim(connection: Connection, run: str, claimed: Sequence[Claimed]) -> None:
    """Give back leases under which nothing was sent."""
    keys = [{"of": claim.id, "which": number, "run": run} for claim in claimed for number in claim.numbers]
    if keys:
        connection.execute(_UNLEASE, keys)


def settle(connection: Connection, run: str, verdicts: Sequence[Verdicts], *, keep_content: bool = False) -> None:
    """Write down what became of recipients leased by `run`; what is not leased (any more) is left as it is. Content
    that nobody needs any more goes, unless it is to be kept.
    """
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
    scanned = [{"of": verdict.gate_id, "new_scan": verdict.scan} for verdict in verdicts if verdict.scan]
    if scanned:
        connection.execute(_SCANNED, scanned)
    done = {v.gate_id: v.now for v in verdicts if any(s.state in {DELIVERED, DROPPED} for s in v.settlements)}
    if done and not keep_content:
        remove_settled_content(connection, list(done), max(done.values()))


def set_aside(connection: Connection, gate_id: str, reason: str) -> None:
    """Take a message that can not be read out of the queue, with the reason; what is settled stays so. One that is not
    even there gets a row, so that it can be seen and dropped.
    """
    row = connection.execute(
        select(recipients.c.received).where(recipients.c.message_id == gate_id, ~_has_head).limit(1)
    )
    for (received,) in row.all():
        storing.insert_lost(connection, gate_id, received)
    waiting = (recipients.c.message_id == gate_id, unindexed(recipients.c.state).in_((PENDING, HELD, FAILED)))
    connection.execute(update(recipients).where(*waiting).values(state=CORRUPT, lease="", reply=text(reason)))


def orphans(connection: Connection) -> list[str]:
    """The ids of messages of which there are only recipients."""
    living = unindexed(recipients.c.state).in_(LIVE)
    return list(connection.scalars(select(recipients.c.message_id).where(living, ~_has_head).distinct()))


def abandoned(connection: Connection, run: str, *, scan: bool = False) -> list[str]:
    """The ids of messages that other runs have leased. `scan`: as for `due`."""
    leased = (recipients.c.lease != "", recipients.c.lease != run)
    either = or_(_waiting(scan=scan), _waiting(HELD, scan=scan))  # held ones are leased to be scored
    return list(connection.scalars(select(recipients.c.message_id).where(either, *leased).distinct()))


def abandon(connection: Connection, run: str, ids: Sequence[str]) -> None:
    """End the leases of other runs, which are gone, on these messages: what they held may have been delivered."""
    connection.execute(_ABANDON, [{"of": gate_id, "run": run} for gate_id in ids])
