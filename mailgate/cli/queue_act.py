"""`queue hold`, `release` and `drop`: said beforehand, asked for where it can't be taken back, done in small steps."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from mailgate.cli.output import DONE, FAILED, Column, agreed, counted, objects, say, table
from mailgate.cli.queue_choice import changeable, changes, listed, seen, selection
from mailgate.cli.queue_options import HERE, Filters
from mailgate.edge.spool import Database, verbs
from mailgate.edge.spool.listing import HELD_FOR_SCORE, Selection
from mailgate.edge.spool.verbs import Change

_COLUMNS = (Column("ID"), Column("RECIPIENT", folds=True), Column("IS"), Column("WILL BE"))
_REFUSED = {
    "busy": "it is being tried right now",
    "corrupt": "its content is damaged (mailgate spool verify)",
}
_OF_THE_SPOOL = {"hold": verbs.hold, "release": verbs.release, "drop": verbs.drop}


@dataclass(frozen=True, slots=True)
class Act:
    """One of the verbs: the states it can change, those it changes without being told, the number of messages from
    which on it wants a yes (0: never), and the word for what it did.
    """

    verb: str
    takes: tuple[str, ...]
    usual: tuple[str, ...]
    asks_from: int
    done: str


@dataclass(frozen=True, slots=True)
class How:
    """The options that all of them have."""

    yes: bool
    dry: bool
    as_json: bool
    reason: str


HOLD = Act(
    "hold", ("pending", "uncertain", "failed", HELD_FOR_SCORE), ("pending", "uncertain", HELD_FOR_SCORE), 0, "held"
)
RELEASE = Act("release", ("held", "failed"), ("held",), 2, "released: due now")
DROP = Act("drop", HERE, HERE, 1, "dropped")


def act(database: Database, what: Act, chosen: Filters, how: How) -> int:
    """Do it. The exit status: 1 if some were left alone because they are being tried right now."""
    now = time.time()
    which = selection(database, chosen, now, changeable(chosen, what.verb, what.takes, what.usual))
    found = seen(listed(database, chosen, which))

    def verb(some: Selection) -> Iterable[Change]:
        return _OF_THE_SPOOL[what.verb](database, some, now, dry=how.dry, reason=how.reason)

    if how.dry:
        return preview(changes(verb, which, found.ids, "looking"), as_json=how.as_json)
    needed = what.asks_from and len(found.ids) >= what.asks_from
    agreed(f"{what.verb}: {found}", yes=how.yes or not needed)
    return carry_out(changes(verb, which, found.ids, what.verb), what.done, as_json=how.as_json)


def preview(all_of_it: Iterable[Change], *, as_json: bool) -> int:
    """Show what would become of each recipient; nothing is changed."""
    if as_json:
        objects(map(as_object, all_of_it))
    else:
        table(_COLUMNS, ((one.id, one.address, one.before, _will(one)) for one in all_of_it))
    say("nothing was changed (--dry-run)")
    return DONE


def _will(one: Change) -> str:
    return f"{one.before}: left alone, {_REFUSED[one.refused]}" if one.refused else one.after


def carry_out(all_of_it: Iterable[Change], done: str, *, as_json: bool) -> int:
    """Make the changes (that is what going through them does), and say how many there were, even if it breaks off."""
    people = refused = 0
    messages = set()
    try:
        for one in all_of_it:
            if as_json:
                objects([as_object(one)], vital=True)
            if one.refused:
                refused += 1
                say(f"{one.id} {one.address}: {one.refused}: left alone: {_REFUSED[one.refused]}")
            else:
                people += 1
                messages.add(one.id)
    finally:
        say(f"{counted(people, 'recipient')} of {counted(len(messages), 'message')} {done}")
    return FAILED if refused else DONE


def as_object(one: Change) -> dict[str, object]:
    """A change for scripts."""
    return {
        "id": one.id,
        "number": one.number,
        "address": one.address,
        "before": one.before,
        "after": one.after,
        "refused": one.refused,
    }
