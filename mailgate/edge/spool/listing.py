"""Choosing spooled messages by what an operator says, and showing them. Synchronous, for verbs; the daemon may be up.

A long list is read in pages, each a short transaction, so it neither fills memory nor keeps the log from being reset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, false, or_, select, true, tuple_

from mailgate.core import addresses
from mailgate.core.envelope import address_text, printable
from mailgate.core.spam import AWAITS_SCORE
from mailgate.edge.spool.database import Database
from mailgate.edge.spool.query import shown
from mailgate.edge.spool.schema import CORRUPT, HELD, PENDING, UNCERTAIN, messages, recipients, unindexed

_NAMES = (messages.c.exim_id, messages.c.message_id)
_other = messages.alias()
PAGE = 200  # messages read or changed at a time
MOST_IDS = 1000  # in one statement
HELD_FOR_SCORE = "held for a score"  # those of the held that go on by themselves, for `Selection.states`


@dataclass(frozen=True, slots=True)
class Selection:
    """What is meant: all that is given must hold, nothing given means everything.

    `ids` are gate ids, Exim ids or Message-IDs. `recipient` and `sender` are patterns with * and ?, blind to case;
    the null reverse-path matches only "", and a `recipient` all addresses of a list, as `stats` counts them. `before`
    and `after` bound the time of receipt (seconds since 1970). `states` are states as shown. `recipient` and `states`
    choose among the recipients of a message.
    """

    ids: tuple[str, ...] = ()
    recipient: str = ""
    sender: str | None = None
    before: float | None = None
    after: float | None = None
    states: tuple[str, ...] = ()

    def names(self, state: str) -> bool:
        """True if what is in this state was asked for by name."""
        return bool(self.ids) or state in self.states


@dataclass(frozen=True, slots=True)
class Person:
    """One recipient: `state` as shown, `busy` while a replay is trying it. Times in seconds since 1970."""

    number: int
    address: str
    state: str
    uncertain: bool
    busy: bool
    alone: bool
    attempts: int
    since: float
    next_attempt: float
    last_attempt: float | None
    reply: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One message with those recipients that were chosen. `settled`: since when it is history."""

    id: str
    received: float
    settled: float | None
    sender: str
    size: int
    exim_id: str
    message_id: str
    client: str
    smtputf8: bool
    eight_bit: bool
    recipients: tuple[Person, ...]

    @property
    def trouble(self) -> str:
        """Why it was set aside, "" if it was not."""
        return next((person.reply for person in self.recipients if person.state == CORRUPT), "")


def listed(database: Database, selection: Selection) -> Iterator[Listed]:
    """The chosen messages, oldest first (for more than a thousand ids: in the order of a thousand ids each)."""
    for part in in_parts(selection):
        last: tuple[float, str] | None = None
        while page := database.read(partial(_page, selection=part, last=last), "listing"):
            yield from page
            last = page[-1].received, page[-1].id


def resolve(database: Database, text: str, most: int = 10) -> list[str]:
    """The messages that `text` may mean, oldest first: a gate id, the beginning or end of one, Exim's id, a
    Message-ID with or without its angle brackets.
    """
    return database.read(partial(_resolved, text=printable(text), most=most), "looking up")


def _resolved(connection: Connection, text: str, most: int) -> list[str]:
    gate_id = text.lower()
    if connection.scalar(select(messages.c.id).where(messages.c.id == gate_id)):
        return [gate_id]
    fits = or_(
        messages.c.id.startswith(gate_id, autoescape=True),
        messages.c.id.endswith(gate_id, autoescape=True),
        messages.c.exim_id == text,
        messages.c.message_id.in_((text, f"<{text}>")),
    )
    return list(connection.scalars(select(messages.c.id).where(fits).order_by(messages.c.received).limit(most)))


def in_parts(selection: Selection) -> Iterator[Selection]:
    """The same in selections of a number of ids that one statement can carry."""
    if not selection.ids:
        yield selection
    ids = tuple(dict.fromkeys(selection.ids))
    for first in range(0, len(ids), MOST_IDS):
        yield replace(selection, ids=ids[first : first + MOST_IDS])


def of_message(selection: Selection) -> ColumnElement[bool]:
    """The condition on `messages`."""
    wanted: list[ColumnElement[bool]] = [true()]
    if selection.ids:
        wanted.append(or_(messages.c.id.in_(selection.ids), *(_called(name, selection.ids) for name in _NAMES)))
    if selection.sender is not None:
        wanted.append(like(messages.c.sender_text, selection.sender))
    if selection.before is not None:
        wanted.append(messages.c.received < selection.before)
    if selection.after is not None:
        wanted.append(messages.c.received >= selection.after)
    return and_(*wanted)


def _called(name: ColumnElement[str], ids: tuple[str, ...]) -> ColumnElement[bool]:
    # A sender chooses his Message-ID: it may be another message's gate id, and is then no name.
    return and_(name.in_(ids), ~exists().where(_other.c.id == name))


def of_recipient(selection: Selection) -> ColumnElement[bool]:
    """The condition on `recipients`."""
    wanted: list[ColumnElement[bool]] = [true()]
    if selection.recipient:
        patterns = addresses.of_list(selection.recipient)
        wanted.append(or_(*(like(recipients.c.address_text, pattern) for pattern in patterns)))
    if selection.states:
        wanted.append(or_(false(), *(_in_state(state) for state in selection.states)))
    return and_(*wanted)


def _in_state(state: str) -> ColumnElement[bool]:
    column = unindexed(recipients.c.state)
    if state == HELD_FOR_SCORE:
        return and_(column == HELD, recipients.c.reply == AWAITS_SCORE)
    if state in {PENDING, UNCERTAIN}:
        return and_(column == PENDING, recipients.c.uncertain.is_(state == UNCERTAIN))
    return column == state


def like(column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
    """The column fits a pattern with * and ?, blind to case."""
    escaped = pattern.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")


def _page(connection: Connection, selection: Selection, last: tuple[float, str] | None) -> list[Listed]:
    order = (messages.c.received, messages.c.id)
    chosen = exists().where(recipients.c.message_id == messages.c.id, of_recipient(selection))
    query = select(messages).where(of_message(selection), chosen).order_by(*order).limit(PAGE)
    if last is not None:
        query = query.where(tuple_(*order) > last)
    heads = connection.execute(query).all()
    people: dict[str, list[Person]] = {head.id: [] for head in heads}
    some = select(recipients).where(recipients.c.message_id.in_(list(people)), of_recipient(selection))
    for row in connection.execute(some.order_by(recipients.c.message_id, recipients.c.number)):
        people[row.message_id].append(_person(row))
    return [_listed(head, people[head.id]) for head in heads]


def _listed(head: Any, people: list[Person]) -> Listed:
    return Listed(
        head.id,
        head.received,
        head.settled,
        address_text(head.sender),
        head.size,
        head.exim_id,
        head.message_id,
        head.client,
        head.smtputf8,
        head.eight_bit,
        tuple(people),
    )


def _person(row: Any) -> Person:
    return Person(
        row.number,
        address_text(row.address),
        shown(row.state, uncertain=row.uncertain),
        row.uncertain,
        bool(row.lease),
        row.alone,
        row.attempts,
        row.since,
        row.next_attempt,
        row.last_attempt,
        row.reply,
    )
