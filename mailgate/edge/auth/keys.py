"""Public keys and what they sign, by dkimpy (rsa) and PyNaCl (ed25519). RFC 8301, RFC 8463.

Promises: a bounded time, whatever the key is: rsa with 4096 bits and a public exponent of 64 takes 2 ms.
How it fails: `core.dkim.NotAcceptable` for a key that can't be read or is not to be believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dkim.crypto import DigestTooLargeError, RSASSA_PKCS1_v1_5_verify, UnparsableKeyError, parse_public_key
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import VerifyKey

from mailgate.core.dkim import NotAcceptable
from mailgate.core.dkim_key import MAX_BITS, MIN_BITS, KeyRecord

_LARGEST_EXPONENT = 2**64


@dataclass(frozen=True, slots=True)
class Key:
    """A key, `bits` long."""

    bits: int
    _key: Any

    def signed(self, octets: Iterable[bytes], signature: bytes) -> bool:
        """Is this the key's signature of these octets?"""
        digest = hashlib.sha256()
        for piece in octets:
            digest.update(piece)
        return self.signed_digest(digest, signature)

    def signed_digest(self, digest: hashlib._Hash, signature: bytes) -> bool:
        """The same of octets that have been digested."""
        if isinstance(self._key, VerifyKey):
            return len(signature) == 64 and _ed25519(self._key, digest.digest(), signature)
        if len(signature) != (self.bits + 7) // 8:  # RFC 8017 §8.2.2
            return False
        try:
            return bool(RSASSA_PKCS1_v1_5_verify(digest, signature, self._key))
        except DigestTooLargeError:
            return False


def key(record: KeyRecord) -> Key:
    """The key of a record. Raises NotAcceptable."""
    if record.kind == "ed25519":
        try:
            return Key(256, VerifyKey(record.octets))
        except (CryptoError, ValueError):
            raise NotAcceptable("permerror", "the key can't be read") from None
    bits, parts = _rsa(record.octets)
    if bits < MIN_BITS:  # RFC 8301 §3.2
        raise NotAcceptable("fail", f"a key of {bits} bits is not acceptable")
    if bits > MAX_BITS or not 2 < parts["publicExponent"] < _LARGEST_EXPONENT:
        raise NotAcceptable("policy", f"a key of {bits} bits is not acceptable")
    return Key(bits, parts)


@lru_cache(maxsize=256)
def _rsa(octets: bytes) -> tuple[int, dict[str, int]]:
    try:
        parts: dict[str, int] = parse_public_key(octets)
    except (UnparsableKeyError, AssertionError, LookupError, TypeError, ValueError):  # all of them for wrong octets
        raise NotAcceptable("permerror", "the key can't be read") from None
    return parts["modulus"].bit_length(), parts


def _ed25519(key: VerifyKey, digest: bytes, signature: bytes) -> bool:
    try:
        key.verify(digest, signature)
    except BadSignatureError:
        return False
    return True
