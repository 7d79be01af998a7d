"""What was said to the next hop in a transaction and what it answered, for people who wonder why it failed.

Written down as octets and replies while it goes on, which costs next to nothing; made into lines only if it is told.
"""

from __future__ import annotations

from itertools import zip_longest

from mailgate.core.envelope import printable
from mailgate.core.reply import Reply

_MOST = 100  # lines; of more, recipients that were accepted are only counted


class Dialogue:
    """Each command in `said` has its reply in `heard`, in the same order; the last ones may lack theirs."""

    __slots__ = ("heard", "said")

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.heard: list[Reply] = []

    def lines(self, trouble: str) -> tuple[str, ...]:
        """A line for each command that was answered, and for the first that was not; in the end `trouble`, if any."""
        pairs = list(zip_longest(self.said, self.heard))[: len(self.heard) + 1]
        told = pairs if len(pairs) <= _MOST else [pair for pair in pairs if not _accepted(*pair)]
        lines = [_line(*pair) for pair in told[:_MOST]]
        if len(told) < len(pairs):
            lines.append(f"({len(pairs) - len(told)} recipients more were accepted)")
        return (*lines, f"({trouble})") if trouble else tuple(lines)


def _accepted(command: bytes | None, reply: Reply | None) -> bool:
    return bool(command and command.startswith(b"RCPT") and reply and reply.positive)


def _line(command: bytes | None, reply: Reply | None) -> str:
    asked = printable((command or b"").decode("utf-8", "surrogateescape").rstrip("\r\n")) or "(not asked for)"
    return f"{asked} -> {reply or 'no reply'}"
