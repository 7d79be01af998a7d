"""The protocol of Exim's `spam` condition, both variants: what is asked (RSPAMC, SPAMC) and how it is answered.

Duty: a question is understood completely or refused with BadQuestion; an answer is what Exim's two scanf formats take,
and no more than MAX_ANSWER octets (Exim copies it into 32600 without looking). A line of a report that quotes the mail
can't be taken for one of ours. The questions are those of Exim 4.96; the words are SpamAssassin's, spamd/PROTOCOL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mailgate.core import headers, origin
from mailgate.core.envelope import Client, Envelope, address_text, printable
from mailgate.core.reply import Reply
from mailgate.core.scan import Scan, Scored, told
from mailgate.core.spam import Thresholds, over, tagged
from mailgate.core.verdict import Action, Decision

MAX_HEAD = 512 * 1024  # octets of a question before the message: a thousand recipients with long names
MAX_ANSWER = 16 * 1024  # octets
MAX_FIELDS = 10_000  # of a question: 10 ms of work
_REPORT_LINES = 100
_REPORT_WIDTH = 120  # octets
_NEVER = 999_999.0  # the score of a threshold that no message reaches
_NOBODY = Client()
_FIRST_LINE = re.compile(r"([A-Z]{1,16}) (RSPAMC|SPAMC)/(\d)\.(\d)")
_LENGTH = re.compile(r"[0-9]{1,15}")

Verb = Literal["PING", "CHECK", "SYMBOLS", "REPORT"]
Variant = Literal["RSPAMC", "SPAMC"]

# sysexits(3), as spamd says them.
_EX_TEMPFAIL, _EX_PROTOCOL = "75 EX_TEMPFAIL", "76 EX_PROTOCOL"


class BadQuestion(Exception):
    """Not a question that can be answered; the text says why. `variant` is the one to say so in."""

    def __init__(self, why: str, variant: Variant = "SPAMC") -> None:
        super().__init__(why)
        self.variant: Variant = variant


@dataclass(frozen=True, slots=True)
class Question:
    """`length` is that of the message's copy in octets. `envelope` is None where the question does not say it (SPAMC);
    `exim_id` and `client` are then unknown, too. `version` is the protocol's, 1.2 as 12.
    """

    verb: Verb
    variant: Variant
    version: int
    length: int = 0
    envelope: Envelope | None = None
    exim_id: str = ""
    client: Client = _NOBODY


@dataclass(frozen=True, slots=True)
class Finding:
    """What the story found out: the decision for all recipients together, and what it rests on."""

    gate_id: str
    decision: Decision
    scan: Scan | None
    thresholds: Thresholds


# the question


def question(head: bytes) -> Question:
    """The question whose first lines these are, up to the empty one. Raises BadQuestion."""
    first, *lines = address_text(head).removesuffix("\r\n\r\n").split("\r\n")
    found = _FIRST_LINE.fullmatch(first)
    if not found:
        raise BadQuestion(f"not a question: {printable(first[:80])}")
    variant: Variant = "RSPAMC" if found[2] == "RSPAMC" else "SPAMC"
    version = 10 * int(found[3]) + int(found[4])
    if bare_lf(head):
        raise BadQuestion("a line without CRLF", variant)
    if len(lines) > MAX_FIELDS:
        raise BadQuestion(f"more than {MAX_FIELDS} lines", variant)
    verb = _verb(found[1], variant)
    values = _values(lines, variant)
    if verb == "PING":
        return Question(verb, variant, version)
    length = values.get("content-length", [""])[0]
    if not _LENGTH.fullmatch(length):
        raise BadQuestion("no Content-length", variant)
    if variant == "SPAMC":
        return Question(verb, variant, version, int(length))
    exim_id = values.get("queue-id", [""])[0]
    return Question(
        verb,
        variant,
        version,
        int(length),
        _envelope(values),
        exim_id if headers.is_exim_id(exim_id) else "",
        _client(values),
    )


def bare_lf(head: bytes) -> bool:
    """Is there a LF without CR? Exim sends a question that its socket does not take at once without its end, and goes
    on with the message's copy, whose lines end with LF: the empty line that one would wait for never comes.
    """
    return head.count(b"\n") != head.count(b"\r\n")


def _verb(word: str, variant: Variant) -> Verb:
    match word:
        case "PING" | "CHECK" | "SYMBOLS" | "REPORT":
            return word
    raise BadQuestion(f"{word} is not spoken here", variant)


def _values(lines: list[str], variant: Variant) -> dict[str, list[str]]:
    """The fields by name, in lower case. What is said once must not be said twice: one of the two is a stranger's."""
    values: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadQuestion(f"not a field: {printable(line[:80])}", variant)
        values.setdefault(name.strip().lower(), []).append(value.strip(" \t"))
    for name in ("content-length", "queue-id", "from", "recipient-number", "helo", "hostname", "ip", "user"):
        if len(values.get(name, ())) > 1:
            raise BadQuestion(f"{name} is said twice", variant)
    return values


def _envelope(values: dict[str, list[str]]) -> Envelope | None:
    """Who it is from and for; None if that is not said."""
    recipients = tuple(map(_path, values.get("rcpt", ())))
    number = values.get("recipient-number", [str(len(recipients))])[0]
    if number != str(len(recipients)):
        raise BadQuestion(f"{len(recipients)} recipients, not {printable(number[:20])}", "RSPAMC")
    if "from" not in values and not recipients:
        return None
    return Envelope(_path(values.get("from", [""])[0]), recipients)


def _path(text: str) -> str:
    return text[1:-1] if text.startswith("<") and text.endswith(">") else text


def _client(values: dict[str, list[str]]) -> Client:
    said = {name: printable(values.get(name, [""])[0])[:512] for name in ("ip", "helo", "hostname", "user")}
    ip = origin.address(said["ip"])
    local = "ip" not in values and "queue-id" in values  # a program on Exim's host
    return Client(ip, said["helo"], said["hostname"], said["user"], source="verdict" if ip or local else "unknown")


# the answer


def pong(asked: Question) -> bytes:
    """To PING."""
    return _line(asked.variant, "0 PONG")


def failed(variant: Variant, why: str) -> bytes:
    """When there is no answer: Exim defers, or goes on with /defer_ok."""
    return _line(variant, f"{_EX_TEMPFAIL} {why}")


def refused(bad: BadQuestion) -> bytes:
    """To what is not a question."""
    return _line(bad.variant, f"{_EX_PROTOCOL} {bad}")


def answer(asked: Question, found: Finding) -> bytes:
    """What was found, in the words of the question's variant."""
    lines = _ours(found)
    if isinstance(found.scan, Scored):
        lines += _report(found.scan.report)
    score, required = _score(found), _reaches(found.thresholds.lowest)
    spam, text = tagged(score, found.thresholds), _text(lines)
    if asked.variant == "RSPAMC":
        metric = f"Metric: default; {spam} {score:.4f} / {required:.4f} / {_reaches(found.thresholds.reject):.4f}"
        return _line("RSPAMC", "0 EX_OK") + _text([metric, f"Action: {action(found)}"]) + text
    if asked.version < 13:  # Exim's
        text = _text([f"{score:.4f}/{required:.4f}"]) + text
        return _line("SPAMC", "0 EX_OK") + _text([f"Content-length: {len(text)}", ""]) + text
    if asked.verb == "CHECK":
        text = b""
    fields = [f"Content-length: {len(text)}", f"Spam: {spam} ; {score:.1f} / {required:.1f}", ""]
    return _line("SPAMC", "0 EX_OK") + _text(fields) + text


def action(found: Finding) -> str:
    """What Exim is to do, in rspamd's words. What is to be held is taken here: the relay door holds it."""
    if found.decision.action is Action.REJECT:
        return "reject"
    if found.decision.action is Action.DEFER:
        return "soft reject"
    return "add header" if tagged(_score(found), found.thresholds) else "no action"


def reply(found: Finding) -> Reply | None:
    """What the client is to be told, with the gate id in it; None if it is to be told nothing."""
    said = found.decision.reply
    if said is None or found.decision.action not in {Action.REJECT, Action.DEFER}:
        return None
    return Reply(said.code, said.enhanced, f"{found.gate_id} {said.text}")


def _ours(found: Finding) -> list[str]:
    """Our own lines of the report. An ACL cuts out what it wants by the name in front."""
    said = reply(found)
    lines = [f"Message: {said}"] if said else []
    lines += [f"Id: {found.gate_id}", f"Verdict: {found.decision.action.word}"]
    if found.decision.reasons:
        lines.append(f"Reasons: {', '.join(found.decision.reasons)}")
    scan = told(found.scan)
    if scan and not isinstance(found.scan, Scored):
        lines.append(f"Scan: {scan['scan']}; reason={scan['scan_reason']}")
    return lines


def _report(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n") if line.strip()]
    if len(lines) > _REPORT_LINES:
        lines[_REPORT_LINES:] = ["(the rest is left out)"]
    ascii_lines = (line.encode("ascii", "replace").decode("ascii") for line in lines)
    return [f"Report: {line}"[:_REPORT_WIDTH] for line in ascii_lines]


def _score(found: Finding) -> float:
    return found.scan.score if isinstance(found.scan, Scored) else 0.0


def _reaches(threshold: float) -> float:
    """The least score of four digits that is above the threshold, by Exim's arithmetic (`core.spam.over`)."""
    if not threshold:
        return _NEVER
    found = round(threshold + 0.099, 4)
    return found if over(found, threshold) else found + 0.0001


def _line(variant: Variant, words: str) -> bytes:
    return _text([f"RSPAMD/1.3 {words}" if variant == "RSPAMC" else f"SPAMD/1.1 {words}"])


def _text(lines: list[str]) -> bytes:
    return "".join(f"{printable(line)}\r\n" for line in lines).encode("ascii", "backslashreplace")
