"""Keys of strangers: whatever the octets are, a key comes out, or the word that there is none."""

import base64
import time

from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.dkim import NotAcceptable
from mailgate.core.dkim_key import KeyRecord
from mailgate.edge.auth.keys import Key, key
from tests.auth.keys import rsa, rsa_4096


def read(kind: str, octets: bytes) -> Key | None:
    """The key, if it is one."""
    try:
        return key(KeyRecord(kind, octets, strict=False, testing=False))  # type: ignore[arg-type]
    except NotAcceptable:
        return None


@given(st.sampled_from(["rsa", "ed25519"]), st.binary(max_size=80))
def test_any_octets(kind: str, octets: bytes) -> None:
    found = read(kind, octets)
    assert found is None or found.bits in {256, *range(1024, 4097)}


@given(st.integers(0, 161), st.binary(max_size=3))
def test_a_key_that_was_damaged(at: int, by: bytes) -> None:
    whole = base64.b64decode(rsa().public)
    found = read("rsa", whole[:at] + by + whole[at + 1 :])
    assert found is None or not found.signed([b"text"], b"\0" * ((found.bits + 7) // 8))


def test_the_most_expensive_key() -> None:
    """4096 bits and the largest exponent that we take."""
    parts = dict(read("rsa", base64.b64decode(rsa_4096().public))._key)  # type: ignore[union-attr]
    costly = Key(4096, parts | {"publicExponent": 2**64 - 1})
    started = time.process_time()
    for _ in range(10):
        assert not costly.signed([b"text"], b"\1" * 512)
    assert time.process_time() - started < 0.2  # 20 ms each, ten times what is usual
