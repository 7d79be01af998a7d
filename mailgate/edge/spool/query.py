"""Counting what is in the spool. Functions of a connection, for any transaction; quick with 100,000 messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Integer, bindparam, case, cast, func, select

from mailgate.edge.spool.schema import CORRUPT, DELIVERED, DROPPED, FAILED, HELD, PENDING, STATES, UNCERTAIN, recipients
from mailgate.edge.spool.storing import spooled

_PER_MESSAGE = (
    select(
        func.count().label("people"),
        func.sum(cast(recipients.c.uncertain, Integer)).label("unsure"),
        func.sum(case((recipients.c.lease != "", 1), else_=0)).label("leased"),
    )
    .where(recipients.c.state == bindparam("which"))
    .group_by(recipients.c.received, recipients.c.message_id)  # as the index has them: nothing has to be sorted
    .subquery()
)
_COUNT = select(
    func.count().label("messages"),
    func.sum(_PER_MESSAGE.c.people).label("recipients"),
    func.sum(_PER_MESSAGE.c.unsure).label("uncertain"),
    func.sum(_PER_MESSAGE.c.leased).label("leased"),
    func.sum(case((_PER_MESSAGE.c.unsure > 0, 1), else_=0)).label("with_uncertain"),
    func.sum(case((_PER_MESSAGE.c.unsure == _PER_MESSAGE.c.people, 1), else_=0)).label("only_uncertain"),
).select_from(_PER_MESSAGE)
_OLDEST = select(func.min(recipients.c.received)).where(recipients.c.state == PENDING)


@dataclass(frozen=True, slots=True)
class Counts:
    """Messages and recipients by shown state (every state is there). A message counts once in each state that one
    of its recipients has. `octets` of content; `oldest`: when the oldest pending message was received, or None.
    `leased`: recipients that are being tried now.
    """

    messages: Mapping[str, int]
    recipients: Mapping[str, int]
    octets: int
    oldest: float | None
    leased: int


def shown(state: str, *, uncertain: bool) -> str:
    """The state as people see it."""
    return UNCERTAIN if state == PENDING and uncertain else state


def counts(connection: Connection) -> Counts:
    """Everything the metrics need of the spool."""
    by_messages = dict.fromkeys(STATES, 0)
    by_recipients = dict.fromkeys(STATES, 0)
    leased = 0
    for state in (PENDING, HELD, FAILED, CORRUPT, DELIVERED, DROPPED):
        row = connection.execute(_COUNT, {"which": state}).one()
        by_messages[state], by_recipients[state] = row.messages, row.recipients or 0
        if state == PENDING:
            leased = row.leased or 0
            by_messages[PENDING] -= row.only_uncertain or 0
            by_recipients[PENDING] -= row.uncertain or 0
            by_messages[UNCERTAIN], by_recipients[UNCERTAIN] = row.with_uncertain or 0, row.uncertain or 0
    oldest = connection.scalar(_OLDEST)
    return Counts(by_messages, by_recipients, spooled(connection), oldest, leased)
