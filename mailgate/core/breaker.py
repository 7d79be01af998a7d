"""A circuit breaker with a slow opening, as a state machine without a clock of its own.

Closed: everything may go. Open: nothing may go, only probes; each message is spooled at once instead of waiting for
a time-out. A probe that is answered closes it again, but slowly: at first one delivery at a time may go, and each
that succeeds allows one more, so a Mailman that has just come back is not run over by all that has waited.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Breaker:
    """`width` is how many deliveries may go at once when all is well; `allowed` how many may go now (0 = open)."""

    width: int
    allowed: int = -1
    reason: str = ""

    def __post_init__(self) -> None:
        if self.allowed < 0:
            self.allowed = self.width

    @property
    def is_open(self) -> bool:
        return self.allowed == 0

    def resize(self, width: int) -> None:
        """From now on so many at once when all is well."""
        self.allowed = width if self.allowed == self.width else min(self.allowed, width)
        self.width = width

    def succeeded(self) -> None:
        """A delivery was answered (whatever the answer said): the next hop lives."""
        if 0 < self.allowed < self.width:
            self.allowed += 1

    def failed(self, reason: str) -> bool:
        """The next hop was not reached, or did not answer in time. True if this opened the breaker."""
        was_open, self.allowed, self.reason = self.is_open, 0, reason
        return not was_open

    def probed(self) -> bool:
        """A probe was answered. True if this closed the breaker (to one at a time)."""
        if not self.is_open:
            return False
        self.allowed, self.reason = 1, ""
        return True
