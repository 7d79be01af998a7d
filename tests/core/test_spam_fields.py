"""The fields that say what a scan came to: their exact words, and that no report can bend them."""

from __future__ import annotations

import re
from email import message_from_bytes
from email.policy import compat32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core import headers
from mailgate.core.scan import MAX_REPORT, Scan, Scored, Skipped, Unscored
from mailgate.core.spam import Thresholds
from mailgate.core.spam_fields import of_score, without_score
from tests.core.cuts import fields_of

LIMITS = Thresholds(tag=1.0, hold=0, reject=6.0)
NEVER = Thresholds(0, 0, 0)
MAILMANS_RULE = re.compile("[^+]*[+]{6,}")  # the site's header_checks
FOLD = re.compile(rb"\r\n(?=[ \t])")


def scored(score: float, report: str = "") -> Scored:
    return Scored(score, 4.0, report, "127.0.0.1:783")


@pytest.mark.parametrize(
    ("scan", "limits", "lines"),
    [
        (Unscored("timeout", "10 s"), LIMITS, ["X-Mailgate-Scan: unscored; reason=timeout"]),
        (Skipped("too-large"), LIMITS, ["X-Mailgate-Scan: skipped; reason=too-large"]),
        (scored(1.0, "hm"), LIMITS, ["X-Spam-Status: No, score=1.0 required=1.0", "X-Mailgate-Scan: scored"]),
        (scored(900, "hm"), NEVER, ["X-Spam-Status: No, score=900.0", "X-Mailgate-Scan: scored"]),
        (
            scored(7.2, "Too many offers"),
            LIMITS,
            [
                "X-Spam-Score: 7.2 (+++++++)",
                "X-Spam-Report: Too many offers",
                "X-Spam-Flag: YES",
                "X-Spam-Status: Yes, score=7.2 required=1.0",
                "X-Mailgate-Scan: scored",
            ],
        ),
        (
            scored(3.1),
            Thresholds(tag=0, hold=3.0, reject=6.0),
            [
                "X-Spam-Score: 3.1 (+++)",
                "X-Spam-Flag: YES",
                "X-Spam-Status: Yes, score=3.1 required=3.0",
                "X-Mailgate-Scan: scored",
            ],
        ),
    ],
)
def test_the_fields_of_a_scan(scan: Scan, limits: Thresholds, lines: list[str]) -> None:
    found = of_score(scan, limits) if isinstance(scan, Scored) else without_score(scan)
    assert found.decode().splitlines() == lines


@pytest.mark.parametrize(
    ("report", "folded"),
    [
        ("", []),
        (" \n\t\n", []),
        ("one line", ["X-Spam-Report: one line"]),
        ("two\nlines\n", ["X-Spam-Report: two", " lines"]),
        ("with\n\n\nblank ones", ["X-Spam-Report: with", " blank ones"]),
        (
            "pts rule\n 2.5 OFFER     An offer\n-0.1 KNOWN   Known",
            ["X-Spam-Report: pts rule", "  2.5 OFFER     An offer", " -0.1 KNOWN   Known"],
        ),
        ("caf\xe9 \u2028 \x00 \x7f\r", ["X-Spam-Report: caf? ?"]),
        ("X-Spam-Flag: NO\n\nFrom: you", ["X-Spam-Report: X-Spam-Flag: NO", " From: you"]),
        ("word " * 20, ["X-Spam-Report:" + " word" * 12, " word word word word word word word word"]),
        ("w" * 100, ["X-Spam-Report: " + "w" * 63, " " + "w" * 37]),
    ],
)
def test_a_report_is_folded(report: str, folded: list[str]) -> None:
    lines = of_score(scored(7.2, report), LIMITS).decode().splitlines()
    start, end = lines.index("X-Spam-Score: 7.2 (+++++++)") + 1, lines.index("X-Spam-Flag: YES")
    assert lines[start:end] == folded


REPORTS = st.one_of(
    st.text(max_size=2000),
    st.text("ab \t\r\n:.\x00\xff\u2028", max_size=2000),
    st.sampled_from(["x" * MAX_REPORT, "\n" * MAX_REPORT, "a\n" * (MAX_REPORT // 2), "a " * (MAX_REPORT // 2)]),
)


@given(REPORTS, st.floats(-1e6, 1e6))
def test_whatever_is_reported_the_fields_stay_fields(report: str, score: float) -> None:
    found = of_score(scored(score, report), LIMITS)
    assert found.endswith(b"\r\n")
    assert b"\n" not in found.replace(b"\r\n", b"")
    assert all(32 <= octet < 127 for octet in found.replace(b"\r\n", b""))
    lines = found.split(b"\r\n")[:-1]
    assert max(map(len, lines)) <= 78  # RFC 5322 §2.1.1
    assert all(line.strip() for line in lines)  # RFC 5322 §4.2: a line of blanks is obsolete
    assert len(found) < 100 * 80 + 500
    names = [field.partition(b":")[0].decode().lower() for field in fields_of(found)]
    most = ["x-spam-score", "x-spam-report", "x-spam-flag", "x-spam-status", "x-mailgate-scan"]
    assert names == [name for name in most if name in names]
    assert {"x-spam-status", "x-mailgate-scan"} <= set(names)


@given(REPORTS)
def test_a_reader_gets_the_report_back_as_one_field(report: str) -> None:
    found = of_score(scored(7.2, report), LIMITS)
    read = message_from_bytes(found + b"\r\nbody", policy=compat32)
    assert read.get_all("X-Mailgate-Scan") == ["scored"]
    assert read.get_all("X-Spam-Flag") == ["YES"]
    assert read.get_payload() == "body"


@given(st.floats(0, 100))
def test_the_rule_of_mailman_sees_what_exim_showed_it(score: float) -> None:
    found = headers.first(of_score(scored(score), Thresholds(tag=0.1, hold=0, reject=0)), b"x-spam-score").decode()
    assert bool(MAILMANS_RULE.match(found)) == (score >= 6)


def test_the_rest_of_a_long_report_is_said_to_be_left_out() -> None:
    lines = of_score(scored(7.2, "a line\n" * 101), LIMITS).split(b"\r\n")
    assert lines.count(b" a line") == 99
    assert lines.count(b" (the rest of the report is left out)") == 1
    assert b"left out" not in of_score(scored(7.2, "a line\n" * 100), LIMITS)


def test_unfolded_it_is_the_report() -> None:
    found = headers.first(of_score(scored(7.2, "Too many\n offers"), LIMITS), b"x-spam-report")
    assert found == b"Too many  offers"
