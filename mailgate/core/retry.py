"""When a recipient that could not be delivered is tried again: exponential backoff with jitter."""

from __future__ import annotations


def delay(attempts: int, first: float, most: float, chance: float) -> float:
    """Seconds until the next attempt, after `attempts` (1 or more) have failed.

    Doubles from `first` up to `most`; `chance` (0..1) spreads it over 75 % to 125 %, so that what failed together
    does not come back together.
    """
    return float(min(first * 2 ** min(attempts - 1, 30), most) * (0.75 + chance / 2))
