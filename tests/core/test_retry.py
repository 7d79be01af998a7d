"""Backoff: doubles, is capped, is spread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.retry import delay


@pytest.mark.parametrize(
    ("attempts", "chance", "seconds"),
    [(1, 0.5, 10), (2, 0.5, 20), (3, 0.5, 40), (7, 0.5, 640), (8, 0.5, 900), (10_000, 0.5, 900)],
)
def test_it_doubles_up_to_the_most(attempts: int, chance: float, seconds: float) -> None:
    assert delay(attempts, 10, 900, chance) == seconds


def test_chance_spreads_it_over_a_quarter_either_way() -> None:
    assert [delay(1, 10, 900, chance) for chance in (0, 0.25, 0.5, 1)] == [7.5, 8.75, 10, 12.5]


@given(st.integers(1, 10**9), st.floats(0.1, 100), st.floats(100, 10**5), st.floats(0, 1))
def test_it_never_waits_longer_than_a_quarter_above_the_most(
    attempts: int, first: float, most: float, chance: float
) -> None:
    assert 0.75 * first <= delay(attempts, first, most, chance) <= 1.25 * most
