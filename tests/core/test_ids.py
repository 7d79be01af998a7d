"""Gate ids: sortable by time, hard to misread, safe wherever they stand."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.headers import exim_id
from mailgate.core.ids import gate_id

SHAPE = re.compile(r"[0-9a-hjkmnp-tv-z]{18}")


def test_an_id_as_it_is() -> None:
    assert gate_id(0, 0) == "000000000000000000"
    assert gate_id(0, 2**40 - 1) == "0000000000zzzzzzzz"
    assert gate_id(1_700_000_000.123, 0) == "01hf7yat3v00000000"


@given(st.floats(0, 10**11), st.integers(0, 2**64))
def test_any_time_and_any_entropy_give_the_same_shape(now: float, entropy: int) -> None:
    assert SHAPE.fullmatch(gate_id(now, entropy))


@given(st.integers(0, 10**13), st.integers(1, 10**6), st.integers(0, 2**64), st.integers(0, 2**64))
def test_ids_of_different_milliseconds_sort_by_time(early: int, later: int, one: int, other: int) -> None:
    assert gate_id(early / 1000, one) < gate_id((early + later + 1) / 1000, other)


@given(st.sets(st.integers(0, 2**40 - 1), min_size=2, max_size=2))
def test_ids_of_one_moment_differ_by_their_entropy(entropy: set[int]) -> None:
    assert len({gate_id(1_700_000_000, bits) for bits in entropy}) == 2


def test_an_id_of_ours_is_not_taken_for_exims() -> None:
    assert exim_id(f"Received: by lists.test with LMTP id {gate_id(1_700_000_000, 5)};\r\n\r\n".encode()) == ""
