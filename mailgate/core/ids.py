"""Gate ids: the name of one message in every reply, log line, header and table."""

from __future__ import annotations

from functools import lru_cache

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u to misread on the phone
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]


def gate_id(now: float, entropy: int) -> str:
    """The id of a message that came in at `now` (seconds since the epoch), with 40 bits of `entropy`.

    Eighteen characters; ids of different milliseconds sort by time. Unique as long as `entropy` is random.
    """
    time, pair = int(now * 1000), _PAIRS
    return (
        _quarter_hour(time >> 20)
        + pair[time >> 10 & 1023]
        + pair[time & 1023]
        + pair[entropy >> 30 & 1023]
        + pair[entropy >> 20 & 1023]
        + pair[entropy >> 10 & 1023]
        + pair[entropy & 1023]
    )


@lru_cache(maxsize=1)
def _quarter_hour(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in (20, 10, 0)])
