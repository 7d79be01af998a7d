"""Octets in pieces: what a socket does to a stream, as a strategy for hypothesis; and a header block's fields."""

from __future__ import annotations

import re

from hypothesis import strategies as st


def pieces(octets: bytes, cuts: list[int]) -> list[bytes]:
    """`octets` cut at these places (any numbers; they are taken modulo the length). Pieces may be empty."""
    places = sorted(cut % (len(octets) + 1) for cut in cuts)
    return [octets[start:end] for start, end in zip([0, *places], [*places, len(octets)], strict=True)]


def one_by_one(octets: bytes) -> list[bytes]:
    """The worst cut of all."""
    return [octets[n : n + 1] for n in range(len(octets))]


CUTS = st.lists(st.integers(min_value=0, max_value=10_000), max_size=8)


def made_of(*parts: bytes, most: int = 24) -> st.SearchStrategy[bytes]:
    """Octets made of these parts in any order: finds trouble sooner than octets at random."""
    return st.lists(st.sampled_from(parts), max_size=most).map(b"".join)


def fields_of(head: bytes) -> list[bytes]:
    """A header block's fields (and lines that are none), each with its folded lines."""
    return re.findall(rb"[^\n]+(?:\n[ \t][^\n]*)*\n?|\n", head)
