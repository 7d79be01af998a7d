"""A scan as text: what the spool keeps of it, and what the log says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.envelope import printable
from mailgate.core.scan import (
    UNSCORED_REASONS,
    Scan,
    Scored,
    Skipped,
    Unscored,
    UnscoredReason,
    read,
    symbols,
    told,
    written,
)

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.builds(Scored, FLOATS, FLOATS, st.text(), st.text()))
def test_a_score_comes_back_as_it_was_written(scan: Scored) -> None:
    assert read(written(scan)) == scan


@pytest.mark.parametrize("reason", UNSCORED_REASONS)
@pytest.mark.parametrize("detail", ["", "127.0.0.1:783: no answer within 10 s; 127.0.0.2:783: Connection refused"])
def test_that_there_was_none_comes_back_with_its_reason(reason: UnscoredReason, detail: str) -> None:
    assert read(written(Unscored(reason, detail))) == Unscored(reason, detail)


@given(st.text())
def test_why_there_was_none_is_kept_as_it_may_stand_in_a_table(detail: str) -> None:
    scan = read(written(Unscored("garbage", detail)))
    assert isinstance(scan, Unscored)
    assert scan.detail == printable(detail)[:500]
    assert read(written(scan)) == scan


def test_that_there_was_none_as_it_was_written_without_detail() -> None:
    assert read("unscored:timeout") == Unscored("timeout", "")


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


TABLE = """Spam detection software, running on the system "mx", has
Content preview:  Hello.
   9.9 FORGED_BY_THE_MAIL     in a table of its own
 pts rule name              description
 ---- ---------------------- --------------------------------------------------
  9.9 FORGED_TOO             as if it were here
Content analysis details:   (999.3 points, 4.0 required)

 pts rule name              description
---- ---------------------- --------------------------------------------------
1000 GTUBE                  BODY: Generic Test for Unsolicited Bulk Email
-1.9 BAYES_00               BODY: Bayes spam probability is 0 to 1%
                            [score: 0.0000]
 0.0 T_A_RULE_WITH_A_NAME_THAT_IS_LONG No description available.
 0.1 NO_WORDS"""


@pytest.mark.parametrize(
    ("report", "names"),
    [
        (TABLE, ["GTUBE", "BAYES_00", "T_A_RULE_WITH_A_NAME_THAT_IS_LONG", "NO_WORDS"]),
        (TABLE[: TABLE.index("\n1000")], []),
        (
            "Action: reject\nSymbol: OURS(7.00)[a, b]\nSymbol: R_SPF_ALLOW(-0.20)\nSymbol: BAD(",
            ["OURS", "R_SPF_ALLOW", "BAD"],
        ),
        ("The site's own words about 7.2 points", []),
        ("", []),
    ],
    ids=["spamd", "no-hit", "rspamd", "own", "none"],
)
def test_the_rules_that_hit(report: str, names: list[str]) -> None:
    assert symbols(report) == names
