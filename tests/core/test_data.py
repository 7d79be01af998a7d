"""The mail data of DATA: nothing but CRLF.CRLF ends it, nothing smuggled survives, every octet is given back."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailgate.core.data import DataReceiver, stuffed
from tests.core.cuts import CUTS, made_of, one_by_one, pieces

HOSTILE = made_of(b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"a", b"\0", b"\xff")
CANONICAL = made_of(b"\r\n", b".", b"..", b"a", b"\0", b"\xff", b"\r\n.\r\n").map(
    lambda octets: octets if not octets or octets.endswith(b"\r\n") else octets + b"\r\n"
)
BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


def received(parts: list[bytes]) -> tuple[bytes, bytes] | None:
    """What a receiver makes of these pieces: the message and the rest, or None if it has not ended."""
    receiver = DataReceiver()
    message = b""
    while parts and not receiver.done:
        message += receiver.feed(parts.pop(0))
    return (message, receiver.rest + b"".join(parts)) if receiver.done else None


def expected(raw: bytes) -> tuple[bytes, bytes] | None:
    """The same by the words of RFC 5321, for the whole at once: lines end with CRLF, a line of "." ends it all."""
    lines = raw.split(b"\r\n")
    if b"." not in lines[:-1]:
        return None
    end = lines.index(b".")
    unstuffed = [line.removeprefix(b".") for line in lines[:end]]
    canonical = [re.sub(rb"[\r\n]", b"\r\n", line) for line in unstuffed]
    return b"".join(line + b"\r\n" for line in canonical), b"\r\n".join(lines[end + 1 :])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"..a\r\n...\r\n.\r\n", b".a\r\n..\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),  # §4.5.2: one dot is taken, whatever follows
        (b"a.\r\nb..\r\n.\r\n", b"a.\r\nb..\r\n"),
        (b"\0\xff\x80\r\n.\r\n", b"\0\xff\x80\r\n"),
        (b"x" * 10_000 + b"\r\n.\r\n", b"x" * 10_000 + b"\r\n"),
    ],
)
def test_a_message_ends_with_a_lone_dot_and_loses_its_stuffing(raw: bytes, message: bytes) -> None:
    assert received([raw]) == (message, b"")
    assert received(one_by_one(raw)) == (message, b"")


@pytest.mark.parametrize(
    ("smuggled", "becomes"),
    [
        (b"\n.\n", b"\r\n.\r\n"),
        (b"\n.\r\n", b"\r\n.\r\n"),
        (b"\r.\r", b"\r\n.\r\n"),
        (b"\r.\r\n", b"\r\n.\r\n"),
        (b"\r.\n", b"\r\n.\r\n"),
        (b"\n.\r", b"\r\n.\r\n"),
        (b"\r\n.\r", b"\r\n\r\n"),
        (b"\r\n.\n", b"\r\n\r\n"),
        (b"\r\n\0.\r\n", b"\r\n\0.\r\n"),
        (b"\r\n.\0\r\n", b"\r\n\0\r\n"),
        (b"\r\r\n.\r", b"\r\n\r\n\r\n"),
        (b"\r\n.\r\r\n", b"\r\n\r\n\r\n"),
        (b"\n\r.\n\r", b"\r\n\r\n.\r\n\r\n"),
        (b"\r\n..\r\n", b"\r\n.\r\n"),
    ],
)
def test_a_sequence_that_others_take_for_an_end_is_content(smuggled: bytes, becomes: bytes) -> None:
    raw = b"one" + smuggled + b"MAIL FROM:<evil@example.net>\r\n.\r\nRSET\r\n"
    message = b"one" + becomes + b"MAIL FROM:<evil@example.net>\r\n"
    assert received([raw]) == (message, b"RSET\r\n")
    assert received(one_by_one(raw)) == (message, b"RSET\r\n")
    # What looks like an end inside the message is stuffed on the way out: the next hop sees one message, too.
    wire = b"".join(stuffed([message]))
    assert b"\r\n.\r\n" not in wire
    assert received([wire + b".\r\n"]) == (message, b"")


@given(HOSTILE, CUTS)
@example(b"\r\n.\r\r\n.\r\n", [])
@example(b"..\r\n.\r\n.\r\n", [1, 2, 3])
def test_any_octets_in_any_pieces_mean_what_the_rfc_says(raw: bytes, cuts: list[int]) -> None:
    assert received(pieces(raw, cuts)) == expected(raw)


@given(st.binary(max_size=200), CUTS)
def test_any_octets_at_all(raw: bytes, cuts: list[int]) -> None:
    assert received([*pieces(raw, cuts), b"\r\n.\r\n"]) == expected(raw + b"\r\n.\r\n")


@given(HOSTILE, CUTS)
def test_no_bare_cr_or_lf_comes_out(raw: bytes, cuts: list[int]) -> None:
    found = received([*pieces(raw, cuts), b"\r\n.\r\n"])
    assert found
    assert not BARE.search(found[0])


@given(HOSTILE, CUTS)
def test_where_the_first_bare_cr_was_is_known(raw: bytes, cuts: list[int]) -> None:
    receiver = DataReceiver()
    for piece in [*pieces(raw, cuts), b"\r\n.\r\n"]:
        if not receiver.done:
            receiver.feed(piece)
    lines = (raw + b"\r\n.\r\n").split(b"\r\n")
    unstuffed = b"\r\n".join(line.removeprefix(b".") for line in lines[: lines.index(b".")])
    before, bare, _ = unstuffed.replace(b"\r\n", b"\n").partition(b"\r")
    assert receiver.ends.bare_cr == (len(before) + before.count(b"\n") if bare else -1)


@given(HOSTILE, CUTS)
def test_what_is_settled_is_given_at_once(raw: bytes, cuts: list[int]) -> None:
    """Memory: of all that was fed, a receiver keeps four octets at most."""
    receiver = DataReceiver()
    fed = b""
    for piece in pieces(raw, cuts):
        receiver.feed(piece)
        if receiver.done:
            break
        fed += piece
        assert len(receiver._held) <= 4
        assert (b"\r\n" + fed).endswith(receiver._held)


@given(CANONICAL, CUTS, CUTS)
@example(b"a\r\n.\r\n", [2], [])
@example(b".\r\n", [], [])
@example(b"\r\n.\r\n", [1, 2], [1])
def test_stuffed_and_received_is_the_same_again(message: bytes, out: list[int], back: list[int]) -> None:
    wire = b"".join(stuffed(pieces(message, out)))
    assert b"\r\n.\r\n" not in b"\r\n" + wire
    assert received(pieces(wire + b".\r\n", back)) == (message, b"")


@given(CANONICAL, CUTS)
def test_stuffing_does_not_depend_on_the_pieces(message: bytes, cuts: list[int]) -> None:
    doubled = re.sub(rb"(?m)^\.", b"..", message.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    assert b"".join(stuffed(pieces(message, cuts))) == doubled
    assert b"".join(stuffed(one_by_one(message))) == doubled
