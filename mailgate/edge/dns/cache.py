"""What the DNS said lately: bounded in entries and in octets, kept as long as the DNS allows and no longer than we do.

A failure is kept, too, if only for seconds (RFC 9520 §3.2): a domain whose servers are dead costs its time once, not
for each message that names it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from mailgate.core.auth import RecordType, Resolved

_ENTRIES = 4096
_OCTETS = 4096  # of one answer; a larger one is asked for again each time: 16 MiB for all of it at most
_LONGEST = 3600.0  # seconds; who corrects a record waits no longer for us
_LONGEST_NOTHING = 900.0  # RFC 2308 §5: "nothing" is believed for hours at most, and we need less
_FAILURE = 5.0  # seconds

Key = tuple[str, RecordType]


class Cache:
    """The answers by name and type; the one that was not asked for longest goes first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, tuple[float, Resolved]] = OrderedDict()

    def find(self, key: Key, now: float) -> Resolved | None:
        """What is known at `now` (seconds on the loop's clock)."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept[0] <= now:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return kept[1]

    def keep(self, key: Key, resolved: Resolved, ttl: float, now: float) -> None:
        """Keep an answer for `ttl` seconds, or for less."""
        if sum(map(len, resolved.records)) > _OCTETS:
            return
        longest = _LONGEST if resolved.answer == "found" else _LONGEST_NOTHING if resolved.known else _FAILURE
        self._kept[key] = (now + min(ttl, longest), replace(resolved, cached=True))
        self._kept.move_to_end(key)
        while len(self._kept) > _ENTRIES:
            self._kept.popitem(last=False)
