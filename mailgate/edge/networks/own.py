"""mailgate's own file of networks: plain text that verbs write and people may edit.

Promises: a verb's change is there whole or not at all, and two verbs at once lose nothing of each other's; lines that
a verb does not speak of stay as they are.
How it fails: OSError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mailgate.core import network_lists
from mailgate.core.network_lists import Entry
from mailgate.core.networks import Span, said, said_moment
from mailgate.edge.networks.writing import write

_MODE = 0o644
_HEAD = "# Networks that `mailgate networks add` lists. May be edited: NETWORK [expires=TIME] [# REASON]\n"


@dataclass(frozen=True, slots=True)
class Change:
    """What a change came to: the lines that went, which of those asked for were not listed, and how many lines more
    went because they had expired.
    """

    gone: tuple[str, ...]
    missing: tuple[Span, ...]
    expired: int


def add(file: Path, spans: Sequence[Span], reason: str, expires: int, now: float) -> Change:
    """List these, in the place of what the file says of just the same ones. `expires`: seconds since the epoch, or 0.
    Lines that have expired go.
    """
    until = f" expires={said_moment(expires)}" if expires else ""
    new = [f"{said(one)}{until} # {reason}" for one in spans]
    return _changed(file, spans, new, now)


def remove(file: Path, spans: Sequence[Span], now: float) -> Change:
    """Take out the lines that list just these, and those that have expired."""
    return _changed(file, spans, [], now)


def _changed(file: Path, spans: Sequence[Span], new: Sequence[str], now: float) -> Change:
    with _locked(file):
        text = file.read_text(encoding="utf-8") if file.exists() else _HEAD
        lines = text.split("\n")
        entries = [one for one in network_lists.read(str(file), text) if isinstance(one, Entry)] if text.strip() else []
        gone = {one.line for one in entries if one.span in spans}
        expired = {one.line for one in entries if 0 < one.expires <= now} - gone
        missing = tuple(one for one in spans if one not in {entry.span for entry in entries})
        if not (gone or expired or new):
            return Change((), missing, 0)
        kept = [line for number, line in enumerate(lines, 1) if number not in gone | expired]
        while kept and not kept[-1]:
            kept.pop()
        write(file, "".join(f"{line}\n" for line in [*kept, *new]).encode(), _MODE)
    return Change(tuple(lines[number - 1] for number in sorted(gone)), missing, len(expired))


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One change at a time, in whatever process: by a lock on the directory, since the file itself is replaced."""
    handle = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
