"""Finding the stories of messages in the history, by any name of theirs. Synchronous, for verbs; the daemon may be up.

Promises: the same story for each of its names. An event that a name fits leads to the ids in it (the gate's, the
verdict door's, Exim's), these to all other events of the message, whenever they were: what Exim handed over again after
a 451 is one story with what it was before.
Bounded: the newest stories, as many as are asked for; the history is read in pages, each a short transaction.
How it fails: a damaged part of the history is left out and counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection, select

from mailgate.core import story
from mailgate.edge.spool import chronicle, listing
from mailgate.edge.spool.chronicle import Event
from mailgate.edge.spool.database import Database
from mailgate.edge.spool.errors import SpoolDamaged
from mailgate.edge.spool.listing import Listed, Selection
from mailgate.edge.spool.schema import history, history_events

_PAGE = 2000  # rows whose names are looked through in one transaction


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of a message, oldest first, and what the spool has of it now."""

    ids: frozenset[str]
    events: tuple[Event, ...]
    spooled: tuple[Listed, ...]

    @property
    def began(self) -> float:
        """When it was first heard of."""
        return min([event.at for event in self.events] or [one.received for one in self.spooled])


@dataclass(slots=True)
class Found:
    """The stories, oldest first. `more`: there are older ones that were not asked for. `damaged`: how many parts of the
    history could not be read.
    """

    stories: list[Story] = field(default_factory=list)
    more: bool = False
    damaged: int = 0


def find(database: Database, what: str, since: float, most: int) -> Found:
    """The newest `most` stories with an event since then (seconds since the epoch) that `what` names."""
    return _Search(database).find(what, since, most)


class _Search:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._found = Found()

    def find(self, what: str, since: float, most: int) -> Found:
        tied: dict[str, set[str]] = {}
        for gate_id in listing.resolve(self._database, what, most):
            _tie(tied, {gate_id})
        left = most - len(tied)
        for event in self._events(story.meant(what), since):
            ids = story.ids(event.fields)
            if ids.isdisjoint(tied):
                if left <= 0:
                    self._found.more = True
                    break
                left -= 1
            _tie(tied, ids)
        events = self._all_of(tied)
        groups = {id(group): group for group in tied.values()}
        by_group: dict[int, list[Event]] = {one: [] for one in groups}
        for event in events:
            by_group[id(tied[min(story.ids(event.fields))])].append(event)
        stories = [self._story(group, by_group[one]) for one, group in groups.items()]
        self._found.stories = sorted((one for one in stories if one.events or one.spooled), key=lambda one: one.began)
        return self._found

    def _all_of(self, tied: dict[str, set[str]]) -> list[Event]:
        """Every event of the messages with these ids; `tied` has all of their ids then."""
        events: dict[tuple[float, str, str], Event] = {}
        known: set[str] = set()
        while new := tied.keys() - known:
            known |= new
            for event in self._events(new, 0.0):
                _tie(tied, story.ids(event.fields))
                events[event.at, event.name, str(event.fields.get("id"))] = event
        return sorted(events.values(), key=lambda event: event.at)

    def _story(self, ids: set[str], events: list[Event]) -> Story:
        return Story(frozenset(ids), tuple(events), tuple(listing.listed(self._database, Selection(ids=tuple(ids)))))

    def _events(self, names: Collection[str], since: float) -> Iterator[Event]:
        """The events since then with one of these names, newest first."""
        sums, wanted = frozenset(chronicle.checksums(names)), frozenset(names)
        for number in self._rows(sums, since):
            octets = self._database.read(partial(_packed, number=number), "reading the history")
            try:
                events = chronicle.unpack(octets) if octets else []
            except SpoolDamaged:
                self._found.damaged += 1
                continue
            for event in reversed(events):
                if event.at >= since and not wanted.isdisjoint(story.names(event.fields)):
                    yield event

    def _rows(self, sums: frozenset[int], since: float) -> Iterator[int]:
        """The numbers of the rows that may have such events, newest first."""
        last: int | None = None
        while page := self._database.read(partial(_page, since=since, last=last), "reading the history"):
            for number, names in page:
                if chronicle.fits(names, sums):
                    yield number
            last = page[-1][0]


def _tie(tied: dict[str, set[str]], ids: set[str]) -> None:
    """These ids are one message's, and so are those that each of them was known to be of."""
    whole = ids.union(*(tied.get(one, ()) for one in ids))
    for one in whole:
        tied[one] = whole


def _page(connection: Connection, since: float, last: int | None) -> list[tuple[int, bytes]]:
    query = select(history.c.id, history.c.names).where(history.c.ended >= since)
    if last is not None:
        query = query.where(history.c.id < last)
    return [(row.id, row.names) for row in connection.execute(query.order_by(history.c.id.desc()).limit(_PAGE))]


def _packed(connection: Connection, number: int) -> bytes:
    """The events of a row; none if it has just been forgotten."""
    octets = connection.scalar(select(history_events.c.events).where(history_events.c.id == number))
    return bytes(octets) if octets is not None else b""
