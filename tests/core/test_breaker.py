"""The circuit breaker: opens at once, closes slowly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.breaker import Breaker


def test_it_begins_closed_and_wide() -> None:
    breaker = Breaker(3)
    assert (breaker.is_open, breaker.allowed, breaker.reason) == (False, 3, "")


def test_a_failure_opens_it_once_and_the_last_reason_is_kept() -> None:
    breaker = Breaker(3)
    assert breaker.failed("refused")
    assert not breaker.failed("timeout")
    assert (breaker.is_open, breaker.allowed, breaker.reason) == (True, 0, "timeout")


def test_an_answer_to_what_was_under_way_does_not_close_it() -> None:
    breaker = Breaker(3)
    breaker.failed("refused")
    breaker.succeeded()
    assert breaker.is_open


def test_a_probe_closes_it_to_one_and_each_success_allows_one_more() -> None:
    breaker = Breaker(3)
    breaker.failed("refused")
    assert breaker.probed()
    assert (breaker.is_open, breaker.allowed, breaker.reason) == (False, 1, "")
    seen = []
    for _ in range(4):
        breaker.succeeded()
        seen.append(breaker.allowed)
    assert seen == [2, 3, 3, 3]


def test_a_probe_of_a_closed_one_changes_nothing() -> None:
    breaker = Breaker(3)
    assert not breaker.probed()
    assert breaker.allowed == 3


def test_a_failure_on_the_way_up_opens_it_again() -> None:
    breaker = Breaker(3)
    breaker.failed("refused")
    breaker.probed()
    breaker.succeeded()
    assert breaker.failed("refused again")
    assert (breaker.allowed, breaker.reason) == (0, "refused again")


@given(st.integers(1, 20), st.lists(st.sampled_from(["failed", "succeeded", "probed"]), max_size=40))
def test_whatever_happens_it_stays_within_its_width_and_only_a_probe_closes_it(width: int, events: list[str]) -> None:
    breaker = Breaker(width)
    for event in events:
        was_open, allowed = breaker.is_open, breaker.allowed
        if event == "failed":
            assert breaker.failed("down") is not was_open
            assert breaker.is_open
        elif event == "probed":
            assert breaker.probed() is was_open
            assert breaker.allowed == (1 if was_open else allowed)
        else:
            breaker.succeeded()
            assert breaker.allowed == (0 if was_open else min(allowed + 1, width))
        assert 0 <= breaker.allowed <= width
        assert bool(breaker.reason) is breaker.is_open


def test_it_may_begin_narrow() -> None:
    breaker = Breaker(3, allowed=1)
    breaker.succeeded()
    assert breaker.allowed == 2
