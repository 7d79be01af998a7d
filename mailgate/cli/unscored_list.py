"""`unscored list`: the posts of the ledger under the outages that they belong to, or the outages alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mailgate.cli.output import NOTHING, Column, ago, counted, fail, line, objects, stamp, table
from mailgate.core.addresses import list_of
from mailgate.core.envelope import printable
from mailgate.core.units import said_octets, said_seconds
from mailgate.edge.spool import Database
from mailgate.edge.spool.outages import Choice, Outage, Passed, outages, posts

_POSTS = (
    Column("ID"),
    Column("RECEIVED", rank=2),
    Column("SIZE", rank=6, right=True),
    Column("STATE"),
    Column("SENDER", rank=1, folds=True),
    Column("RECIPIENT", folds=True),
    Column("EXIM ID", rank=4),
    Column("MESSAGE-ID", rank=3, folds=True),
    Column("WHY", rank=5, folds=True),
)
_OUTAGES = (
    Column("BEGAN"),
    Column("LAST POST"),
    Column("LASTED", right=True),
    Column("POSTS", right=True),
    Column("WHY", folds=True),
)


def show_posts(database: Database, choice: Choice, now: float, *, as_json: bool) -> None:
    """Write the posts; exit 3 if there are none."""
    if as_json:
        if not objects(map(as_object, posts(database, choice))):
            raise _nothing()
        return
    found = outages(database, choice)
    for number, one in enumerate(found):
        if number:
            line("")
        line(_headed(one, now, everything=choice.everything))
        table(_POSTS, _rows(posts(database, choice, one.id)))
    if not found:
        raise _nothing()


def show_outages(database: Database, choice: Choice, *, as_json: bool) -> None:
    """Write the outages; exit 3 if there are none."""
    found = outages(database, choice)
    if as_json:
        objects(
            {"outage": one.id, "began": one.began, "ended": one.ended, "posts": one.posts, "reasons": one.reasons}
            for one in found
        )
    else:
        table(_OUTAGES, map(_row, found))
    if not found:
        raise _nothing()


def _nothing() -> Exception:
    return fail("no such post in the ledger", NOTHING)


def _headed(one: Outage, now: float, *, everything: bool) -> str:
    what = f"{counted(one.posts, 'post')} without a score" if everything else f"{counted(one.posts, 'post')} unscored"
    lasted = f"{said_seconds(one.ended - one.began)}, last post {ago(one.ended, now)}"
    return f"outage {stamp(one.began)} to {stamp(one.ended)} ({lasted}): {what}, {_why(one)}"


def _why(one: Outage) -> str:
    most_first = sorted(one.reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{reason} {number}" for reason, number in most_first)


def _row(one: Outage) -> tuple[str, ...]:
    return (
        stamp(one.began),
        stamp(one.ended),
        said_seconds(one.ended - one.began),
        str(one.posts),
        _why(one),
    )


def _rows(found: Iterable[Passed]) -> Iterator[tuple[str, ...]]:
    for one in found:
        score = f", then scored {one.score:.1f}" if one.score is not None else ""
        for person in one.recipients:
            yield (
                one.id,
                stamp(one.received),
                said_octets(one.size),
                person.state,
                one.sender or "<>",
                person.address,
                one.exim_id or "-",
                one.message_id or "-",
                f"{one.reason}{score}",
            )


def as_object(one: Passed) -> dict[str, object]:
    """A post for scripts: seconds since 1970, octets, addresses as they came."""
    return {
        "id": one.id,
        "outage": one.outage,
        "received": one.received,
        "size": one.size,
        "sender": one.sender,
        "exim_id": one.exim_id,
        "message_id": one.message_id,
        "client": one.client,
        "reason": one.reason,
        "detail": one.detail,
        "score": one.score,
        "recipients": [
            {"address": person.address, "list": list_of(printable(person.address)), "state": person.state}
            for person in one.recipients
        ],
    }
