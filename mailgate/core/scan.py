"""What a spam scan came to: a score, no score because something failed, or no scan because policy asks for none."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mailgate.core.envelope import printable

ALL_FAILED = "all spamd servers failed"  # Exim's words, which alerts look for, whatever the engine
MAX_REPORT = 16 * 1024  # characters of a scorer's report that are kept
_MAX_DETAIL = 500  # the same of why there was none

_SYMBOL = re.compile(r"(?m)^Symbol: ([^\s(,]+)\(")
_ABOVE_TABLE = "\n---- ---------------------- "
_IN_TABLE = re.compile(r"(?m)^ {0,3}-?\d+(?:\.\d+)? +(\w+)(?: |$)")

# "busy": all places at the servers were taken for too long. "refused": nobody listens. "timeout": no answer in time.
# "closed": the connection ended before the answer did. "garbage": an answer that makes no sense. "error": the scorer
# says that it could not. "unavailable": no server was asked, because none is believed alive.
UnscoredReason = Literal["busy", "refused", "timeout", "closed", "garbage", "error", "unavailable"]
UNSCORED_REASONS: tuple[UnscoredReason, ...] = get_args(UnscoredReason)
SkippedReason = Literal["off", "too-large", "trusted-network", "exempt-recipients"]


@dataclass(frozen=True, slots=True)
class Scored:
    """The scorer's word. `required` is the score from which the scorer itself calls it spam, `report` its text (LF
    line ends, at most MAX_REPORT characters), `server` where it was asked. A score is finite: else ValueError.
    """

    score: float
    required: float
    report: str
    server: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise ValueError(f"not a score: {self.score}")


@dataclass(frozen=True, slots=True)
class Unscored:
    """There should have been a score. `detail` is for the log."""

    reason: UnscoredReason
    detail: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """No score was asked for."""

    reason: SkippedReason


Scan = Scored | Unscored | Skipped


def report(text: str) -> str:
    """A scorer's text as Scored has it: LF line ends, no other control character, no blank ends, bounded."""
    lines = text[: 2 * MAX_REPORT].replace("\r", "").strip().split("\n")
    return "\n".join(printable(line.expandtabs().rstrip()) for line in lines)[:MAX_REPORT].rstrip()


def symbols(text: str) -> list[str]:
    """The names of the rules that hit, by a scorer's report: rspamd's symbols, or those in the table that spamd's own
    report ends with; none if it has neither, as one of a site's own may. What quotes the mail stands above the table.
    """
    if found := _SYMBOL.findall(text):
        return found
    _, line, table = text.rpartition(_ABOVE_TABLE)
    return _IN_TABLE.findall(table) if line else []


def told(scan: Scan | None) -> dict[str, object]:
    """The scan as fields of a log event; none while there was none."""
    if scan is None:
        return {}
    if isinstance(scan, Scored):
        return {"scan": "scored", "score": round(scan.score, 3), "scorer": scan.server}
    return {"scan": "skipped" if isinstance(scan, Skipped) else "unscored", "scan_reason": scan.reason}


def written(scan: Scored | Unscored) -> str:
    """The scan as text for the spool: "unscored:timeout: no answer", or "scored:" and the rest as JSON."""
    if isinstance(scan, Scored):
        return "scored:" + json.dumps([scan.score, scan.required, scan.report, scan.server])
    detail = f": {printable(scan.detail)[:_MAX_DETAIL]}" if scan.detail else ""
    return f"unscored:{scan.reason}{detail}"


def read(text: str) -> Scored | Unscored | None:
    """The scan that `written` wrote down; None for "" and for what it would not write."""
    word, _, rest = text.partition(":")
    if word == "scored":
        return _scored(rest)
    said, _, detail = rest.partition(": ")
    for reason in UNSCORED_REASONS:
        if (word, said) == ("unscored", reason):
            return Unscored(reason, detail)
    return None


def _scored(text: str) -> Scored | None:
    try:
        values: Any = json.loads(text)
        score, required, report, server = values
        return Scored(float(score), float(required), str(report), str(server))
    except (ValueError, TypeError):  # a file that somebody else wrote to: as if nothing stood there
        return None
