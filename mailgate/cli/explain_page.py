"""What `mailgate explain` has found, for people and for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mailgate.cli.output import Column, line, table
from mailgate.core import headers, story
from mailgate.core.auth import Authenticated, Lookup
from mailgate.core.auth_policy import skipped
from mailgate.core.envelope import printable
from mailgate.core.facts import MessageFacts
from mailgate.core.rules import Policy
from mailgate.core.scan import Scored, Skipped
from mailgate.core.units import said_octets
from mailgate.core.verdict import Decision

if TYPE_CHECKING:
    from mailgate.checking import Subject

_FACTS = (Column("FACT"), Column("FOUND"), Column("WHY", folds=True))
_LOOKUPS = (Column("ASKED FOR", folds=True), Column("TYPE"), Column("ANSWER"), Column("MS", right=True), Column("FROM"))
_SETTLED = "settled before"
_SOURCE = {"verdict": "--client"}  # whom the option names is handled as if Exim had asked about him
_TOLD = {"unknown": "nothing says it: use --client", "verdict": "told with --client"}


@dataclass(frozen=True, slots=True)
class Explained:
    """A message, what is known of it, what would become of it in the session and after acceptance, and the whole
    header fields that would stand in front.
    """

    subject: Subject
    facts: MessageFacts
    policy: Policy
    in_session: Decision
    accepted: Decision
    fields: bytes


def as_object(file: str, found: Explained) -> dict[str, Any]:
    """All of it as one object."""
    subject, facts = found.subject, found.facts
    return {
        "file": file,
        "bytes": subject.received.size,
        "message_id": _message_id(found),
        "client": {**asdict(subject.client), "source": _SOURCE.get(subject.client.source, subject.client.source)},
        "sender": subject.envelope.sender,
        "recipients": list(subject.envelope.recipients),
        "hops": facts.hops,
        "header_bounded": facts.bounded,
        "networks": [
            {"set": one.name, "file": one.file, "action": found.policy.networks.action_of(one)} for one in facts.listed
        ],
        "scan": {"result": _scan_word(facts), **(asdict(facts.scan) if facts.scan else {})},
        "auth": asdict(facts.auth) if facts.auth else None,
        "auth_skipped": _unchecked(found),
        "seconds": found.subject.took,
        "in_session": _told(found.in_session),
        "after_acceptance": _told(found.accepted),
        "headers": _fields(found),
    }


def show(file: str, found: Explained) -> None:
    """All of it on stdout."""
    table(_FACTS, _rows(file, found))
    if found.facts.auth and found.facts.auth.lookups:
        line("")
        table(
            _LOOKUPS,
            (
                (one.name, one.type, one.answer, f"{one.seconds * 1000:.0f}", _from(one))
                for one in found.facts.auth.lookups
            ),
        )
    line("")
    line(f"in the session, where Exim asks first: {_said(found.in_session)}")
    line(f"after acceptance: {_said(found.accepted)}")
    line("put in front:")
    for field in _fields(found):
        for part in field.split("\n"):
            line("  " + printable(part.replace("\t", "    ")))


def _from(one: Lookup) -> str:
    return "nobody" if one.answer == "too-many" else "cache" if one.cached else "server"


def _rows(file: str, found: Explained) -> Iterator[tuple[str, str, str]]:
    subject, facts = found.subject, found.facts
    yield "message", said_octets(subject.received.size), f"{file} {_message_id(found)}".strip()
    told = _TOLD.get(subject.client.source, f"told by {subject.client.source}")
    named = ", ".join(f"{key} {value}" for key in ("helo", "host", "user") if (value := getattr(subject.client, key)))
    yield "client", subject.client.ip or "unknown", "; ".join(filter(None, (named, told)))
    yield "from", f"<{subject.envelope.sender}>", ""
    for recipient in subject.envelope.recipients:
        yield "to", recipient, ""
    yield "hops", str(facts.hops), "" if facts.bounded else "the header is too large to look through"
    actions = [f"{one.name}: {found.policy.networks.action_of(one) or 'not for us'}" for one in facts.listed]
    yield "networks", "listed" if actions else "not listed", ", ".join(actions)
    yield "spam", _scan_word(facts), _scan_why(found)
    if facts.auth:
        yield from _vouchers(facts.auth)
    else:
        yield ("sender", "unchecked", _unchecked(found))


def _vouchers(found: Authenticated) -> Iterator[tuple[str, str, str]]:
    for spf in found.spf:
        yield "spf", spf.result, f"{spf.identity} {spf.sender or spf.domain}: {spf.why}"
    if found.dkim == ():
        yield ("dkim", "none", "not signed")
    for one in found.dkim or ():
        key = f"{one.selector} {one.algorithm}"
        part = "" if one.covered else "; only a part of the body is signed"
        yield "dkim", one.result, f"{one.domain} {key}{part}{': ' if one.why else ''}{one.why}"
    if found.dmarc:
        asked = f" p={found.dmarc.policy} at {found.dmarc.published}" if found.dmarc.published else ""
        testing = " t=y" if found.dmarc.testing else ""
        yield "dmarc", found.dmarc.result, f"{found.dmarc.domain}{asked}{testing}: {found.dmarc.why}"
    if found.arc:
        sealed = f"; sealed by {', '.join(found.arc.sealers)}" if found.arc.sealers else ""
        yield "arc", found.arc.result, found.arc.why + sealed
    if found.iprev:
        yield "iprev", found.iprev.result, ", ".join(filter(None, (found.iprev.host, found.iprev.why)))


def _unchecked(found: Explained) -> str:
    if found.facts.auth:
        return ""
    return skipped(found.policy.auth, found.subject.client) or _SETTLED


def _scan_word(facts: MessageFacts) -> str:
    if facts.scan is None:
        return "unasked"
    if isinstance(facts.scan, Scored):
        return "scored"
    return "skipped" if isinstance(facts.scan, Skipped) else "unscored"


def _scan_why(found: Explained) -> str:
    scan = found.facts.scan
    if scan is None:
        return _SETTLED
    if isinstance(scan, Scored):
        took = found.subject.took.get("spam", 0.0)
        return f"{scan.score:.1f}, {scan.required:.1f} is spam to {scan.server}; {took * 1000:.0f} ms"
    return scan.reason if isinstance(scan, Skipped) else f"{scan.reason}: {scan.detail}"


def _told(decision: Decision) -> dict[str, Any]:
    return {
        "action": decision.action.word,
        "reasons": list(decision.reasons),
        "reply": str(decision.reply or ""),
    }


def _said(decision: Decision) -> str:
    reasons = f" ({', '.join(decision.reasons)})" if decision.reasons else ""
    refuses = decision.action.name in {"REJECT", "DEFER"} and decision.reply
    return f"{decision.action.word}{reasons}{f': {decision.reply}' if refuses else ''}"


def _message_id(found: Explained) -> str:
    if not found.subject.received.bounded:
        return ""
    return story.message_id(headers.first(found.subject.message.head, b"message-id"))


def _fields(found: Explained) -> list[str]:
    """Each whole field, its lines joined by LF."""
    text = found.fields.decode("ascii").replace("\r\n", "\n").rstrip("\n")
    fields: list[str] = []
    for part in text.split("\n"):
        if part[:1] in {" ", "\t"} and fields:
            fields[-1] += f"\n{part}"
        else:
            fields.append(part)
    return fields
