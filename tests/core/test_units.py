"""Durations and sizes as people write them, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.units import octets, said_octets, said_seconds, seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("1.5s", 1.5),
        ("15m", 900),
        ("2h", 7200),
        ("5d", 432_000),
        ("1w", 604_800),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("10 s", 10),
        ("0s", 0),
    ],
)
def test_a_duration_in_seconds(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "10", "s", "10x", "10S", "-1s", "1,5s", "1h30", "1e3s", "ten s", "10s!", "1 0s", "\u0663s", "9" * 400 + "d"],
)
def test_what_is_no_duration_is_said_with_the_units(text: str) -> None:
    with pytest.raises(ValueError, match=r'is not a duration: .*\(ms, s, m, h, d, w\), as in "10s"'):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512B", 512),
        ("400KiB", 409_600),
        ("40MiB", 41_943_040),
        ("20GiB", 21_474_836_480),
        ("1TiB", 1_099_511_627_776),
        ("1kB", 1000),
        ("2MB", 2_000_000),
        ("1GB", 10**9),
        ("1.5 KiB", 1536),
        (" 40MiB ", 41_943_040),
    ],
)
def test_a_size_in_octets(text: str, value: int) -> None:
    assert octets(text) == value


@pytest.mark.parametrize(
    "text", ["", "40", "MiB", "40mib", "40M", "-1MiB", "40 megs", "1KiB1KiB", "1e3B", "\u0664MiB", "9" * 400 + "B"]
)
def test_what_is_no_size_is_said_with_the_units(text: str) -> None:
    with pytest.raises(ValueError, match=r'is not a size: .*\(B, KiB, .*\), as in "40MiB"'):
        octets(text)


@given(st.text(max_size=20) | st.text("0123456789.smhdwkKMGTiB ", max_size=20))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (seconds, octets):
        try:
            assert parse(text) >= 0
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (59.6, "1m"),
        (725, "12m 5s"),
        (3600, "1h"),
        (3 * 86400 + 4 * 3600 + 59, "3d 4h"),
        (86405, "1d 5s"),
        (-3, "0s"),
    ],
)
def test_a_duration_for_people(value: float, said: str) -> None:
    assert said_seconds(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (4096, "4.0 KiB"),
        (25.1 * 2**20, "25.1 MiB"),
        (3 * 2**30, "3.0 GiB"),
        (5 * 2**40, "5.0 TiB"),
        (5000 * 2**40, "5000.0 TiB"),
    ],
)
def test_a_size_for_people(value: float, said: str) -> None:
    assert said_octets(value) == said


@given(st.integers(0, 999), st.integers(0, 23))
def test_what_is_said_is_read_back(days: int, hours: int) -> None:
    value = days * 86400 + hours * 3600
    assert seconds(said_seconds(value)) == value
