"""A scan as text: what the spool keeps of it, and what the log says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.scan import UNSCORED_REASONS, Scan, Scored, Skipped, Unscored, read, told, written

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.builds(Scored, FLOATS, FLOATS, st.text(), st.text()))
def test_a_score_comes_back_as_it_was_written(scan: Scored) -> None:
    assert read(written(scan)) == scan


@pytest.mark.parametrize("reason", UNSCORED_REASONS)
def test_that_there_was_none_comes_back_with_its_reason(reason: str) -> None:
    scan = read(f"unscored:{reason}")
    assert isinstance(scan, Unscored)
    assert (scan.reason, written(scan)) == (reason, f"unscored:{reason}")


@pytest.mark.parametrize(
    "text",
    [
        *("", "unscored", "unscored:", "unscored:bored", "skipped:off", "scored:", "scored:[", "scored:[1]"),
        *("scored:[NaN, 4, 0, 0]", "scored:[1, 2, 3, 4, 5]", "scored:7", 'scored:["a", 1, "", ""]', "scored:null"),
    ],
)
def test_what_nobody_wrote_is_nothing(text: str) -> None:
    assert read(text) is None


@given(st.text())
def test_reading_ends_whatever_is_there(text: str) -> None:
    assert read(text) is None or text.startswith(("scored:", "unscored:"))
    assert read(f"scored:{text}") is None or text.strip().startswith("[")


@pytest.mark.parametrize(
    ("scan", "words"),
    [
        (None, {}),
        (Scored(7.25, 4.0, "long", "127.0.0.1:783"), {"scan": "scored", "score": 7.25, "scorer": "127.0.0.1:783"}),
        (Unscored("timeout", "10 s"), {"scan": "unscored", "scan_reason": "timeout"}),
        (Skipped("off"), {"scan": "skipped", "scan_reason": "off"}),
    ],
)
def test_what_the_log_says_of_it(scan: Scan | None, words: dict[str, object]) -> None:
    assert told(scan) == words
