"""From filters to messages: ids are completed, and what a verb is about to touch is seen before it is touched.

A change is made for exactly the messages that were seen, a few hundred at a time, so what is said beforehand is what
is done even if mail comes in meanwhile.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from mailgate.cli.output import NOTHING, USAGE, Bar, counted, fail
from mailgate.cli.queue_options import Filters
from mailgate.core.addresses import list_of
from mailgate.core.envelope import printable
from mailgate.core.units import said_octets
from mailgate.edge.spool import Database, listing
from mailgate.edge.spool.listing import Listed, Selection
from mailgate.edge.spool.verbs import Change

_AT_ONCE = 500  # messages in one call of the spool
_NAMED = 5  # lists that are named in a summary
Verb = Callable[[Selection], Iterable[Change]]


def selection(database: Database, chosen: Filters, now: float, states: tuple[str, ...]) -> Selection:
    """What the filters mean at `now`, for recipients in these states (() for all)."""
    return Selection(
        ids=tuple(completed(database, text) for text in chosen.ids),
        recipient=chosen.recipient or "",
        sender=None if chosen.sender is None else chosen.sender.removeprefix("<").removesuffix(">"),
        before=None if chosen.older is None else now - chosen.older,
        after=None if chosen.newer is None else now - chosen.newer,
        states=states,
    )


def completed(database: Database, text: str) -> str:
    """The gate id that is meant, or the end of the verb: exit 3 if there is none, 2 if there are several."""
    found = listing.resolve(database, text, most=_NAMED + 1)
    if not found:
        raise fail(f"{text}: no message of that id is in the spool", NOTHING)
    if len(found) > 1:
        more = "" if len(found) <= _NAMED else ", …"
        raise fail(f"{text}: which one? {', '.join(found[:_NAMED])}{more}", USAGE)
    return found[0]


def listed(database: Database, chosen: Filters, which: Selection) -> Iterator[Listed]:
    """The messages, oldest first, as many as were asked for."""
    return itertools.islice(listing.listed(database, which), chosen.limit or None)


@dataclass(slots=True)
class Seen:
    """Messages that match, with the recipients of each that do. `busy` ones are being tried by a running replay."""

    ids: list[str] = field(default_factory=list)
    recipients: int = 0
    busy: int = 0
    octets: int = 0
    lists: Counter[str] = field(default_factory=Counter)

    def add(self, one: Listed) -> None:
        """Count a message in."""
        self.ids.append(one.id)
        self.octets += one.size
        self.recipients += len(one.recipients)
        self.busy += sum(person.busy for person in one.recipients)
        self.lists.update(list_of(printable(person.address).lower()) for person in one.recipients)

    def __str__(self) -> str:
        """For a person: how many, how large, for which lists."""
        most = [f"{address} ({number})" for address, number in self.lists.most_common(_NAMED)]
        if len(self.lists) > _NAMED:
            most.append(f"{len(self.lists) - _NAMED} more")
        return (
            f"{counted(self.recipients, 'recipient')} of {counted(len(self.ids), 'message')},"
            f" {said_octets(self.octets)}: {', '.join(most)}"
        )


def seen(messages: Iterator[Listed]) -> Seen:
    """Look at all of them, or end the verb with exit 3 when there are none."""
    found = Seen()
    for one in messages:
        found.add(one)
    if not found.ids:
        raise fail("nothing matches", NOTHING)
    return found


def changeable(chosen: Filters, verb: str, takes: tuple[str, ...], usual: tuple[str, ...]) -> tuple[str, ...]:
    """The states that a changing verb goes for: those asked for that it `takes`; without any, all that it takes of
    messages given by id, and the `usual` ones of others. A usage error if it takes none that was asked for.
    """
    if not chosen.states:
        return takes if chosen.ids else usual
    states = tuple(state for state in chosen.states if state in takes)
    if not states:
        raise fail(f"{verb} is for what is {' or '.join(takes)}, not {' or '.join(chosen.states)}", USAGE)
    return states


def changes(verb: Verb, which: Selection, ids: list[str], doing: str) -> Iterator[Change]:
    """Apply a verb of the spool to these messages. It is done while this is iterated over: go to the end."""
    with Bar(doing, len(ids)) as bar:
        rest = iter(ids)
        while some := tuple(itertools.islice(rest, _AT_ONCE)):
            yield from verb(replace(which, ids=some))
            bar.step(len(some))
