"""The digests of a body that DKIM and ARC sign, taken in one pass over pieces of it. RFC 6376 §3.4.3 to §3.4.5.

Duty: time linear in the octets whatever they are, and no step longer than its piece: a line of a million blanks, or a
million empty lines, costs what text does. Nothing of the body is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_TABS_ARE_BLANKS = bytes.maketrans(b"\t", b" ")


def one_blank(data: bytes) -> bytes:
    """The octets with a blank for each run of blanks and tabs. Each look halves the runs; a pattern takes ten times as
    long where there are many.
    """
    data = data.translate(_TABS_ARE_BLANKS)
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data


class BodyDigests:
    """SHA-256 of the canonical body: of all of it, and of its first octets for each of `limits` (l=)."""

    def __init__(self, *, relaxed: bool, limits: Iterable[int] = ()) -> None:
        self._relaxed = relaxed
        self._hash = hashlib.sha256()
        self._length = 0
        self._end = self._hash.copy()  # where the body ends if only empty lines follow
        self._end_length = 0
        self._open = False  # does a line stand without its end?
        self._held = b""  # what the next piece may change
        self._limits = sorted(set(limits), reverse=True)
        self._limited: dict[int, bytes] = {}

    def update(self, piece: bytes) -> None:
        """Go on with the next octets of the body."""
        data = self._held + piece
        if self._relaxed:
            data = one_blank(data).replace(b" \r\n", b"\r\n")
        keep = len(data)
        keep -= data.endswith(b"\r", 0, keep)
        keep -= self._relaxed and data.endswith(b" ", 0, keep)
        self._held = data[keep:]
        self._take(data[:keep])

    def finish(self) -> None:
        """The body ends here."""
        self._take(b"" if self._held == b" " else self._held)  # blanks at the end of a line
        if self._open:
            self._line_end()
        elif not (self._relaxed or self._end_length):  # §3.4.3: an empty body is an empty line
            self._hash, self._length = hashlib.sha256(), 0
            self._line_end()

    @property
    def length(self) -> int:
        """Octets of the canonical body."""
        return self._end_length

    def digest(self, limit: int | None = None) -> bytes | None:
        """The digest; None if there are less than `limit` octets (§3.5: l= must not be larger)."""
        if limit is None or limit == self._end_length:
            return self._end.digest()
        return self._limited.get(limit) if limit < self._end_length else None

    def _take(self, data: bytes) -> None:
        empty = _line_ends(data)
        if len(data) > empty:
            self._add(data[: len(data) - empty])
            self._open = True
        if empty and self._open:
            self._line_end()
            empty -= 2
        self._add(data[len(data) - empty :])

    def _line_end(self) -> None:
        self._add(b"\r\n")
        self._end, self._end_length, self._open = self._hash.copy(), self._length, False

    def _add(self, data: bytes) -> None:
        start, self._length = self._length, self._length + len(data)
        while self._limits and self._limits[-1] <= self._length:
            limit = self._limits.pop()
            part = self._hash.copy()
            part.update(data[: limit - start])
            self._limited[limit] = part.digest()
        self._hash.update(data)


def _line_ends(data: bytes) -> int:
    """How many octets at the end are CRLFs and nothing else."""
    rest = data[len(data.rstrip(b"\r\n")) :]
    broken = max(rest.rfind(b"\r\r"), rest.rfind(b"\n\n"))
    rest = rest[broken + 1 :]
    return 0 if rest.endswith(b"\r") else len(rest) - rest.startswith(b"\n")
