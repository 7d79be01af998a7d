"""The fields that a signature covers, against dkimpy's idea of them."""

import hashlib
import time

import dkim
import pytest
from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.signed_fields import Fields, relaxed_field, tags, unsigned

NAMES = [b"From", b"to", b"SUBJECT", b"x-note"]
VALUES = st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n ", b"\r\n\t ", b"b:c", b";", b"=", b"\xff"]), max_size=8)
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=8)


def fields(head: bytes, most: int = 2) -> Fields:
    """The fields of a header block, read a few at a time."""
    found = Fields(head)
    while not found.read(most):
        pass
    return found


def written(parts: list[tuple[bytes, list[bytes]]]) -> bytes:
    """The header block of these fields."""
    return b"".join(name + b":" + b"".join(value) + b"\r\n" for name, value in parts) + b"\r\n"


@given(FIELDS, st.lists(st.sampled_from([name.lower() for name in NAMES]), max_size=8), st.booleans())
def test_what_is_signed_is_what_dkimpy_signs(
    parts: list[tuple[bytes, list[bytes]]], names: list[bytes], relaxed: bool
) -> None:
    head = written(parts)
    own = b"DKIM-Signature: v=1; b=abc\r\n\tdef; s=x\r\n"
    theirs, _ = dkim.rfc822_parse(head)
    policy = dkim.CanonicalizationPolicy.from_c_value(b"relaxed" if relaxed else b"simple")
    hashed = dkim.HashThrough(hashlib.sha256(), debug=True)
    signature = (b"DKIM-Signature", own.partition(b":")[2])
    dkim.hash_headers(hashed, policy, policy.canonicalize_headers(theirs), names, signature, {})
    assert b"".join(fields(head).octets(names, own, relaxed=relaxed)) == hashed.hashed()


@given(VALUES)
def test_the_relaxed_form_is_dkimpys(value: list[bytes]) -> None:
    field = b"Name \t:" + b"".join(value) + b"\r\n"
    [(name, canonical)] = Relaxed.canonicalize_headers([(b"Name \t", b"".join(value) + b"\r\n")])
    assert relaxed_field(field) == name + b":" + canonical


@pytest.mark.parametrize(
    ("field", "without"),
    [
        (b"D: a=b; b=xyz\r\n\t xyz; c=d\r\n", b"D: a=b; b=; c=d\r\n"),
        (b"D: b = xyz", b"D: b ="),
        (b"D: bh=b=; b=x==\r\n", b"D: bh=b=; b="),
        (b"D: b=", b"D: b="),
        (b"D: nothing", b"D: nothing"),
    ],
)
def test_the_signature_is_taken_out(field: bytes, without: bytes) -> None:
    assert unsigned(field) == without


def test_fields() -> None:
    head = b"A: 1\r\n 2\r\nno colon\r\nB\t: 3\r\na:4\r\n: 5\r\nC\r\n :6\r\n\r\n"
    found = fields(head)
    assert found.named(b"a") == [b"A: 1\r\n 2\r\n", b"a:4\r\n"]
    assert found.named(b"b") == [b"B\t: 3\r\n"]
    assert found.named(b"c") == found.named(b"") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b" a=1; b = 2 ;\r\n\tc=3;", {"a": b"1", "b": b"2", "c": b"3"}),
        (b"a=", {"a": b""}),
        (b"a=b=c", {"a": b"b=c"}),
        (b"A=1; a=2", {"A": b"1", "a": b"2"}),
        (b"", {}),
    ],
)
def test_tags(text: bytes, found: dict[str, bytes]) -> None:
    assert tags(text) == found


@pytest.mark.parametrize("text", [b"a", b"a=1;;b=2", b"=1", b"1=a", b"a b=1", b"a=1;a=2", b"\xc3=1", b"a=1;" * 60])
def test_no_tags(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"tags|twice"):
        tags(text)


@pytest.mark.parametrize("unit", [b" ", b"\t", b"\r\n ", b";", b"b", b"=", b"\x00"])
def test_no_field_takes_long(unit: bytes) -> None:
    """A MiB of what is worst, ten times, in less CPU than a second: dkimpy's patterns take hours for some of these."""
    head = b"Subject: " + unit * (2**20 // len(unit)) + b"\r\nFrom: a@example.org\r\n\r\n"
    started = time.process_time()
    found = fields(head, 3000)
    for _ in range(10):
        b"".join(found.octets([b"subject", b"from"], b"DKIM-Signature: b=x" + unit * 10_000, relaxed=True))
    assert time.process_time() - started < 1
