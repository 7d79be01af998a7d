"""Gate ids: the name of one message in every reply, log line, header and table."""

from __future__ import annotations

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u to misread on the phone
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]


def gate_id(now: float, entropy: int) -> str:
    """The id of a message that came in at `now` (seconds since the epoch), with 40 bits of `entropy`.

    Eighteen characters; ids of different milliseconds sort by time. Unique as long as `entropy` is random.
    """
    value = (int(now * 1000) << 40 | entropy & (1 << 40) - 1) & (1 << 90) - 1
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(80, -1, -10)])
