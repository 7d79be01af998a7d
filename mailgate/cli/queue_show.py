"""`queue show`: all that is known of one message, or its octets."""

from __future__ import annotations

import email.errors
import email.header
import itertools
import time
from collections.abc import Iterator

from mailgate.cli.output import Column, ago, line, objects, octets, stamp, table
from mailgate.cli.queue_choice import completed
from mailgate.cli.queue_list import as_object, following
from mailgate.core.envelope import printable
from mailgate.core.headers import first
from mailgate.core.message import message
from mailgate.core.units import said_octets
from mailgate.edge.spool import Database, content, listing
from mailgate.edge.spool.listing import Listed, Person, Selection

_PEOPLE = (
    Column("#", right=True, rank=4),
    Column("RECIPIENT", folds=True),
    Column("STATE"),
    Column("TRIES", right=True, rank=1),
    Column("LAST TRY", rank=3),
    Column("NEXT", rank=2),
    Column("LAST REPLY", folds=True),
)
_TITLES = (b"from", b"to", b"subject", b"date")
_HEAD = 2  # pieces of content in which the header ends, if it does


def show(database: Database, text: str, *, as_json: bool) -> None:
    """Write what is known of the message that `text` names."""
    gate_id = completed(database, text)
    one = next(listing.listed(database, Selection(ids=(gate_id,))))
    if as_json:
        objects([as_object(one)])
        return
    now = time.time()
    for name, value in _facts(one, now):
        line(f"{name:<11} {printable(value)}")
    for name, value in _titles(database, one):
        line(f"{name:<11} {printable(value)}")
    line("")
    table(_PEOPLE, _people(one, now))


def _facts(one: Listed, now: float) -> Iterator[tuple[str, str]]:
    yield "id", one.id
    yield "received", f"{stamp(one.received)} ({ago(one.received, now)})"
    if one.settled is not None:
        yield "settled", f"{stamp(one.settled)} ({ago(one.settled, now)}); the content has been removed"
    yield "size", f"{said_octets(one.size)} ({one.size} octets)"
    declared = " BODY=8BITMIME" * one.eight_bit + " SMTPUTF8" * one.smtputf8
    yield "sender", f"<{one.sender}>{declared}"
    for name, value in (("client", one.client), ("exim id", one.exim_id), ("message id", one.message_id)):
        if value:
            yield name, value
    if one.trouble:
        yield "trouble", one.trouble


def _titles(database: Database, one: Listed) -> Iterator[tuple[str, str]]:
    if one.settled is not None:
        return
    head = message(itertools.islice(content.octets(database, one.id), _HEAD)).head
    for name in _TITLES:
        if value := first(head, name):
            yield name.decode(), decoded(value)


def decoded(value: bytes) -> str:
    """A header field as its writer meant it (RFC 2047), or as it stands if that can't be made out."""
    text = value.decode("utf-8", "surrogateescape")
    try:
        return str(email.header.make_header(email.header.decode_header(text)))
    except (ValueError, LookupError, email.errors.MessageError):  # what is in mail is not always what the RFC says
        return text


def _people(one: Listed, now: float) -> Iterator[tuple[str, ...]]:
    for person in one.recipients:
        yield (
            str(person.number),
            person.address,
            person.state,
            str(person.attempts),
            ago(person.last_attempt, now) if person.last_attempt is not None else "-",
            following(person, now),
            (person.reply or "-") + _doubt(person),
        )


def _doubt(person: Person) -> str:
    """A mark that survives hold, failure and delivery: the next hop may have it already, or have got it twice."""
    if not person.uncertain or person.state == "dropped":
        return ""
    return " [may have been delivered twice]" if person.state == "delivered" else " [may have been delivered]"


def show_octets(database: Database, text: str, *, header: bool, body: bool) -> None:
    """Write the octets of a part, or of all of the message. Raises SpoolDamaged if they are not what was stored."""
    gate_id = completed(database, text)
    pieces = content.octets(database, gate_id)
    if header == body:
        octets(pieces)
        return
    whole = message(pieces)
    octets([whole.head] if header else whole.body)
