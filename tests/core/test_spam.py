"""Exim's arithmetic (held against the real Exim in tests/spam), thresholds of lists, and what is not scored."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.config import parse
from mailgate.core.scan import Scored, Skipped, Unscored
from mailgate.core.spam import (
    SpamPolicy,
    Thresholds,
    exim_int,
    over,
    score_and_bar,
    skipped,
    tagged,
    thresholds,
    why_held,
)

SCORES = st.floats(allow_nan=False, allow_infinity=False)
TENTHS = st.integers(0, 10_000).map(lambda tenths: tenths / 10)
ADDRESSES = st.sampled_from(["open@lists.test", "private-a@lists.test", "private-b@lists.test", "reports@lists.test"])


def policy(**keys: object) -> SpamPolicy:
    return parse({"spam": keys}).spam.policy


@pytest.mark.parametrize(
    ("score", "tenths"),
    [
        (0, 0),
        (0.9, 9),
        (0.99, 9),
        (1.0, 10),
        (1.09, 10),
        (1.0989, 10),
        (1.099, 10),
        (1.1, 11),
        (5.99, 59),
        (6.05, 60),
        (6.1, 61),
        (-0.4, -3),
        (-1, -9),
        (-3.2, -31),
        (1000, 10_000),
        (1e300, 2**31 - 1),
        (-1e300, 1 - 2**31),
    ],
)
def test_tenths_as_exim_counts_them(score: float, tenths: int) -> None:
    assert exim_int(score) == tenths


@given(st.integers(0, 20_000))
def test_a_threshold_in_tenths_is_what_it_says(tenths: int) -> None:
    assert exim_int(tenths / 10) == tenths


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0, "0.0 (/)"),
        (0.99, "1.0 (/)"),
        (1, "1.0 (+)"),
        (1.05, "1.1 (+)"),
        (5.99, "6.0 (+++++)"),
        (7.2, "7.2 (+++++++)"),
        (-0.04, "-0.0 (/)"),
        (-0.99, "-1.0 (/)"),
        (-1, "-1.0 (-)"),
        (-3.2, "-3.2 (---)"),
        (50, f"50.0 ({'+' * 50})"),
        (51, f"51.0 ({'+' * 51})"),
        (1000, f"1000.0 ({'+' * 51})"),
        (-1000, f"-1000.0 ({'-' * 51})"),
    ],
)
def test_score_and_bar(score: float, text: str) -> None:
    assert score_and_bar(score) == text


@given(SCORES)
def test_the_bar_is_as_long_as_the_score_is_high(score: float) -> None:
    bar = score_and_bar(score).partition("(")[2].removesuffix(")")
    assert set(bar) == {"/" if abs(score) < 1 else "+" if score > 0 else "-"}
    assert len(bar) == max(1, min(51, int(abs(score))))


@given(SCORES, TENTHS)
def test_over_is_strictly_above_in_tenths(score: float, threshold: float) -> None:
    assert over(score, threshold) == (threshold > 0 and exim_int(score) > round(threshold * 10))


@given(SCORES, SCORES, TENTHS)
def test_a_higher_score_is_never_less_spam(one: float, other: float, threshold: float) -> None:
    assert over(max(one, other), threshold) >= over(min(one, other), threshold)


@pytest.mark.parametrize(
    ("limits", "score", "spam"),
    [
        (Thresholds(1, 0, 6), 1.0, False),
        (Thresholds(1, 0, 6), 1.1, True),
        (Thresholds(0, 0, 6), 6.0, False),
        (Thresholds(0, 0, 6), 6.1, True),
        (Thresholds(0, 3, 6), 3.1, True),
        (Thresholds(0, 0, 0), 1000, False),
    ],
)
def test_what_is_tagged(limits: Thresholds, score: float, *, spam: bool) -> None:
    assert tagged(score, limits) is spam


LISTS = policy(
    tag_score=1.0,
    hold_score=4.0,
    reject_score=6.0,
    lists=[
        {"match": "Private-A@*", "hold_score": 2.0},
        {"match": "private-*@lists.test", "hold_score": 3.0, "tag_score": 2.0},
        {"match": "reports@lists.test", "tag_score": 0, "hold_score": 0, "reject_score": 0},
        {"match": "*-bounces+*@lists.test", "hold_score": 5.0},
    ],
)


@pytest.mark.parametrize(
    ("recipients", "limits"),
    [
        (["open@lists.test"], Thresholds(1, 4, 6)),
        (["private-b@lists.test"], Thresholds(2, 3, 6)),
        (["PRIVATE-B@Lists.Test"], Thresholds(2, 3, 6)),
        (["private-a@lists.test"], Thresholds(1, 2, 6)),  # the first that matches
        (["private-b@lists.test.example.org"], Thresholds(1, 4, 6)),
        (["reports@lists.test"], Thresholds(0, 0, 0)),
        (["reports@lists.test", "open@lists.test"], Thresholds(1, 4, 6)),  # the strictest of them
        (["open@lists.test", "private-b@lists.test"], Thresholds(1, 3, 6)),
        (["b\udcff@lists.test"], Thresholds(1, 4, 6)),
        (['"private-b"@lists.test'], Thresholds(2, 3, 6)),  # Mailman's server takes the quotes away
        (["Reports+x@lists.test"], Thresholds(0, 0, 0)),  # and Mailman what stands behind the +
        (['"repo\\rts+x"@lists.test'], Thresholds(0, 0, 0)),
        (["open-bounces+private-b=lists.test@lists.test"], Thresholds(1, 5, 6)),  # as it is written
        (["postmaster"], Thresholds(1, 4, 6)),
        ([], Thresholds(1, 4, 6)),
    ],
)
def test_the_thresholds_for_recipients(recipients: list[str], limits: Thresholds) -> None:
    assert thresholds(LISTS, recipients) == limits


@given(st.lists(ADDRESSES, min_size=1), ADDRESSES, SCORES)
def test_one_more_recipient_never_lets_more_spam_through(recipients: list[str], more: str, score: float) -> None:
    before, after = thresholds(LISTS, recipients), thresholds(LISTS, [*recipients, more])
    for name in ("tag", "hold", "reject"):
        assert over(score, getattr(after, name)) >= over(score, getattr(before, name))


SKIPS = policy(
    max_size="400KiB",
    skip_networks=["192.0.2.0/24", "2001:db8::/32"],
    skip_recipients=["postmaster", "Abuse@Lists.Test"],
)
A_LIST = ["list@lists.test"]


@pytest.mark.parametrize(
    ("size", "ip", "recipients", "reason"),
    [
        (409_599, "", A_LIST, ""),
        (409_600, "", A_LIST, ""),
        (409_601, "", A_LIST, "too-large"),
        (1, "192.0.2.255", A_LIST, "trusted-network"),
        (1, "192.0.3.0", A_LIST, ""),
        (1, "2001:db8::7", A_LIST, "trusted-network"),
        (1, "fe80::1%eth0", A_LIST, ""),
        (409_601, "192.0.2.1", A_LIST, "trusted-network"),
        (1, "", ["postmaster@lists.test"], "exempt-recipients"),
        (1, "", ["POSTMASTER@elsewhere.test", "abuse@lists.test"], "exempt-recipients"),
        (1, "", ["abuse@elsewhere.test"], ""),
        (1, "", ["postmaster@lists.test", "list@lists.test"], ""),
        (1, "", ["postmaster-list@lists.test"], ""),
        (1, "", ["postmaster"], "exempt-recipients"),
        (1, "", ["@lists.test"], ""),
        (1, "", [], ""),
    ],
)
def test_what_is_not_scored(size: int, ip: str, recipients: list[str], reason: str) -> None:
    found = skipped(SKIPS, size, ip, recipients)
    assert (found.reason if found else "") == reason


def test_nothing_is_scored_when_it_is_off() -> None:
    assert skipped(replace(SKIPS, enabled=False), 1, "", A_LIST) == Skipped("off")


def test_why_a_message_is_held() -> None:
    assert why_held(["spam-reject", "spam-tag"], Scored(7.249, 4, "", "s")) == "spam-reject, spam-tag (score 7.2)"
    assert why_held(["network-hold"], Unscored("timeout", "")) == "network-hold"
    assert why_held(["network-hold"], None) == "network-hold"


@pytest.mark.parametrize("score", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_is_no_score(score: float) -> None:
    with pytest.raises(ValueError, match="not a score"):
        Scored(score, 4.0, "", "")
