"""Digests of bodies: the same as dkimpy's for any body in any pieces, and as fast for the most unfortunate ones."""

import hashlib
import time

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.dkim_body import BodyDigests

PARTS = st.lists(
    st.sampled_from([b"a", b"b c", b" ", b"\t", b"  ", b"\r\n", b"\r\n", b"\r", b"\n", b"\xff"]), max_size=16
)


def digests(body: bytes, cut: int, *, relaxed: bool, limits: tuple[int, ...] = ()) -> BodyDigests:
    """Those of a body in pieces of `cut` octets."""
    found = BodyDigests(relaxed=relaxed, limits=limits)
    for start in range(0, len(body), cut):
        found.update(body[start : start + cut])
    found.finish()
    return found


@given(PARTS, st.integers(1, 9), st.booleans(), st.integers(0, 20))
def test_they_are_those_of_dkimpy(parts: list[bytes], cut: int, relaxed: bool, limit: int) -> None:
    body = b"".join(parts) and b"".join(parts) + b"\r\n"  # as SMTP has it: nothing, or lines
    canonical = (Relaxed if relaxed else Simple).canonicalize_body(body)
    found = digests(body, cut, relaxed=relaxed, limits=(limit, 3))
    assert found.length == len(canonical)
    assert found.digest() == hashlib.sha256(canonical).digest()
    expected = hashlib.sha256(canonical[:limit]).digest() if limit <= len(canonical) else None
    assert found.digest(limit) == expected


@pytest.mark.parametrize(
    ("body", "simple", "relaxed"),
    [
        (b"", b"\r\n", b""),
        (b"\r\n\r\n", b"\r\n", b""),
        (b" \t\r\n", b" \t\r\n", b""),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n", b" C\r\nD E\r\n"),
        (b"no end", b"no end\r\n", b"no end\r\n"),
        (b"blanks  ", b"blanks  \r\n", b"blanks\r\n"),
        (b"a\r", b"a\r\r\n", b"a\r\r\n"),
    ],
)
def test_the_forms(body: bytes, simple: bytes, relaxed: bytes) -> None:
    """RFC 6376 §3.4.3 to §3.4.5, and ends that no SMTP client sends."""
    for cut in (1, 2, 100):
        assert digests(body, cut, relaxed=False).digest() == hashlib.sha256(simple).digest()
        assert digests(body, cut, relaxed=True).digest() == hashlib.sha256(relaxed).digest()


@pytest.mark.parametrize("unit", [b" ", b"\r\n", b"a\t", b"a  ", b" \r\n", b"  \r", b"\n", b"\r"])
def test_no_body_takes_long(unit: bytes) -> None:
    """4 MiB of what is worst, in less CPU than a second (a tenth is usual): with patterns it takes hours."""
    body = unit * (4 * 2**20 // len(unit))
    started = time.process_time()
    digests(body, 64 * 1024, relaxed=True, limits=range(10))  # type: ignore[arg-type]
    assert time.process_time() - started < 1
