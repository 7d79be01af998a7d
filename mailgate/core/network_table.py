"""The look-up: which sets list an address, answered by a binary search in sorted arrays.

Duty: all networks of all sets become stretches of addresses that the same sets list, so a look-up is one search however
networks lie within one another, and a set may list ranges as well as networks. The whole is one string of octets: it
is written to disk and read again in one piece, and a new one takes the place of the old between two messages. To read
it makes next to nothing of it: what holds the interpreter for long holds up the mail.
A million networks take 16 MiB (IPv4) to 40 MiB (IPv6) in it.
How it fails: octets that are not what `build` made are a ValueError.
"""

from __future__ import annotations

import heapq
import json
import sys
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from typing import Any, Literal, NamedTuple

from mailgate.core.networks import V4_MOST, V6_MOST, NetworkSet, Span

_MAGIC = b"mailgate networks 2 " + sys.byteorder.encode() + b"\n"
_LOW = 2**64 - 1
# Of the columns: first and cover of IPv4; high and low half of the first and cover of IPv6; set and expiry of each
# listing; where the listings of each cover begin (and the last end), and these; how many entries each listing has, as
# tables of older versions do not say.
_KINDS: tuple[Literal["I", "Q"], ...] = ("I", "I", "Q", "Q", "I", "I", "Q", "I", "I", "I")


class Listing(NamedTuple):
    """A set that lists an address, and until when (seconds since the epoch; 0: for ever)."""

    of: NetworkSet
    expires: int


@dataclass(frozen=True, slots=True)
class ListFile:
    """A file as it was when it was read last. `version` tells it from what it is at another time. `broken`: why this
    version can't be used, "" if it can; what is listed is then what was read before, if anything was. `read`: when that
    was (seconds since the epoch). `bad`: how many entries were skipped, `problems`: the first of them.
    """

    name: str
    version: str
    broken: str = ""
    read: float = 0.0
    bad: int = 0
    problems: tuple[str, ...] = ()


class Table:
    """All sets and what they list. Nothing of it ever changes."""

    def __init__(self, octets: bytes) -> None:
        """From what `build` made. Raises ValueError."""
        try:
            header, columns = _unpacked(octets)
            self.made = float(header["made"])
            self.files = tuple(ListFile(**one | {"problems": tuple(one["problems"])}) for one in header["files"])
            self.sets = tuple(map(_set, header["sets"]))
            self._first4, self._cover4, self._high6, self._low6, self._cover6, *listings = columns
            self._set_of, self._expires, self._begins, self._listed, *counts = listings
            self._counts = counts[0] if counts else ()
        except (KeyError, TypeError, IndexError, AttributeError, UnicodeDecodeError) as error:
            raise ValueError(f"no table of networks: {error!r}") from error
        self.size = len(octets)

    @property
    def expiries(self) -> Iterator[int]:
        """When something of it ends; in no order."""
        return filter(None, self._expires)

    def living(self, now: float) -> tuple[int, ...]:
        """How many networks each of `sets` has that have not expired (of a file that is broken: about as many)."""
        ended: Counter[int] = Counter()
        for of, expires, count in zip(self._set_of, self._expires, self._counts, strict=False):
            if 0 < expires <= now:
                ended[of] += count
        return tuple(max(one.entries - ended[number], 0) for number, one in enumerate(self.sets))

    def find(self, family: int, address: int, now: float) -> tuple[NetworkSet, ...]:
        """The sets that list an address, each once."""
        if family == 4:
            cover = self._cover4[bisect_right(self._first4, address) - 1]
        else:
            high = address >> 64
            at = bisect_right(self._high6, high)
            if self._high6[at - 1] == high:  # of those with the same upper half, the lower half decides
                at = bisect_right(self._low6, address & _LOW, bisect_left(self._high6, high, 0, at), at)
            cover = self._cover6[at - 1]
        if not cover:
            return ()
        listed = self._listed[self._begins[cover] : self._begins[cover + 1]]
        found = dict.fromkeys(self._set_of[one] for one in listed if not 0 < self._expires[one] <= now)
        return tuple(self.sets[number] for number in found)

    def _listings(self, cover: int) -> tuple[Listing, ...]:
        listed = self._listed[self._begins[cover] : self._begins[cover + 1]]
        return tuple(Listing(self.sets[self._set_of[one]], self._expires[one]) for one in listed)

    def stretches(self) -> Iterator[tuple[Span, tuple[Listing, ...]]]:
        """All that is listed, in order: each stretch with the sets that list it."""
        firsts6 = ((high << 64) | low for high, low in zip(self._high6, self._low6, strict=True))
        known: dict[int, tuple[Listing, ...]] = {}
        for family, firsts, covers, most in (
            (4, self._first4, self._cover4, V4_MOST),
            (6, list(firsts6), self._cover6, V6_MOST),
        ):
            for number, cover in enumerate(covers):
                if cover:
                    last = firsts[number + 1] - 1 if number + 1 < len(firsts) else most
                    if cover not in known:
                        known[cover] = self._listings(cover)
                    yield Span(family, firsts[number], last), known[cover]


class Listed:
    """What is to be in a table, gathered entry by entry."""

    def __init__(self) -> None:
        self._listings: dict[Listing, int] = {}
        self._latest: tuple[Listing | None, int] = None, 0
        self._spans: dict[int, tuple[list[int], list[int], array[int]]] = {
            4: ([], [], array("I")),
            6: ([], [], array("I")),
        }

    @property
    def count(self) -> int:
        """How many entries there are."""
        return len(self._spans[4][0]) + len(self._spans[6][0])

    def add(self, span: Span, of: NetworkSet, expires: int) -> None:
        """These addresses are listed so."""
        latest, number = self._latest
        if latest is None or latest.of is not of or latest.expires != expires:  # mostly it is the one before
            latest = Listing(of, expires)
            number = self._listings.setdefault(latest, len(self._listings))
            self._latest = latest, number
        firsts, lasts, listings = self._spans[span.family]
        firsts.append(span.first)
        lasts.append(span.last)
        listings.append(number)

    def mark(self) -> tuple[int, int, int]:
        """How far it has come, for `back_to`."""
        return len(self._spans[4][0]), len(self._spans[6][0]), len(self._listings)

    def back_to(self, mark: tuple[int, int, int]) -> None:
        """Take back what was added since."""
        for family, length in ((4, mark[0]), (6, mark[1])):
            for column in self._spans[family]:
                del column[length:]
        while len(self._listings) > mark[2]:
            self._listings.popitem()
        self._latest = None, 0

    def built(self, sets: Sequence[NetworkSet], files: Sequence[ListFile], made: float) -> bytes:
        """The octets of the table. `sets` are all there are, also those that list nothing; how many entries each has
        is counted where it does not say so itself.
        """
        covers: dict[tuple[int, ...], int] = {(): 0}
        first4, cover4 = _flat(*self._spans[4], V4_MOST, covers)
        first6, cover6 = _flat(*self._spans[6], V6_MOST, covers)
        listings, numbers = list(self._listings), {one: number for number, one in enumerate(sets)}
        entries: Counter[NetworkSet] = Counter()
        counts = Counter(chain(self._spans[4][2], self._spans[6][2]))
        for number, count in counts.items():
            entries[listings[number].of] += count
        header = {
            "made": made,
            "files": [asdict(one) for one in files],
            "sets": [asdict(one) | {"entries": one.entries or entries[one]} for one in sets],
        }
        halves = (array("Q", (one >> 64 for one in first6)), array("Q", (one & _LOW for one in first6)))
        of = array("I", (numbers[one.of] for one in listings)), array("Q", (one.expires for one in listings))
        begins = array("I", accumulate(map(len, covers), initial=0))
        listed = array("I", chain.from_iterable(covers))
        each = array("I", (counts[number] for number in range(len(listings))))
        return _packed(header, (array("I", first4), cover4, *halves, cover6, *of, begins, listed, each))


def _flat(
    firsts: list[int], lasts: list[int], listings: array[int], most: int, covers: dict[tuple[int, ...], int]
) -> tuple[list[int], array[int]]:
    """Where each stretch begins, and the number of its cover: of the listings that hold from there on."""
    begins, found = [0], array("I", [0])
    until: dict[int, int] = {}  # of each listing that holds, its last address
    ends: list[tuple[int, int]] = []

    def mark(at: int) -> None:
        cover = covers.setdefault(tuple(sorted(until)), len(covers))
        if begins[-1] == at:
            begins.pop()
            found.pop()
        if not found or found[-1] != cover:
            begins.append(at)
            found.append(cover)

    def end_before(limit: int) -> None:
        while ends and ends[0][0] < limit:
            last, listing = heapq.heappop(ends)
            if until.get(listing) == last:  # else another one of this listing goes on
                del until[listing]
                if last < most:
                    mark(last + 1)

    for number in sorted(range(len(firsts)), key=firsts.__getitem__):
        first, last, listing = firsts[number], lasts[number], listings[number]
        end_before(first)
        if until.get(listing, -1) < last:
            until[listing] = last
            heapq.heappush(ends, (last, listing))
            mark(first)
    end_before(most + 1)
    return begins, found


def _packed(header: dict[str, Any], columns: Iterable[array[int]]) -> bytes:
    columns = tuple(columns)
    text = json.dumps(header | {"lengths": [len(one) for one in columns]}).encode()
    body = len(text).to_bytes(8, "big") + text + b"".join(one.tobytes() for one in columns)
    return _MAGIC + zlib.crc32(body).to_bytes(4, "big") + body


def _unpacked(octets: bytes) -> tuple[Any, list[memoryview[int]]]:
    view = memoryview(octets)
    if view[: len(_MAGIC)] != _MAGIC:
        raise ValueError("no table of networks, or another version's")
    body = view[len(_MAGIC) + 4 :]
    if len(body) < 8 or zlib.crc32(body) != int.from_bytes(view[len(_MAGIC) : len(_MAGIC) + 4], "big"):
        raise ValueError("a table of networks that is damaged")
    end = 8 + int.from_bytes(body[:8], "big")
    header = json.loads(bytes(body[8:end]))
    columns = []
    if len(header["lengths"]) not in {len(_KINDS) - 1, len(_KINDS)}:
        raise ValueError("another version's table of networks")
    for kind, length in zip(_KINDS, header["lengths"], strict=False):
        begin, end = end, end + length * array(kind).itemsize
        columns.append(body[begin:end].cast(kind))
    return header, columns


def _set(tree: dict[str, Any]) -> NetworkSet:
    contexts = tree["contexts"]
    return NetworkSet(**tree | {"contexts": None if contexts is None else tuple(contexts)})
