"""How fast counters grow."""

import pytest

from mailgate.core.rates import Rates

A, B = ("messages", "accept"), ("messages", "reject")


@pytest.mark.parametrize(
    ("now", "sums", "told"),
    [
        (30.0, {A: 20.0, B: 3.0}, (30.0, {A: 20.0})),  # no note is as old as asked for: the oldest counts
        (70.0, {A: 20.0, B: 3.0}, (60.0, {A: 8.0})),  # the latest that is old enough
        (100.0, {A: 12.0, B: 3.0, ("new",): 4.0}, (60.0, {("new",): 4.0})),
        (0.0, {A: 12.0}, (0.0, {})),  # at once
    ],
)
def test_rates_a_minute(
    now: float, sums: dict[tuple[str, ...], float], told: tuple[float, dict[tuple[str, ...], float]]
) -> None:
    rates = Rates()
    for when, value in ((0.0, 10.0), (10.0, 12.0), (40.0, 12.0)):
        rates.note(when, {A: value, B: 3.0})
    assert rates.per_minute(now, sums, 60.0) == told


def test_before_the_first_note_nothing_is_known() -> None:
    assert Rates().per_minute(9.0, {A: 1.0}, 60.0) == (0.0, {})


def test_as_many_notes_are_kept_as_are_needed() -> None:
    rates = Rates()
    for when in range(1000):
        rates.note(float(when), {})
    assert len(rates.notes) == 64
    assert rates.notes[-1][0] == 999
