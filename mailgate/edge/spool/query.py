"""Counting what is in the spool. Functions of a connection, for any transaction; quick with 100,000 messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from mailgate.edge.spool.schema import PENDING, STATES, UNCERTAIN, recipients
from mailgate.edge.spool.storing import spooled


@dataclass(frozen=True, slots=True)
class Counts:
    """Messages and recipients by shown state (every state is there). A message counts once in each state that one
    of its recipients has. `octets` of content; `oldest`: when the oldest pending message was received, or None.
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
    columns = (recipients.c.state, recipients.c.uncertain)
    query = select(*columns, func.count(recipients.c.message_id.distinct()), func.count()).group_by(*columns)
    by_messages = dict.fromkeys(STATES, 0)
    by_recipients = dict.fromkeys(STATES, 0)
    for state, uncertain, some_messages, some_recipients in connection.execute(query):
        by_messages[shown(state, uncertain=uncertain)] += some_messages
        by_recipients[shown(state, uncertain=uncertain)] += some_recipients
    oldest = connection.scalar(select(func.min(recipients.c.received)).where(recipients.c.state == PENDING))
    leased = connection.scalar(select(func.count()).where(recipients.c.state == PENDING, recipients.c.lease != ""))
    return Counts(by_messages, by_recipients, spooled(connection), oldest, int(leased or 0))
