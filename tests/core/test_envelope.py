"""Addresses go through unchanged, whatever octets they are; what is shown to people is printable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.envelope import Envelope, address_octets, address_text, printable


@given(st.binary(max_size=80))
def test_any_octets_of_an_address_come_back(octets: bytes) -> None:
    assert address_octets(address_text(octets)) == octets


def test_an_utf8_address_is_readable_text() -> None:
    assert address_text(b"b\xc3\xb6b@example.org") == "b\u00f6b@example.org"
    assert address_text(b"b\xf6b@example.org") == "b\udcf6b@example.org"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a@example.org", "a@example.org"),
        ("b\u00f6b@example.org", "b\u00f6b@example.org"),
        ("two words", "two words"),
        ("a\r\nb\t\0", "a\\r\\nb\\t\\x00"),
        ("\x1b[31m", "\\x1b[31m"),
        ("b\udcf6b", "b\\udcf6b"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u2028b", "a\\u2028b"),
    ],
)
def test_what_is_shown_can_neither_break_a_line_nor_move_the_cursor(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(max_size=80) | st.binary(max_size=80).map(address_text))
def test_any_text_becomes_printable_and_stays_so(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert printable(shown) == shown


def test_an_envelope_for_some_of_its_recipients_keeps_the_rest() -> None:
    envelope = Envelope("a@example.org", ("x@lists.test", "y@lists.test"), smtputf8=True, eight_bit=True)
    only = envelope.only(("y@lists.test",))
    assert only == Envelope("a@example.org", ("y@lists.test",), smtputf8=True, eight_bit=True)
    assert envelope.only(envelope.recipients) == envelope
