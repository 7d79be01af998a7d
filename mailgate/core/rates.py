"""How fast counters grow: they are noted now and then, and compared with what was noted before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_Key = tuple[str, ...]
_MOST = 64  # notes that are kept


@dataclass(slots=True)
class Rates:
    """Sums by key at times (seconds of one monotonic clock). Any thread may ask."""

    notes: tuple[tuple[float, Mapping[_Key, float]], ...] = field(default=())

    def note(self, now: float, sums: Mapping[_Key, float]) -> None:
        """These are the sums now."""
        self.notes = (*self.notes[-_MOST + 1 :], (now, sums))

    def per_minute(self, now: float, sums: Mapping[_Key, float], back: float) -> tuple[float, dict[_Key, float]]:
        """How much was added a minute in the last `back` seconds, and the seconds that this truly speaks of: as many
        as there are notes for. Only keys that grew are there.
        """
        notes = self.notes
        if not notes:
            return 0.0, {}
        then, before = next((note for note in reversed(notes) if now - note[0] >= back), notes[0])
        seconds = now - then
        if seconds <= 0:
            return 0.0, {}
        grown = {key: value - before.get(key, 0.0) for key, value in sums.items()}
        return seconds, {key: 60 * more / seconds for key, more in grown.items() if more > 0}
