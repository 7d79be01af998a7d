"""The beat of the event loop: how late it was, at worst, and for how long it has been silent."""

from __future__ import annotations

from dataclasses import dataclass

_WINDOW = 30.0  # seconds; the worst is that of this window and the one before: no scrape comes too late to see it


@dataclass(slots=True)
class Pulse:
    """`every`: seconds between two beats. Times are of one monotonic clock; any thread may ask."""

    every: float
    beaten: float
    late: float = 0.0  # seconds, at the last beat
    _turned: float = 0.0
    _worst: float = 0.0
    _before: float = 0.0

    def beat(self, now: float, late: float) -> None:
        """One beat, so many seconds after it was due."""
        if now - self._turned >= _WINDOW:
            self._before = self._worst if now - self._turned < 2 * _WINDOW else 0.0
            self._worst, self._turned = 0.0, now
        self._worst = max(self._worst, late)
        self.late, self.beaten = late, now

    def silent(self, now: float) -> float:
        """Seconds since the last beat."""
        return max(now - self.beaten, 0.0)

    def worst(self, now: float) -> float:
        """The most seconds that the loop was late within the last half minute to minute, this moment included."""
        return max(self._before, self._worst, self.silent(now) - self.every, 0.0)
