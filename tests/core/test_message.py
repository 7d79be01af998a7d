"""A message is octets: split at the first empty line, given back as it came, however it was cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailgate.core.message import MAX_HEADER, MAX_HEADER_LINES, Message, in_pieces, message
from tests.core.cuts import CUTS, made_of, one_by_one, pieces


@pytest.mark.parametrize(
    ("octets", "head", "body"),
    [
        (b"", b"", b""),
        (b"\r\n", b"\r\n", b""),
        (b"\r\nbody\r\n", b"\r\n", b"body\r\n"),
        (b"\r\n\r\nbody\r\n", b"\r\n", b"\r\nbody\r\n"),
        (b"A: b\r\n", b"A: b\r\n", b""),
        (b"A: b\r\n\r\n", b"A: b\r\n\r\n", b""),
        (b"A: b\r\n\r\n\r\n", b"A: b\r\n\r\n", b"\r\n"),
        (b"A: b\r\n\r\nC: d\r\n\r\n", b"A: b\r\n\r\n", b"C: d\r\n\r\n"),
        (b"A: b\r\n \r\nC: d\r\n\r\nx", b"A: b\r\n \r\nC: d\r\n\r\n", b"x"),  # a folded blank line is no empty line
        (b"no header", b"no header", b""),
    ],
)
def test_the_first_empty_line_ends_the_header(octets: bytes, head: bytes, body: bytes) -> None:
    for parts in ([octets], one_by_one(octets)):
        found = message(parts)
        assert (found.head, b"".join(found.body), found.bounded) == (head, body, True)


@given(made_of(b"\r\n", b"A: b\r\n", b"\r\n\r\n", b" ", b"x", b"\xff\0"), CUTS)
def test_the_pieces_make_no_difference(octets: bytes, cuts: list[int]) -> None:
    found, whole = message(pieces(octets, cuts)), message([octets])
    assert (found.head, b"".join(found.body)) == (whole.head, b"".join(whole.body))
    assert b"".join(found.chunks) == octets
    assert found.size == len(octets)
    assert all(found.body)


@pytest.mark.parametrize(("bare_cr", "repaired"), [(-1, False), (0, True), (8, True), (9, False)])
def test_exims_fields_are_not_believed_where_a_bare_cr_became_a_line_end(bare_cr: int, repaired: bool) -> None:
    found = message([b"A: b\r\n\r", b"\nbody\r\n\r\n"], bare_cr - 1 if bare_cr > 0 else bare_cr)
    assert found.repaired is repaired
    assert found.exims_head == (b"" if repaired else b"A: b\r\n\r\n")
    assert found.head == b"A: b\r\n\r\n"


@pytest.mark.parametrize("cut", [1, MAX_HEADER - 1, MAX_HEADER, MAX_HEADER + 2, MAX_HEADER + 4])
@pytest.mark.parametrize(("length", "bounded"), [(MAX_HEADER, True), (MAX_HEADER + 1, False)])
def test_a_header_is_looked_through_up_to_a_limit(length: int, bounded: bool, cut: int) -> None:
    octets = b"x" * length + b"\r\n\r\n" + b"body\r\n"
    found = message([octets[:cut], octets[cut:]])
    assert found.bounded is bounded
    assert b"".join(found.chunks) == octets
    if bounded:
        assert (found.head, found.body) == (octets[: length + 4], (b"body\r\n",))


@pytest.mark.parametrize(("lines", "bounded"), [(MAX_HEADER_LINES, True), (MAX_HEADER_LINES + 1, False)])
@pytest.mark.parametrize("behind", [b"", b"\r\n", b"\r\nbody\r\nbody\r\n"])
def test_the_lines_of_a_header_are_bounded(lines: int, bounded: bool, behind: bytes) -> None:
    octets = b"a\r\n" * lines + behind
    found = message([octets])
    assert found.bounded is bounded
    assert b"".join(found.chunks) == octets


def test_a_header_without_end_is_not_bounded() -> None:
    found = message([b"x" * MAX_HEADER, b"x" * 5, b"more", b"and more"])
    assert found == Message(b"x" * (MAX_HEADER + 5), (b"more", b"and more"), bounded=False)


@given(st.lists(st.binary(max_size=40), max_size=10), st.integers(1, 30))
@example([b"a" * 10, b"", b"b" * 25], 10)
def test_pieces_of_another_size_are_the_same_octets(chunks: list[bytes], size: int) -> None:
    found = list(in_pieces(chunks, size))
    assert b"".join(found) == b"".join(chunks)
    assert all(len(piece) == size for piece in found[:-1])
    assert all(0 < len(piece) <= size for piece in found)
