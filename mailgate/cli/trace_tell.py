"""`trace`: the stories, for people line by line as things happened, or for scripts.

An event of the log is told in parts: how the message arrived, what was found out, the verdict, the attempt at Mailman,
the replies. A field that no part speaks of is among what was found out: nothing that was written down is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mailgate.cli.output import NOTHING, ago, fail, line, note, objects, say, stamp
from mailgate.cli.queue_list import as_object as spooled_object
from mailgate.cli.queue_list import following
from mailgate.core.envelope import printable
from mailgate.core.units import said_octets
from mailgate.edge.spool.chronicle import Event
from mailgate.edge.spool.listing import Listed
from mailgate.edge.spool.tracing import Found, Story

_COLUMN = 9
_ARRIVAL = ("door", "peer", "client", "origin", "helo", "host", "user", "tls", "sender", "bytes")
_NAMED = ("id", "exim_id", "message_id", "verdict_id", "sender_domain", "lists")
_TOLD = (*_ARRIVAL, *_NAMED, "recipients", "verdict", "reasons", "reply", "dialogue", "seconds", "trace")

Part = tuple[str, str]  # what it is about, and a line of it


def tell(found: Found, what: str, now: float, *, as_json: bool) -> None:
    """Write the stories; exit 3 if there are none."""
    if found.damaged:
        say(f"mailgate: {found.damaged} parts of the history can't be read: what stands there is not told")
    if as_json:
        objects(map(as_object, found.stories))
    for number, story in enumerate(() if as_json else found.stories):
        if number:
            line("")
        _tell(story, now)
    if found.more:
        note(f"there are more: these are the last {len(found.stories)} (--limit, --since)")
    if not found.stories:
        raise fail(f"{what}: nothing is known of it", NOTHING)


def as_object(story: Story) -> dict[str, object]:
    """A story for scripts: the events as the log has them, with seconds since 1970, and what the spool has now."""
    return {
        "ids": sorted(story.ids),
        "events": [
            {"time": event.at, "level": event.level, "event": event.name, **event.fields} for event in story.events
        ],
        "spool": [spooled_object(one) for one in story.spooled],
    }


def _tell(story: Story, now: float) -> None:
    line(_title(story))
    last = ""
    for event in story.events:
        for word, text in _parts(event):
            # The event was written when all was over.
            when = stamp(event.at - _total(event.fields) if word == "arrived" else event.at)
            line(f"{when if when != last else '':<{len(when)}}  {word:<{_COLUMN}} {printable(text)}".rstrip())
            last = when
    for one in story.spooled:
        for text in _now(one, now):
            line(f"{'now':<{len(stamp(now))}}  {'spool':<{_COLUMN}} {printable(text)}")


def _title(story: Story) -> str:
    """The ids, and for whom it is."""
    known: dict[str, str] = {}
    for event in story.events:
        for key in ("message_id", "sender"):
            value = event.fields.get(key)
            if isinstance(value, str) and value:
                known.setdefault(key, value)
    for one in story.spooled:
        known.setdefault("message_id", one.message_id)
        known.setdefault("sender", one.sender)
    text = f"{', '.join(sorted(story.ids))}: {known.get('message_id') or 'no Message-ID'}"
    return printable(f"{text} from <{known.get('sender', '')}>")


def _parts(event: Event) -> Iterator[Part]:
    fields = event.fields
    kind, _, word = event.name.partition(".")
    if kind in {"message", "verdict"} and word not in {"not_kept", "refused"}:
        yield from _judged(kind, word, fields)
    elif kind == "replay":
        yield "replay", f"{word}: {_seconds(fields.get('seconds'))}{_facts(fields)}"
        yield from _dialogue("", fields)
        yield from _replied(fields)
    elif kind == "operator":
        yield "operator", f"{word}{_facts(fields)}"
        yield from _replied(fields)
    else:
        yield kind, f"{word}{_facts(fields)}"
        yield from _replied(fields)
    trace = fields.get("trace")
    if isinstance(trace, str):
        yield from (("", text) for text in trace.rstrip().split("\n"))


def _judged(kind: str, word: str, fields: Mapping[str, Any]) -> Iterator[Part]:
    """What a door did with a message."""
    door = f"{fields.get('door', '?')} door" if kind == "message" else "verdict door"
    yield "arrived", _arrival(door, fields)
    if facts := _facts(fields):
        yield "facts", facts.removeprefix(": ")
    if "verdict" in fields:
        reasons = ", ".join(map(str, fields.get("reasons") or ()))
        reply = f": {fields['reply']}" if fields.get("reply") else ""
        yield "verdict", f"{fields['verdict']}{f' ({reasons})' if reasons else ''}{reply}"
    if kind == "message":
        yield from _dialogue("attempt", fields)
        yield word, f"in {_seconds(fields.get('seconds'))}"
        yield from _replied(fields)


def _arrival(door: str, fields: Mapping[str, Any]) -> str:
    client = fields.get("client") or "unknown"
    more = [f"{key} {fields[key]}" for key in ("host", "helo", "user", "tls") if fields.get(key)]
    origin = f", as {fields['origin']} says" if fields.get("origin") not in {None, "unknown"} else ""
    size = f", {said_octets(fields['bytes'])}" if isinstance(fields.get("bytes"), int) else ""
    peer = f" from {fields['peer']}" if fields.get("peer") else ""
    told = f" ({', '.join(more)})" if more else ""
    return f"at the {door}{peer}: from <{fields.get('sender', '')}>, client {client}{told}{origin}{size}"


def _facts(fields: Mapping[str, Any]) -> str:
    """What else is known, behind a colon."""
    known = [f"{key} {_said(value)}" for key, value in fields.items() if key not in _TOLD and value not in ("", [], {})]
    return f": {', '.join(known)}" if known else ""


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key}: {_said(inner)}' for key, inner in value.items())})"
    if isinstance(value, list | tuple):
        return " ".join(map(_said, value))
    return str(value)


def _dialogue(word: str, fields: Mapping[str, Any]) -> Iterator[Part]:
    """What was said to Mailman in an attempt that failed."""
    dialogue = fields.get("dialogue")
    if isinstance(dialogue, list):
        yield word, "to Mailman:"
        yield from (("", f"  {said}") for said in dialogue)


def _replied(fields: Mapping[str, Any]) -> Iterator[Part]:
    recipients = fields.get("recipients")
    if isinstance(recipients, Mapping):
        yield from (("", f"  {recipient}: {said}") for recipient, said in recipients.items())
    elif isinstance(recipients, list):
        yield from (("", f"  {recipient}") for recipient in recipients)


def _total(fields: Mapping[str, Any]) -> float:
    """The seconds from its arrival to its event."""
    took = fields.get("seconds")
    total = took.get("total") if isinstance(took, Mapping) else None
    return float(total) if isinstance(total, int | float) else 0.0


def _seconds(took: object) -> str:
    """How long it took, and which stage how long."""
    stages = dict(took) if isinstance(took, Mapping) else {}
    total = stages.pop("total", None)
    parts = ", ".join(f"{stage} {seconds:g} s" for stage, seconds in stages.items())
    if total is None:
        return parts or "not tried"
    return f"{total:g} s" + f" ({parts})" * bool(parts)


def _now(one: Listed, now: float) -> Iterable[str]:
    for person in one.recipients:
        tries = f", {person.attempts} tries" if person.attempts else ""
        again = f", next {following(person, now)}" if following(person, now) != "-" else ""
        last = f", last {ago(person.last_attempt, now)}" if person.last_attempt is not None else ""
        yield f"{person.address}: {person.state}{tries}{last}{again}: {person.reply or 'no reply'}"
