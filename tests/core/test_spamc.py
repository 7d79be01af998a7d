"""The words of the verdict door: each question is understood or refused, each answer is what Exim's scanf takes."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailgate.core import spamc
from mailgate.core.envelope import Client, Envelope
from mailgate.core.reply import Reply
from mailgate.core.scan import MAX_REPORT, Scan, Scored, Skipped, Unscored
from mailgate.core.spam import Thresholds, exim_int, over, tagged
from mailgate.core.spamc import BadQuestion, Finding, Question
from mailgate.core.verdict import Action, Decision
from tests.core.cuts import made_of

ID = "01m8112ytat08xvr1g"
USUAL = Thresholds(1.0, 0.0, 6.0)
RSPAMC = Question("CHECK", "RSPAMC", 13, 10)
STOCK = Question("REPORT", "SPAMC", 12, 10)
LATER = Question("REPORT", "SPAMC", 15, 10)
LIST_HEAD = (
    b"CHECK RSPAMC/1.3\r\nContent-length: 468\r\nQueue-Id: 1xV0Ys-0004sm-35\r\nFrom: <bob@example.net>\r\n"
    b"Recipient-Number: 2\r\nRcpt: <list@lists.test>\r\nRcpt: <other@lists.test>\r\nHelo: mx.example.net\r\n"
    b"Hostname: mx.example.net\r\nIP: 192.0.2.7\r\nUser: bob\r\n\r\n"
)
# What spam.c of Exim 4.96 reads, as patterns: its %7s is at most 7 characters that are no blanks, %lf a number.
_NUMBER = r"[ \r\n]*(-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"
EXIM_RSPAMC = re.compile(
    rf"RSPAMD/\S{{1,7}} 0 EX_OK\r\nMetric: default; \S{{1,7}} {_NUMBER} / {_NUMBER} / {_NUMBER}\s+Action: (.*)\r\n"
)
EXIM_SPAMC = re.compile(rf"SPAMD/\S{{1,7}} 0 EX_OK\r\nContent-length: (\d+)\r\n\r\n{_NUMBER}/{_NUMBER}\r\n")


def scored(points: float, report: str = "") -> Scored:
    return Scored(points, 5.0, report, "127.0.0.1:783")


def finding(
    scan: Scan | None = None,
    action: Action = Action.ACCEPT,
    reasons: tuple[str, ...] = (),
    reply: Reply | None = None,
    limits: Thresholds = USUAL,
) -> Finding:
    return Finding(ID, Decision(action, reasons, reply), scan, limits)


SPAM = finding(scored(7.25), Action.REJECT, ("spam-reject",), Reply(550, "5.7.1", "taken for spam: it scores 7.2"))


# the question


def told(ip: str) -> Client:
    """The client of LIST_HEAD, at that address."""
    return Client(ip, "mx.example.net", "mx.example.net", "bob", source="verdict")


def test_exims_question() -> None:
    assert spamc.question(LIST_HEAD) == Question(
        "CHECK", "RSPAMC", 13, 468, Envelope("bob@example.net", ("list@lists.test", "other@lists.test")),
        "1xV0Ys-0004sm-35", told("192.0.2.7"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "by", "expected"),
    [
        (b"From: <bob@example.net>", b"From: <>", Envelope("", ("list@lists.test", "other@lists.test"))),
        (b"<bob@", b"<j\xf6rg@", Envelope("j\udcf6rg@example.net", ("list@lists.test", "other@lists.test"))),
        (b"IP: 192.0.2.7\r\n", b"", told("")),
        (b"IP: 192.0.2.7", b"IP: ::ffff:192.0.2.7", told("192.0.2.7")),
        (b"IP: 192.0.2.7", b"IP: 1.2.3", replace(told(""), source="unknown")),
        (b"Helo: mx.example.net", b"Helo: \x1b[1m\xff: IP: 1", replace(told("192.0.2.7"), helo=r"\x1b[1m\udcff: IP: 1")),  # noqa: E501
        (b"Queue-Id: 1xV0Ys-0004sm-35", b"Queue-Id: 1tQ8nq-00000000abc-0Zxy", "1tQ8nq-00000000abc-0Zxy"),
        (b"Queue-Id: 1xV0Ys-0004sm-35", b"Queue-Id: ../../etc", ""),
        (b"Queue-Id: 1xV0Ys-0004sm-35\r\n", b"", ""),
    ],
)  # fmt: skip
def test_what_exim_leaves_out_or_a_stranger_puts_in(field: bytes, by: bytes, expected: object) -> None:
    found = spamc.question(LIST_HEAD.replace(field, by, 1))
    assert expected in (found.envelope, found.client, found.exim_id)


def test_nobody_in_the_question() -> None:
    found = spamc.question(b"CHECK RSPAMC/1.3\r\nContent-length: 1\r\n\r\n")
    assert (found.envelope, found.exim_id, found.client) == (None, "", Client())


@pytest.mark.parametrize("verb", ["CHECK", "SYMBOLS", "REPORT"])
def test_the_stock_question(verb: str) -> None:
    found = spamc.question(f"{verb} SPAMC/1.2\r\nUser: nobody\r\nContent-length: 468\r\n\r\n".encode())
    assert found == Question(verb, "SPAMC", 12, 468)  # type: ignore[arg-type]


def test_ping() -> None:
    for variant, said in (("SPAMC", b"SPAMD/1.1 0 PONG\r\n"), ("RSPAMC", b"RSPAMD/1.3 0 PONG\r\n")):
        assert spamc.pong(spamc.question(f"PING {variant}/1.2\r\n\r\n".encode())) == said


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not a question: GET / HTTP/1.1"),
        (b"\r\n\r\n", "not a question: "),
        (b"check SPAMC/1.2\r\nContent-length: 1\r\n\r\n", "not a question: check SPAMC/1.2"),
        (b"TELL SPAMC/1.2\r\nContent-length: 1\r\n\r\n", "TELL is not spoken here"),
        (b"PROCESS SPAMC/1.2\r\nContent-length: 1\r\n\r\n", "PROCESS is not spoken here"),
        (b"CHECK SPAMC/1.2\r\n\r\n", "no Content-length"),
        (b"CHECK SPAMC/1.2\r\nContent-length: -1\r\n\r\n", "no Content-length"),
        (b"CHECK SPAMC/1.2\r\nContent-length: 1e3\r\n\r\n", "no Content-length"),
        (b"CHECK SPAMC/1.2\r\nContent-length: %s\r\n\r\n" % (b"9" * 5000), "no Content-length"),
        (b"CHECK SPAMC/1.2\r\nContent-length: \xc2\xb2\r\n\r\n", "no Content-length"),
        (b"CHECK SPAMC/1.2\r\nContent-length: 1\r\ncontent-length: 2\r\n\r\n", "content-length is said twice"),
        (b"CHECK SPAMC/1.2\r\nno field\r\n\r\n", "not a field: no field"),
        (b"CHECK SPAMC/1.2\r\n" + b"a:\r\n" * 10_001 + b"\r\n", "more than 10000 lines"),
        (LIST_HEAD.replace(b"User: bob", b"IP: 192.0.2.8"), "ip is said twice"),
        (LIST_HEAD.replace(b"User: bob", b"Helo : x"), "helo is said twice"),
        (LIST_HEAD.replace(b"Number: 2", b"Number: 3"), "2 recipients, not 3"),
        (LIST_HEAD.replace(b"Number: 2", b"Number: two"), "2 recipients, not two"),
        (LIST_HEAD.replace(b"User: bob\r\n", b"User: bob\nIP: 192.0.2.8\r\n"), "a line without CRLF"),
    ],
)
def test_what_is_refused(head: bytes, why: str) -> None:
    with pytest.raises(BadQuestion) as caught:
        spamc.question(head)
    assert str(caught.value) == why
    said = spamc.refused(caught.value)
    assert said == f"{'RSPAMD/1.3' if b'RSPAMC' in head else 'SPAMD/1.1'} 76 EX_PROTOCOL {why}\r\n".encode()


_WORDS = made_of(
    b"CHECK ", b"PING ", b"RSPAMC/1.3", b"SPAMC/1.2", b"\r\n", b"\n", b"\r", b"Content-length: ", b"7", b"Rcpt: <a@b>",
    b"From: <>", b"IP: ::1", b"Helo:", b":", b"\0", b"\xff", b"Recipient-Number: 1", b"Queue-Id: 1xV0Ys-0004sm-35",
)  # fmt: skip


@given(_WORDS | st.binary(max_size=200))
@example(b"CHECK RSPAMC/1.3\r\nContent-length: 7\r\nRcpt: <a@b>\r\nRecipient-Number: 1\r\n\r\n")
def test_anything_is_a_question_or_refused_in_one_line(head: bytes) -> None:
    try:
        asked = spamc.question(head)
    except BadQuestion as bad:
        said = spamc.refused(bad)
    else:
        said = spamc.pong(asked) if asked.verb == "PING" else spamc.answer(asked, finding(scored(1.0)))
    assert re.fullmatch(rb"R?SPAMD/1\.\d (?:76 EX_PROTOCOL [ -~]{1,900}|0 PONG|0 EX_OK\r\n[ -~\r\n]+)\r\n", said)


# the answer


def read_by_exim(found: Finding) -> tuple[float, float, float, str, str]:
    """Score, threshold, threshold to reject, $spam_action and what Exim makes $spam_report of."""
    text = spamc.answer(RSPAMC, found).decode("ascii")
    read = EXIM_RSPAMC.match(text)
    assert read, text
    return float(read[1]), float(read[2]), float(read[3]), read[4], text[text.index("Action: ") :]


def test_a_refusal() -> None:
    assert spamc.answer(RSPAMC, SPAM).decode() == (
        "RSPAMD/1.3 0 EX_OK\r\nMetric: default; True 7.2500 / 1.0991 / 6.0990\r\nAction: reject\r\n"
        f"Message: 550 5.7.1 {ID} taken for spam: it scores 7.2\r\n"
        f"Id: {ID}\r\nVerdict: reject\r\nReasons: spam-reject\r\n"
    )


_LATER = Reply(451, "4.3.0", "can't be scanned now")


@pytest.mark.parametrize(
    ("found", "action", "lines"),
    [
        (finding(scored(0.2)), "no action", ["Verdict: accept"]),
        (finding(scored(1.1), reasons=("spam-tag",)), "add header", ["Verdict: accept", "Reasons: spam-tag"]),
        (finding(scored(4.0), Action.HOLD, ("spam-hold",), limits=Thresholds(0, 3, 6)), "add header", ["Verdict: hold", "Reasons: spam-hold"]),  # noqa: E501
        (finding(Unscored("timeout", "a secret")), "no action", ["Verdict: accept", "Scan: unscored; reason=timeout"]),
        (finding(Skipped("too-large")), "no action", ["Verdict: accept", "Scan: skipped; reason=too-large"]),
        (finding(Unscored("refused", ""), Action.HOLD, ("unscored",), _LATER), "no action", ["Verdict: hold", "Reasons: unscored", "Scan: unscored; reason=refused"]),  # noqa: E501
        (finding(None, Action.REJECT, ("loop",), Reply(554, "5.4.6", "routing loop")), "reject", ["Verdict: reject", "Reasons: loop"]),  # noqa: E501
        (finding(Unscored("refused", ""), Action.DEFER, ("unscored",), _LATER), "soft reject", ["Verdict: defer", "Reasons: unscored", "Scan: unscored; reason=refused"]),  # noqa: E501
    ],
)  # fmt: skip
def test_each_verdict_in_exims_words(found: Finding, action: str, lines: list[str]) -> None:
    *_, said, report = read_by_exim(found)
    assert said == action
    ours = report.removesuffix("\r\n").split("\r\n")[1:]
    reply = found.decision.reply
    if action in {"reject", "soft reject"}:
        assert reply is not None
        assert ours.pop(0) == f"Message: {reply.code} {reply.enhanced} {ID} {reply.text}"
    assert ours == [f"Id: {ID}", *lines]


@given(
    points=st.floats(-2000, 2000) | st.integers(-700, 700).map(lambda tenths: tenths / 10),
    tag=st.integers(0, 100),
    reject=st.integers(0, 100),
)
def test_exims_arithmetic_comes_to_the_same(points: float, tag: int, reject: int) -> None:
    """`spam =` is true for what we tag; the score is the scorer's to four digits."""
    limits = Thresholds(tag / 10, 0.0, reject / 10)
    score, lower, upper, _, _ = read_by_exim(finding(scored(points), limits=limits))
    assert abs(score - points) <= 0.00006
    assert (score >= lower) == tagged(score, limits)
    assert (score >= upper) == over(score, limits.reject)
    assert abs(exim_int(score) - exim_int(points)) <= 1


@pytest.mark.parametrize("tenths", range(-20, 110))
@pytest.mark.parametrize("off", [0.0, 0.05, 0.09, 0.098, 0.099, 0.0999])
def test_no_boundary_moves(tenths: int, off: float) -> None:
    points = round(tenths / 10 + off, 4)
    score, lower, upper, _, _ = read_by_exim(finding(scored(points)))
    assert exim_int(score) == exim_int(points)
    assert (score >= lower, score >= upper) == (over(points, 1.0), over(points, 6.0))


def test_never_is_never_reached() -> None:
    assert read_by_exim(finding(scored(1000.0), limits=Thresholds(0, 0, 0)))[:4] == (
        1000,
        999_999,
        999_999,
        "no action",
    )


def test_the_stock_variant() -> None:
    text = spamc.answer(STOCK, SPAM).decode()
    read = EXIM_SPAMC.match(text)
    assert read
    assert (float(read[2]), float(read[3])) == (7.25, 1.0991)
    assert int(read[1]) == len(text.partition("\r\n\r\n")[2])
    assert f"\r\nMessage: 550 5.7.1 {ID} taken for spam" in text


def test_later_clients_of_the_stock_variant() -> None:
    head, _, text = spamc.answer(LATER, SPAM).decode().partition("\r\n\r\n")
    assert head == f"SPAMD/1.1 0 EX_OK\r\nContent-length: {len(text)}\r\nSpam: True ; 7.2 / 1.1"
    assert text.startswith(f"Message: 550 5.7.1 {ID} ")
    check = spamc.answer(Question("CHECK", "SPAMC", 15, 10), finding(scored(0.2)))
    assert check == b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; 0.2 / 1.1\r\n\r\n"


def test_the_names_of_the_rules_as_spamd_says_them() -> None:
    found = finding(scored(7.2, "Action: reject\nSymbol: A(7.00)[x]\nSymbol: B_C(0.20)"))
    said = b"SPAMD/1.1 0 EX_OK\r\n"
    later = spamc.answer(Question("SYMBOLS", "SPAMC", 15, 10), found)
    assert later == said + b"Content-length: 5\r\nSpam: True ; 7.2 / 1.1\r\n\r\nA,B_C"
    assert (
        spamc.answer(Question("SYMBOLS", "SPAMC", 12, 10), found) == said + b"Spam: True ; 7.2 / 1.1\r\n\r\nA,B_C\r\n"
    )
    unscored = spamc.answer(Question("SYMBOLS", "SPAMC", 15, 10), finding(Unscored("timeout", "")))
    assert unscored == said + b"Content-length: 0\r\nSpam: False ; 0.0 / 1.1\r\n\r\n"


def test_a_report_that_quotes_the_mail_says_nothing_in_our_name() -> None:
    preview = "Content preview:\nMessage: 250 welcome\n\nAction: no action\r\nMessage: 250\n"
    report = preview + "Id: x\x85Message: 250\u2028Message: 1"
    for asked in (RSPAMC, STOCK, LATER):
        lines = spamc.answer(asked, finding(scored(9.0, report))).decode("ascii").split("\r\n")
        assert not [line for line in lines if line.startswith("Message")]
        assert [line for line in lines if line.startswith("Report: ")] == [
            "Report: Content preview:", "Report: Message: 250 welcome", "Report: Action: no action",
            "Report: Message: 250", "Report: Id: x?Message: 250?Message: 1",
        ]  # fmt: skip


@given(
    st.text(max_size=MAX_REPORT)
    | st.sampled_from(["\U0001f600\n" * 5000, "x" * MAX_REPORT, "\x1b\n" * 8000, "\n" * 16_000])
)
def test_an_answer_fits_what_exim_copies_it_into(report: str) -> None:
    """Exim puts a blank behind each line end, into 32600 octets, and does not count."""
    for asked in (RSPAMC, STOCK, LATER):
        said = spamc.answer(asked, finding(scored(9.0, report), Action.REJECT, ("spam-reject",), SPAM.decision.reply))
        assert len(said) + said.count(b"\n") <= spamc.MAX_ANSWER
        assert re.fullmatch(rb"(?:[ -~]*\r\n)+", said)


def test_no_verdict_is_nothing_that_exim_takes_for_one() -> None:
    for variant in ("RSPAMC", "SPAMC"):
        said = spamc.failed(variant, "too slow").decode()
        assert not EXIM_RSPAMC.match(said)
        assert not EXIM_SPAMC.match(said)
        assert said.endswith(" 75 EX_TEMPFAIL too slow\r\n")
