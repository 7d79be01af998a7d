"""`queue list` and `queue stats`: what is in the spool, a row a recipient, or a row a list by age."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal

from mailgate.cli.output import NOTHING, Column, ago, counted, fail, line, note, objects, stamp, table
from mailgate.cli.queue_choice import Seen, listed, selection
from mailgate.cli.queue_options import HERE, Filters
from mailgate.core.units import said_octets, said_seconds
from mailgate.edge.spool import Counts, Database, control, query, stats
from mailgate.edge.spool.listing import Listed, Person

_COLUMNS = (
    Column("ID"),
    Column("RECEIVED", rank=6),
    Column("AGE", rank=1, right=True),
    Column("SIZE", rank=2, right=True),
    Column("STATE"),
    Column("TRIES", rank=4, right=True),
    Column("NEXT", rank=5),
    Column("SENDER", rank=3, folds=True),
    Column("RECIPIENT", folds=True),
    Column("LAST REPLY", rank=7, folds=True),
)


def show_list(database: Database, chosen: Filters, *, as_json: bool) -> None:
    """Write what matches; exit 3 if nothing does."""
    now = time.time()
    states = chosen.states or (() if chosen.ids else HERE)
    messages = listed(database, chosen, selection(database, chosen, now, states))
    if as_json:
        count = objects(map(as_object, messages))
    else:
        shown = Seen()
        count = table(_COLUMNS, _rows(messages, now, shown))
        note(f"{counted(len(shown.ids), 'message')}, {counted(count, 'recipient')}, {said_octets(shown.octets)}")
    say_what_rests(database, now)
    if not count:
        raise fail("nothing matches", NOTHING)


def _rows(messages: Iterator[Listed], now: float, shown: Seen) -> Iterator[tuple[str, ...]]:
    for one in messages:
        shown.add(one)
        for person in one.recipients:
            yield (
                one.id,
                stamp(one.received),
                said_seconds(now - one.received),
                said_octets(one.size),
                person.state,
                str(person.attempts),
                following(person, now),
                one.sender or "<>",
                person.address,
                person.reply or "-",
            )


def following(person: Person, now: float) -> str:
    """When it will be tried again, for people."""
    if person.busy:
        return "busy"
    if person.state not in {"pending", "uncertain"}:
        return "-"
    return ago(person.next_attempt, now) if person.next_attempt > now else "due"


def as_object(one: Listed) -> dict[str, object]:
    """A message for scripts: seconds since 1970, octets, addresses as they came."""
    return {
        "id": one.id,
        "received": one.received,
        "settled": one.settled,
        "size": one.size,
        "sender": one.sender,
        "smtputf8": one.smtputf8,
        "eight_bit": one.eight_bit,
        "exim_id": one.exim_id,
        "message_id": one.message_id,
        "client": one.client,
        "trouble": one.trouble,
        "recipients": [
            {
                "number": person.number,
                "address": person.address,
                "state": person.state,
                "uncertain": person.uncertain,
                "busy": person.busy,
                "attempts": person.attempts,
                "next_attempt": person.next_attempt,
                "last_attempt": person.last_attempt,
                "reply": person.reply,
            }
            for person in one.recipients
        ],
    }


def say_what_rests(database: Database, now: float) -> None:
    """A note when nothing of this will move by itself, and why."""
    pause = database.read(lambda connection: control.paused(connection, now))
    foreign = database.read(lambda connection: control.foreign(connection, database.owner_mark))
    if pause:
        until = f" until {stamp(pause.until)}" if pause.until is not None else ""
        note(f"paused since {stamp(pause.since)}{until}: {pause.reason}")
    if foreign:
        note(f"nothing is replayed: {foreign} (mailgate spool adopt)")


def show_stats(database: Database, by: Literal["list", "domain"], *, as_json: bool) -> None:
    """Write the table of age by list; exit 3 if nothing waits."""
    now = time.time()
    rows = stats.stats(database, now, by=by)
    edges = [*map(str, stats.BUCKETS), f"{stats.BUCKETS[-1]}+"]
    if as_json:
        objects(
            {by: row.name, "total": row.total, "minutes": dict(zip(edges, row.buckets, strict=True))} for row in rows
        )
    elif rows:
        total = stats.Row(
            "TOTAL", sum(row.total for row in rows), tuple(map(sum, zip(*(row.buckets for row in rows), strict=True)))
        )
        columns = (Column(by.upper(), folds=True), *(Column(edge, right=True) for edge in ("T", *edges)))
        table(columns, ([row.name, str(row.total), *map(str, row.buckets)] for row in (total, *rows)))
    if not as_json:
        _say_totals(database.read(query.counts), now)
    say_what_rests(database, now)
    if not rows:
        raise fail("nothing waits", NOTHING)


def _say_totals(counts: Counts, now: float) -> None:
    line("")
    states = ", ".join(f"{counts.recipients[state]} {state}" for state in HERE if counts.recipients[state])
    line(f"recipients: {states or 'none'}" + (f" ({counts.leased} being tried now)" if counts.leased else ""))
    line(f"content: {said_octets(counts.octets)}")
    if counts.oldest is not None:
        line(f"oldest that waits: received {stamp(counts.oldest)} ({ago(counts.oldest, now)})")
