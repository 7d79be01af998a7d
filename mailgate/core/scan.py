"""What a spam scan came to: a score, no score because something failed, or no scan because policy asks for none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_REPORT = 16 * 1024  # characters of a scorer's report that are kept

# "refused": nobody listens. "timeout": no answer in time. "closed": the connection ended before the answer did.
# "garbage": an answer that makes no sense. "error": the scorer says that it could not. "unavailable": no server was
# asked, because none is believed alive.
UnscoredReason = Literal["refused", "timeout", "closed", "garbage", "error", "unavailable"]
SkippedReason = Literal["off", "too-large", "trusted-network", "exempt-recipients"]


@dataclass(frozen=True, slots=True)
class Scored:
    """The scorer's word. `required` is the score from which the scorer itself calls it spam, `report` its text (LF
    line ends, at most MAX_REPORT characters), `server` where it was asked.
    """

    score: float
    required: float
    report: str
    server: str


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
