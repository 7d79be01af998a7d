"""The same failure again and again: said some times, then counted, and the count said once in a while.

Duty: a log in which a message's own line is found although everything fails. What a message came to is never held back,
nor what says that something has changed. Bounded: so many failures are told apart, others by their name only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

BURST = 10  # times that a failure is said before it is only counted
WINDOW = 60.0  # seconds for which it is counted
_MOST = 200  # failures that are told apart
_LONGEST = 200  # characters of a cause by which they are
# These name a message, whose own event says it too.
_TOLD_TWICE = frozenset({"spam.unscored", "spool.full", "spool.failed"})
_CHANGES = frozenset({"upstream.down", "spam.server.down", "valve.turned"})
_ONCE = ("daemon.", "config.", "spool.opened", "spool.replaced", "spool.reserve", "ledger.lost", "history.lost", "log.")
_VARYING = re.compile(r"[0-9]+")

Fields = Mapping[str, object]


class Again(NamedTuple):
    """An event with which the others like it are told: the fields of the last one and the count."""

    name: str
    level: str
    fields: dict[str, object]


@dataclass(slots=True)
class _Window:
    began: float
    free: int  # times that it may still be said
    level: str
    times: int = 0
    held: int = 0
    last: Fields | None = None


class Repetition:
    """Times are seconds of any clock that does not jump."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], _Window] = {}

    @property
    def counting(self) -> bool:
        """True while something may be due later."""
        return bool(self._windows)

    def admit(self, name: str, level: str, fields: Fields, now: float) -> bool:
        """Is this event, a warning or an error, to be said now?"""
        if not _is_failure(name, fields):
            return True
        key = name, _cause(fields)
        if key not in self._windows and len(self._windows) >= _MOST:
            key = name, ""
        window = self._windows.setdefault(key, _Window(now, BURST, level))
        window.times += 1
        if window.times <= window.free:
            return True
        window.held += 1
        window.last = fields
        return False

    def due(self, now: float, window: float = WINDOW) -> list[Again]:
        """What has been held back for long enough. What goes on then is only counted from its first time on."""
        told: list[Again] = []
        for key, one in list(self._windows.items()):
            if now - one.began < window:
                continue
            del self._windows[key]
            if one.held and one.last is not None:
                said = f"said {one.times} times in {max(1, round(now - one.began))} s"
                told.append(Again(key[0], one.level, {**one.last, "times": one.times, "repeated": said}))
                self._windows[key] = _Window(now, 0, one.level)
        return told


def _is_failure(name: str, fields: Fields) -> bool:
    if name in _TOLD_TWICE:
        return True
    return "id" not in fields and name not in _CHANGES and not name.startswith(_ONCE)


def _cause(fields: Fields) -> str:
    """What makes it the same failure: the cause without its numbers; of a bug, the end of its trace."""
    trace = fields.get("trace")
    cause = trace.rstrip().rpartition("\n")[2] if isinstance(trace, str) else fields.get("cause", "")
    where = fields.get("server") or fields.get("task") or fields.get("library") or fields.get("file") or ""
    return _VARYING.sub("#", f"{where} {cause}"[:_LONGEST])
