"""Exim's copy of a message made the message again: its wrapping is taken off, and nothing else, in whatever pieces."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.envelope import Envelope, address_octets
from mailgate.core.mbox import MAX_WRAPPING, Unwrapper
from tests.core.cuts import CUTS, made_of, one_by_one, pieces

FROM_ = b"From MAILER-DAEMON Sun Nov 22 10:16:00 2026\n"
TO_LISTS = Envelope("ida@example.org", ("list@lists.test", "other@lists.test"))
HOSTILE = made_of(
    b"\r", b"\n", b"\r\n", b"From ", b"From x y\n", b"X-Envelope-From: <ida@example.org>\n", b"X-Envelope-To: ",
    b"list@lists.test, other@lists.test\n", b"X-Envelope-From: <>\n", b"a", b":", b"\0", b"\xff",
)  # fmt: skip
ENVELOPES = st.sampled_from(
    [TO_LISTS, Envelope("", ("list@lists.test",)), Envelope("", ()), Envelope("j\udcffrg@example.org", ("a@b",))]
)


def wrapped(envelope: Envelope, message: bytes) -> bytes:
    """What Exim 4.96 makes of a message (its spool_mbox): no line for a null sender, none without recipients."""
    sender = b"X-Envelope-From: <%s>\n" % address_octets(envelope.sender) if envelope.sender else b""
    everybody = b", ".join(map(address_octets, envelope.recipients))
    return FROM_ + sender + (b"X-Envelope-To: %s\n" % everybody if everybody else b"") + message


def unwrapped(parts: list[bytes], envelope: Envelope | None = None) -> tuple[bytes, Envelope | None]:
    """The message, and the envelope that was found."""
    unwrapper = Unwrapper(envelope)
    found = b"".join([*map(unwrapper.feed, parts[:-1]), unwrapper.feed(parts[-1], last=True)])
    return found, unwrapper.envelope


def canonical(octets: bytes) -> bytes:
    """Each line end as CRLF, by another way than the code's."""
    return b"\r\n".join(re.split(rb"\r\n|\r|\n", octets))


MESSAGE = b"Received: from x\n\tby y id 1xV0Ys-0004sm-35\nFrom: Ida <ida@example.org>\n\nHello.\n\nFrom me\n.\n"


@pytest.mark.parametrize(
    "envelope",
    [TO_LISTS, Envelope("", ("list@lists.test",)), Envelope("ida@example.org", ()), Envelope("", ())],
    ids=["usual", "null sender", "nobody", "neither"],
)
@pytest.mark.parametrize("said", [True, False])
def test_the_wrapping_is_taken_off(envelope: Envelope, said: bool) -> None:
    copy = wrapped(envelope, MESSAGE)
    assert unwrapped([copy], envelope if said else None)[0] == MESSAGE.replace(b"\n", b"\r\n")
    assert unwrapped(one_by_one(copy), envelope if said else None)[0] == MESSAGE.replace(b"\n", b"\r\n")


def test_the_envelope_is_read_from_the_wrapping_where_the_question_does_not_say_it() -> None:
    assert unwrapped([wrapped(TO_LISTS, MESSAGE)])[1] == TO_LISTS
    assert unwrapped([wrapped(Envelope("", ("a@b",)), MESSAGE)])[1] == Envelope("", ("a@b",))
    assert unwrapped([wrapped(Envelope("ida@example.org", ()), MESSAGE)])[1] is None
    assert unwrapped([MESSAGE])[1] is None


@pytest.mark.parametrize(
    "begins",
    [
        b"X-Envelope-From: <mallory@example.net>\n",
        b"X-Envelope-To: list@lists.test\n",
        b"X-Envelope-From: <mallory@example.net>\nX-Envelope-To: other@lists.test\n",
        b"From MAILER-DAEMON today\n",
        b"",
    ],
)
def test_a_message_that_looks_like_the_wrapping_stays_whole(begins: bytes) -> None:
    for envelope in (TO_LISTS, Envelope("", ("list@lists.test",))):
        octets = begins + MESSAGE
        assert unwrapped([wrapped(envelope, octets)], envelope)[0] == octets.replace(b"\n", b"\r\n")


def test_what_is_no_mbox_stays_as_it_is() -> None:
    for octets in (MESSAGE, b"", b"From", b"From x", b"X-Envelope-To: a\n\nb\n"):
        assert unwrapped([octets], TO_LISTS)[0] == octets.replace(b"\n", b"\r\n")


def test_a_thousand_recipients() -> None:
    many = Envelope("ida@example.org", tuple(f"{'name' * 60}-{n}@lists.test" for n in range(1000)))
    copy = wrapped(many, MESSAGE)
    assert len(copy) < MAX_WRAPPING
    for envelope in (many, None):
        assert unwrapped([copy[:70_000], copy[70_000:]], envelope) == (MESSAGE.replace(b"\n", b"\r\n"), many)


def test_a_large_message_comes_out_in_pieces() -> None:
    line = b"a line of text\n"
    body = line * (3 * MAX_WRAPPING // len(line))
    copy = wrapped(TO_LISTS, b"Subject: x\n\n" + body)
    unwrapper = Unwrapper(TO_LISTS)
    found = [unwrapper.feed(copy[start : start + 65_536]) for start in range(0, len(copy), 65_536)]
    assert max(map(len, found)) < 2 * MAX_WRAPPING
    assert b"".join([*found, unwrapper.feed(b"", last=True)]) == b"Subject: x\r\n\r\n" + body.replace(b"\n", b"\r\n")


def test_a_crlf_that_is_torn_is_one_line_end() -> None:
    filling = b"x" * MAX_WRAPPING
    assert unwrapped([filling + b"\r", b"\nb\r", b"", b"\r", b"\n"])[0] == filling + b"\r\nb\r\n\r\n"
    assert unwrapped([filling + b"\r"])[0] == filling + b"\r\n"


@pytest.mark.parametrize(("message", "at"), [(b"a\nb\rc\n", 4), (b"a\nb\n", -1), (b"a\r\nb\n", -1)])
def test_a_bare_cr_is_told_from_exims_line_ends(message: bytes, at: int) -> None:
    unwrapper = Unwrapper(TO_LISTS)
    for octet in one_by_one(wrapped(TO_LISTS, message)):
        unwrapper.feed(octet)
    unwrapper.feed(b"", last=True)
    assert unwrapper.ends.bare_cr == at


@given(message=HOSTILE, envelope=ENVELOPES, cuts=CUTS, said=st.booleans())
def test_what_was_wrapped_comes_out_canonical(message: bytes, envelope: Envelope, cuts: list[int], said: bool) -> None:
    if not said:  # then a message that begins as the wrapping does can't be told from it; Exim's begin with Received
        message = b"Received: x\n" + message
    found, _ = unwrapped(pieces(wrapped(envelope, message), cuts), envelope if said else None)
    assert found == canonical(message)


@given(octets=HOSTILE, envelope=st.none() | ENVELOPES, cuts=CUTS)
def test_pieces_make_no_difference(octets: bytes, envelope: Envelope | None, cuts: list[int]) -> None:
    assert unwrapped(pieces(octets, cuts), envelope) == unwrapped([octets], envelope)
