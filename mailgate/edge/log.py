"""Events as lines on stderr: JSON for machines, text for people. Written by a thread, so a stuck reader stalls nobody.

How it fails: when the reader does not keep up, the newest lines are dropped once _MOST wait, and the number of those
dropped is said (`log.dropped`) as soon as lines go out again. The same failure again and again is counted, and the
count said each minute (`core.repetition`).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

from mailgate.core import story
from mailgate.core.envelope import printable
from mailgate.core.redaction import redacted
from mailgate.core.repetition import WINDOW, Repetition

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3}  # sd-daemon(3)
_TROUBLE = frozenset({"warning", "error"})
_MOST = 10_000
_AT_ONCE = 100  # lines in a write
_TICK = 1.0  # seconds between two looks whether a count is due
_LEFT_OUT = frozenset({"sender_domain", "lists"})  # of the text: a person sees them in the addresses
_FIRST = ("id", "exim_id", "repeated")
_OWN_LINES = ("dialogue", "trace")

_Event = tuple[float, str, str, Mapping[str, object]]  # seconds since 1970, name, level, fields


class EventLog:
    """Writes events; `level`, `form` and `redact` (no local parts of addresses) may be changed while it runs."""

    def __init__(
        self,
        form: Literal["json", "text"] = "json",
        level: str = "info",
        stream: TextIO | None = None,
        *,
        journal: bool = False,
        redact: bool = False,
    ) -> None:
        self.form = form
        self.level = level
        self.redact = redact
        self._stream = stream or sys.stderr
        self._journal = journal
        self._waiting: deque[_Event] = deque()
        self._awake = threading.Event()
        self._closing = False
        self._dropped = 0
        self._repetition = Repetition()
        self._guard = threading.Lock()  # over the repetition
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def event(self, name: str, fields: Mapping[str, object], level: str = "info") -> None:
        """Write one event, if its level is not below ours. `fields` must not be changed afterwards."""
        if _LEVELS[level] < _LEVELS[self.level]:
            return
        if level in _TROUBLE:
            with self._guard:
                if not self._repetition.admit(name, level, fields, time.monotonic()):
                    return
        if len(self._waiting) >= _MOST:
            self._dropped += 1
            return
        self._waiting.append((time.time(), name, level, fields))
        if not self._awake.is_set():
            self._awake.set()

    def close(self) -> None:
        """Write what waits, for a second at most."""
        self._closing = True
        self._count()
        self._awake.set()
        self._thread.join(1)

    def _write(self) -> None:
        while not (self._closing and not self._waiting):
            self._awake.wait(_TICK if self._repetition.counting else None)
            self._awake.clear()
            self._count()
            while self._waiting:
                some = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]
                if self._dropped:
                    count, self._dropped = self._dropped, 0
                    some.append((time.time(), "log.dropped", "warning", {"lines": count}))
                try:
                    self._stream.write("".join(map(self._line, some)))
                    self._stream.flush()
                except (OSError, ValueError):
                    self._dropped += len(some)  # nobody reads stderr any more: the count is all that is left to keep

    def _count(self) -> None:
        """Say what was held back, if it is time for it; at the end it is."""
        with self._guard:
            due = self._repetition.due(time.monotonic(), 0.0 if self._closing else WINDOW)
        self._waiting.extend((time.time(), name, level, fields) for name, level, fields in due)

    def _line(self, event: _Event) -> str:
        when, name, level, fields = event
        form = as_json if self.form == "json" else as_text
        said = form(datetime.fromtimestamp(when, UTC), name, level, redacted(fields) if self.redact else fields)
        if self._journal:
            priority = f"<{_PRIORITY[level]}>"
            said = priority + said.replace("\n", f"\n{priority}")
        return f"{said}\n"


class Bridge(logging.Handler):
    """Lets what libraries say through Python's logging become events (`library.warning`, `library.error`)."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        fields: dict[str, object] = {"library": record.name, "text": record.getMessage()}
        if record.exc_info:
            fields["trace"] = logging.Formatter().formatException(record.exc_info)
        self._log.event(f"library.{level}", fields, level)


def as_json(now: datetime, name: str, level: str, fields: Mapping[str, object]) -> str:
    """One object a line, ASCII only, whatever the fields hold."""
    known = f'{{"time": "{now.isoformat(timespec="milliseconds")}", "level": "{level}", "event": "{name}"'
    return f"{known}, {story.as_json(fields)[1:]}" if fields else known + "}"


def as_text(now: datetime, name: str, level: str, fields: Mapping[str, object]) -> str:
    """The same for people: local time, the ids first, a line for each of a dialogue or a trace."""
    known = {key: value for key, value in fields.items() if value not in ("", [], {}, None) and key not in _LEFT_OUT}
    first = "".join(f" {printable(str(known.pop(key)))}" for key in _FIRST if key in known)
    lines = [line for key in _OWN_LINES for line in _lines(known.pop(key, ()))]
    said = "".join(f" {key}={_value(value)}" for key, value in known.items())
    local = now.astimezone()
    stamp = f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03}"
    return "\n    ".join([f"{stamp} {level:7} {name}{first}{said}", *lines])


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{printable(str(key))}: {_plain(one)}" for key, one in value.items()) + "}"
    text = _plain(value)
    return f'"{text}"' if isinstance(value, str) and " " in text else text


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_plain, value))
    return printable(str(value))


def _lines(value: object) -> list[str]:
    lines = value.rstrip().split("\n") if isinstance(value, str) else value
    return [printable(str(line)) for line in lines] if isinstance(lines, list | tuple) else [_plain(value)]
