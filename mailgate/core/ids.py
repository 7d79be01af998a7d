"""Gate ids: the name of one message in every reply, log line, header and table."""

from __future__ import annotations

from functools import lru_cache

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u to misread on the phone
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]


def gate_id(now: float, entropy: int) -> str:
    """The id of a message that came in at `now` (seconds since the epoch), with 40 bits of `entropy`.

    Eighteen characters; ids of different milliseconds sort by time. Unique as long as `entropy` is random.
    """
    random = "".join([_PAIRS[entropy >> shift & 1023] for shift in (30, 20, 10, 0)])
    return _time(int(now * 1000)) + random


@lru_cache(maxsize=1)  # many a message comes in the same millisecond
def _time(milliseconds: int) -> str:
    return "".join([_PAIRS[milliseconds >> shift & 1023] for shift in (40, 30, 20, 10, 0)])
