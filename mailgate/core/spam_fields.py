"""The header fields that tell Mailman, list owners and readers what a spam scan came to (DESIGN §7).

Each is lines of printable ASCII within RFC 5322's limits, whatever the scorer (or the mail that it quotes) says.
Every message has X-Mailgate-Scan, every scored one X-Spam-Status; the score, the report and the flag stand only in
messages that are tagged, so a list's filter may ask whether X-Spam-Score is there.
"""

from __future__ import annotations

import textwrap
from functools import lru_cache

from mailgate.core import headers
from mailgate.core.scan import Scored, Skipped, Unscored
from mailgate.core.spam import Thresholds, score_and_bar, tagged

SCAN = "X-Mailgate-Scan"
_WIDTH = 78  # RFC 5322 §2.1.1
_MOST = 100  # lines of a report; SpamAssassin's longest have some forty


def of_score(scan: Scored, thresholds: Thresholds) -> bytes:
    """The fields for a scored message with these thresholds."""
    spam = tagged(scan.score, thresholds)
    marks = _score(scan) + _report(scan.report) + headers.field("X-Spam-Flag", "YES") if spam else b""
    return marks + _status(scan, thresholds, spam=spam) + headers.field(SCAN, "scored")


def without_score(scan: Unscored | Skipped) -> bytes:
    """The field for a message that has no score."""
    return _without_score("skipped" if isinstance(scan, Skipped) else "unscored", scan.reason)


@lru_cache(maxsize=16)  # there are fewer, and with engine = "off" every message has it
def _without_score(word: str, reason: str) -> bytes:
    return headers.field(SCAN, f"{word}; reason={reason}")


def _score(scan: Scored) -> bytes:
    return headers.field("X-Spam-Score", score_and_bar(scan.score))


def _status(scan: Scored, thresholds: Thresholds, *, spam: bool) -> bytes:
    required = f" required={thresholds.lowest:.1f}" if thresholds.lowest else ""
    return headers.field("X-Spam-Status", f"{'Yes' if spam else 'No'}, score={scan.score:.1f}{required}")


def _report(report: str) -> bytes:
    """X-Spam-Report, folded; nothing if the report says nothing."""
    ascii_text = report.encode("ascii", "replace").decode("ascii")
    lines = ["".join(c if c.isprintable() else " " for c in line).rstrip() for line in ascii_text.split("\n")]
    folded: list[str] = []
    for line in filter(str.strip, lines):
        first = "" if folded else "X-Spam-Report: "
        folded += textwrap.wrap(
            line if folded else line.lstrip(),
            _WIDTH,
            initial_indent=first or " ",
            subsequent_indent=" ",
            break_on_hyphens=False,
        )
        if len(folded) > _MOST:
            folded[_MOST:] = [" (the rest of the report is left out)"]
            break
    return "".join(f"{line}\r\n" for line in folded).encode("ascii")
