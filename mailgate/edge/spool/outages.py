"""Looking into the ledger: which posts went on unscored, in which outage of the scorer. Synchronous, for verbs; the
daemon may be up.

A long list is read in pages, each a short transaction. What is still in the spool is told by its state there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select, true, tuple_

from mailgate.core import addresses
from mailgate.core.envelope import address_text
from mailgate.core.fate import PASSED, Fate
from mailgate.edge.spool.database import Database
from mailgate.edge.spool.listing import PAGE, like
from mailgate.edge.spool.schema import DELIVERED, recipients, unscored, unscored_recipients
from mailgate.edge.spool.unscored import TAKEN_AS_IT_WAS

_people = unscored_recipients.c


@dataclass(frozen=True, slots=True)
class Choice:
    """What is asked for: all that is given must hold. `since` and `until` bound the time of receipt (seconds since
    1970); `recipient` is a pattern as in `listing.Selection`. Without `everything` it is what went on unscored, or may
    have, and only those recipients who got it so.
    """

    since: float | None = None
    until: float | None = None
    recipient: str = ""
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    """A recipient, and what became of the post there: "delivered" and "uncertain" are unscored; "scored" (then
    delivered); or the state in the spool.
    """

    address: str
    state: str


@dataclass(frozen=True, slots=True)
class Passed:
    """A post in the ledger, with those recipients that were chosen. `score`: what it came to in the spool."""

    id: str
    outage: str
    received: float
    sender: str
    size: int
    exim_id: str
    message_id: str
    client: str
    reason: str
    detail: str
    score: float | None
    recipients: tuple[Person, ...]


@dataclass(frozen=True, slots=True)
class Outage:
    """Unscored posts less than a minute apart, or with none between them that got a score. `began` and `ended` are when
    the first and the last of all of them came in; `posts` and `reasons` count those that were chosen.
    """

    id: str
    began: float
    ended: float
    posts: int
    reasons: Mapping[str, int]


def outages(database: Database, choice: Choice) -> list[Outage]:
    """The outages of the chosen posts, oldest first."""
    return database.read(partial(_outages, choice=choice), "listing outages")


def _outages(connection: Connection, choice: Choice) -> list[Outage]:
    reasons: dict[str, dict[str, int]] = {}
    query = select(unscored.c.outage, unscored.c.reason, func.count().label("posts")).where(_of_post(choice))
    for row in connection.execute(query.group_by(unscored.c.outage, unscored.c.reason)):
        reasons.setdefault(row.outage, {})[row.reason] = row.posts
    bounds = select(
        unscored.c.outage, func.min(unscored.c.received).label("began"), func.max(unscored.c.received).label("ended")
    ).group_by(unscored.c.outage)
    return [
        Outage(row.outage, row.began, row.ended, sum(reasons[row.outage].values()), reasons[row.outage])
        for row in connection.execute(bounds.order_by(unscored.c.outage))
        if row.outage in reasons
    ]


def posts(database: Database, choice: Choice, outage: str | None = None) -> Iterator[Passed]:
    """The chosen posts (of that outage), outage by outage, oldest first."""
    last: tuple[str, float, str] | None = None
    while page := database.read(partial(_page, choice=choice, outage=outage, last=last), "listing"):
        yield from page
        last = page[-1].outage, page[-1].received, page[-1].id


def _page(
    connection: Connection, choice: Choice, outage: str | None, last: tuple[str, float, str] | None
) -> list[Passed]:
    order = (unscored.c.outage, unscored.c.received, unscored.c.id)
    query = select(unscored).where(_of_post(choice)).order_by(*order).limit(PAGE)
    if outage is not None:
        query = query.where(unscored.c.outage == outage)
    if last is not None:
        query = query.where(tuple_(*order) > last)
    heads = connection.execute(query).all()
    people = _people_of(connection, [head.id for head in heads], choice)
    return [_passed(head, people[head.id]) for head in heads]


def _people_of(connection: Connection, ids: Sequence[str], choice: Choice) -> dict[str, list[Person]]:
    here = and_(recipients.c.message_id == _people.post_id, recipients.c.address == _people.address)
    query = (
        select(_people.post_id, _people.address, _people.fate, recipients.c.state, unscored.c.score)
        .outerjoin_from(unscored_recipients, recipients, here)
        .join(unscored, unscored.c.id == _people.post_id)
        .where(_people.post_id.in_(ids), _of_recipient(choice))
        .order_by(_people.post_id, _people.number)
    )
    found: dict[str, list[Person]] = {gate_id: [] for gate_id in ids}
    for row in connection.execute(query):
        found[row.post_id].append(Person(address_text(row.address), _shown(row)))
    return found


def _shown(row: Any) -> str:
    """The state for people."""
    if row.fate == Fate.BEGUN:
        return Fate.UNCERTAIN.value
    if row.fate != Fate.SPOOLED or row.state is None:
        return str(row.fate)
    return Fate.SCORED.value if row.state == DELIVERED and row.score is not None else str(row.state)


def _passed(head: Any, people: Sequence[Person]) -> Passed:
    return Passed(
        head.id,
        head.outage,
        head.received,
        address_text(head.sender),
        head.size,
        head.exim_id,
        head.message_id,
        head.client,
        head.reason,
        head.detail,
        head.score,
        tuple(people),
    )


def _of_post(choice: Choice) -> ColumnElement[bool]:
    wanted: list[ColumnElement[bool]] = [exists().where(_people.post_id == unscored.c.id, _of_recipient(choice))]
    if choice.since is not None:
        wanted.append(unscored.c.received >= choice.since)
    if choice.until is not None:
        wanted.append(unscored.c.received < choice.until)
    return and_(*wanted)


def _of_recipient(choice: Choice) -> ColumnElement[bool]:
    wanted: list[ColumnElement[bool]] = [true()]
    if not choice.everything:
        wanted.append(or_(_people.fate.in_(PASSED), TAKEN_AS_IT_WAS))
    if choice.recipient:
        wanted.append(or_(*(like(_people.address_text, one) for one in addresses.of_list(choice.recipient))))
    return and_(*wanted)
