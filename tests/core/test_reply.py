"""Replies as values, and a parser that no peer can confuse or make grow."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailgate.core.reply import (
    MAX_LINE,
    MAX_LINES,
    MAX_REPLIES,
    MAX_TEXT,
    Garbage,
    Reply,
    ReplyParser,
    clean,
    parse,
)
from tests.core.cuts import CUTS, made_of, one_by_one, pieces

HOSTILE = made_of(
    b"250",
    b"250-",
    b"250 ",
    b"550 ",
    b"199 ",
    b"60",
    b"2.1.5 Ok",
    b"5.1.1",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0\xff",
    b"-",
    b"x",
)

Told = tuple[list[tuple[Reply, tuple[str, ...]]], bool]


def told(parts: list[bytes]) -> Told:
    """All replies in these pieces, and whether they were followed by garbage."""
    parser = ReplyParser()
    try:
        for part in parts:
            parser.feed(part)
    except Garbage:
        return parser.replies, True
    return parser.replies, False


@pytest.mark.parametrize(
    ("octets", "reply", "lines"),
    [
        (b"250 OK\r\n", Reply(250, "", "OK"), ("OK",)),
        (b"250\r\n", Reply(250, "", ""), ("",)),
        (b"250 \r\n", Reply(250, "", ""), ("",)),
        (b"250 OK\n", Reply(250, "", "OK"), ("OK",)),
        (b"250 2.1.5 Ok\r\n", Reply(250, "2.1.5", "Ok"), ("2.1.5 Ok",)),
        (b"250 2.1.5\r\n", Reply(250, "2.1.5", ""), ("2.1.5",)),
        (b"250 5.1.5 Ok\r\n", Reply(250, "", "5.1.5 Ok"), ("5.1.5 Ok",)),  # RFC 3463 §2: class and code agree
        (b"550 5.1.1234 no\r\n", Reply(550, "", "5.1.1234 no"), ("5.1.1234 no",)),
        (b"550 5.7.1no\r\n", Reply(550, "", "5.7.1no"), ("5.7.1no",)),
        (b"354 End data with <CR><LF>.<CR><LF>\r\n", Reply(354, "", "End data with <CR><LF>.<CR><LF>"), None),
        (b"250-localhost\r\n250-SIZE 1\r\n250 HELP\r\n", Reply(250, "", "localhost SIZE 1 HELP"), None),
        (b"550-5.1.1 no\r\n550 such list\r\n", Reply(550, "5.1.1", "no such list"), ("5.1.1 no", "such list")),
        (b"250 caf\xc3\xa9\r\n", Reply(250, "", "caf\\xc3\\xa9"), None),
        (b"250 a\0\tb\x1b[31m\r\n", Reply(250, "", "a  b [31m"), None),
        (b"250 a\rb\r\n", Reply(250, "", "a b"), None),
    ],
)
def test_a_reply_is_read(octets: bytes, reply: Reply, lines: tuple[str, ...] | None) -> None:
    for parts in ([octets], one_by_one(octets)):
        ((found, said),), garbage = told(parts)
        assert (found, garbage) == (reply, False)
        assert lines in {None, said}


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n",
        b"hello\r\n",
        b"25 OK\r\n",
        b"2500 OK\r\n",
        b"150 OK\r\n",
        b"650 OK\r\n",
        b"250\tOK\r\n",
        b" 250 OK\r\n",
        b"\xb2\xb5\xb0 OK\r\n",
        b"250-one\r\n251 two\r\n",
        b"250-one\r\nhello\r\n",
        b"250-x\r\n" * (MAX_LINES + 1),
        b"250 " + b"x" * MAX_LINE + b"\r\n",
        b"x" * (MAX_LINE + 2),
    ],
)
def test_garbage_is_said_so_and_what_came_before_it_counts(octets: bytes) -> None:
    for parts in ([b"220 hello\r\n" + octets], one_by_one(b"220 hello\r\n" + octets)):
        replies, garbage = told(parts)
        assert garbage
        assert [reply for reply, _ in replies] == [Reply(220, "", "hello")]


@pytest.mark.parametrize(
    "octets", [b"250-x\r\n" * (MAX_LINES - 1) + b"250 x\r\n", b"250 " + b"x" * (MAX_LINE - 4) + b"\r\n"]
)
def test_the_longest_that_is_taken(octets: bytes) -> None:
    for parts in ([octets], [octets[:-1], octets[-1:]], one_by_one(octets)):
        ((reply, _),), garbage = told(parts)
        assert not garbage
        assert len(reply.text) <= MAX_TEXT


def test_replies_that_nobody_asked_for_do_not_pile_up() -> None:
    replies, garbage = told([b"250 Ok\r\n" * 100] * (MAX_REPLIES // 100 + 1))
    assert garbage
    assert len(replies) == MAX_REPLIES


def test_idle_is_true_only_when_nothing_is_left_over() -> None:
    parser = ReplyParser()
    seen = [parser.idle]
    for octets in (b"2", b"50-a\r\n", b"250 b\r\n"):
        parser.feed(octets)
        seen.append(parser.idle)
    parser.replies.clear()
    assert [*seen, parser.idle] == [True, False, False, False, True]


@given(HOSTILE, CUTS)
@example(b"250 " + b"x" * (MAX_LINE - 4) + b"\r\n", [MAX_LINE + 1])
def test_any_octets_mean_the_same_in_any_pieces(octets: bytes, cuts: list[int]) -> None:
    whole = told([octets])
    assert told(pieces(octets, cuts)) == whole
    assert told(one_by_one(octets)) == whole


@given(st.binary(max_size=300), CUTS)
def test_nothing_but_garbage_is_raised_and_all_text_is_fit_to_be_repeated(octets: bytes, cuts: list[int]) -> None:
    replies, _ = told(pieces(b"250 " + octets + b"\r\n", cuts))
    for reply, lines in replies:
        assert 200 <= reply.code <= 599
        for text in (reply.text, *lines):
            assert text.isascii()
            assert not text or text.isprintable()
            assert len(text) <= MAX_TEXT


@given(st.sampled_from([250, 451, 550]), st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_a_reply_is_the_text_it_was_parsed_from(code: int, text: str) -> None:
    said = str(parse(code, text.strip()))
    assert said == f"{code} {text.strip()}".strip()


@pytest.mark.parametrize(
    ("code", "positive", "permanent"),
    [(220, True, False), (250, True, False), (354, False, False), (421, False, False), (550, False, True)],
)
def test_the_first_digit_is_the_kind(code: int, positive: bool, permanent: bool) -> None:
    reply = Reply(code, "", "text")
    assert (reply.positive, reply.permanent) == (positive, permanent)


def test_clean_bounds_and_blanks() -> None:
    assert clean(b"  a\r\nb\x7f\x00  ") == "a  b"
    assert clean(b"\xff" * MAX_TEXT) == "\\xff" * (MAX_TEXT // 4)
