"""One DKIM signature as its field has it, and whether it is one that we would believe. RFC 6376 §3.5, §6.1.1.

The words for one that we would not: `neutral` where it can't be read, `permerror` where it breaks a rule of RFC 6376,
`policy` where it is in order and still not acceptable: rsa-sha1 and short keys (RFC 8301 §3), or too old.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Literal

from mailgate.core.auth import DkimResult, Signature
from mailgate.core.domains import ascii_form, within
from mailgate.core.signed_fields import Fields, tags, without_white

MAX_SIGNATURES = 10  # that are looked at; real mail has one to three
MAX_FIELD = 16 * 1024  # octets of a signature's field
_CLOCKS_DIFFER = 3600  # seconds
_SELECTOR = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_NAME = re.compile(rb"[!-9;-~]+")  # of a field, RFC 5322 §2.2
_NUMBER = re.compile(rb"[0-9]{1,76}")
Algorithm = Literal["rsa-sha256", "ed25519-sha256"]


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature's field says. `limit` is l=, None without it; `identity` is i= or its default."""

    field: bytes
    domain: str
    selector: str
    identity: str
    algorithm: Algorithm
    names: tuple[bytes, ...]
    relaxed_header: bool
    relaxed_body: bool
    limit: int | None
    body_digest: bytes
    signature: bytes

    @property
    def key_name(self) -> str:
        """Where its key is published, §3.6.2.1."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def for_domain_itself(self) -> bool:
        """Is i= d=, and not below it?"""
        return ascii_form(self.identity.rpartition("@")[2]) == self.domain

    def signs_all_authors(self, fields: Fields) -> bool:
        """Is no From left for others to add (§8.15)?"""
        return self.names.count(b"from") >= len(fields.named(b"from"))

    def result(self, result: DkimResult, why: str, bits: int = 0, *, covered: bool = True) -> Signature:
        """What it came to."""
        return Signature(result, self.domain, self.selector, self.identity, self.algorithm, bits, covered, why)


class NotAcceptable(Exception):
    """A signature that counts for nothing."""

    def __init__(self, result: DkimResult, why: str) -> None:
        super().__init__(why)
        self.result: DkimResult = result
        self.why = why


def signature(field: bytes, now: float) -> Signed | Signature:
    """The DKIM-Signature field at `now` (seconds since the epoch), or why it counts for nothing."""
    found: dict[str, bytes] = {}
    try:
        found = _tags(field)
        signed = _versioned(field, found)
        _identity(signed, found)
        _in_time(found, now)
        return signed
    except NotAcceptable as error:
        domain, algorithm = _text(found, "d"), _text(found, "a")
        identity = _text(found, "i") or f"@{domain}"
        return Signature(error.result, domain, _text(found, "s"), identity, algorithm, 0, covered=True, why=error.why)


def _versioned(field: bytes, found: dict[str, bytes]) -> Signed:
    if found.get("v") != b"1":
        raise NotAcceptable("permerror", "not version 1")
    return read(field, found)


def read(field: bytes, found: dict[str, bytes]) -> Signed:
    """What the tags of a signature say, be it DKIM's or ARC's. Raises NotAcceptable."""
    for tag in ("a", "b", "bh", "d", "h", "s"):
        if not found.get(tag):
            raise NotAcceptable("permerror", f"{tag}= is missing")
    names = tuple(name.strip().lower() for name in found["h"].split(b":"))
    if not all(map(_NAME.fullmatch, names)):
        raise NotAcceptable("neutral", "h= holds what is no name of a field")
    if b"from" not in names:
        raise NotAcceptable("permerror", "From is not signed")
    header, _, body = found.get("c", b"simple").partition(b"/")
    if not {header, body or b"simple"} <= {b"simple", b"relaxed"}:
        raise NotAcceptable("neutral", "c= is not known")
    if b"dns/txt" not in found.get("q", b"dns/txt").replace(b" ", b"").split(b":"):
        raise NotAcceptable("neutral", "q= is not known")
    limit = found.get("l")
    if limit is not None and not _NUMBER.fullmatch(limit):
        raise NotAcceptable("neutral", "l= is not a number")
    return Signed(
        field=field,
        domain=domain(found["d"]),
        selector=selector(found["s"]),
        identity=_text(found, "i") or f"@{domain(found['d'])}",
        algorithm=algorithm(found["a"]),
        names=names,
        relaxed_header=header == b"relaxed",
        relaxed_body=body == b"relaxed",
        limit=None if limit is None else int(limit),
        body_digest=octets(found["bh"]),
        signature=octets(found["b"]),
    )


def algorithm(value: bytes) -> Algorithm:
    """a=. RFC 8301 §3.1: what is signed with rsa-sha1 has failed."""
    match value.lower():
        case b"rsa-sha256":
            return "rsa-sha256"
        case b"ed25519-sha256":  # RFC 8463
            return "ed25519-sha256"
        case b"rsa-sha1":
            raise NotAcceptable("fail", "rsa-sha1 is not acceptable")
    raise NotAcceptable("neutral", "a= is not known")


def domain(value: bytes) -> str:
    """d=, in ASCII (RFC 8616 §5 allows it in UTF-8)."""
    if name := ascii_form(value.decode("utf-8", "replace")):
        return name
    raise NotAcceptable("neutral", "d= is no domain")


def selector(value: bytes) -> str:
    """s=."""
    if not _SELECTOR.fullmatch(value):
        raise NotAcceptable("neutral", "s= is no selector")
    return value.decode("ascii").lower()


def octets(value: bytes) -> bytes:
    """What stands in base64."""
    try:
        return base64.b64decode(without_white(value), validate=True)
    except binascii.Error:
        raise NotAcceptable("neutral", "not base64") from None


def _tags(field: bytes) -> dict[str, bytes]:
    if len(field) > MAX_FIELD:
        raise NotAcceptable("neutral", "the field is too long")
    try:
        return tags(field.partition(b":")[2])
    except ValueError as error:
        raise NotAcceptable("neutral", str(error)) from None


def _identity(signed: Signed, found: dict[str, bytes]) -> None:
    if "i" in found:
        _, at, host = signed.identity.rpartition("@")
        if not at or not within(ascii_form(host), signed.domain):
            raise NotAcceptable("permerror", "i= is not within d=")


def _in_time(found: dict[str, bytes], now: float) -> None:
    times = {tag: found[tag] for tag in ("t", "x") if tag in found}
    if not all(map(_NUMBER.fullmatch, times.values())):
        raise NotAcceptable("neutral", "t= or x= is not a number")
    signed, expires = (int(times[tag]) if tag in times else None for tag in ("t", "x"))
    if signed is not None and signed > now + _CLOCKS_DIFFER:
        raise NotAcceptable("policy", "signed in the future")
    if expires is not None and signed is not None and expires < signed:
        raise NotAcceptable("permerror", "expired before it was signed")
    if expires is not None and expires < now - _CLOCKS_DIFFER:
        raise NotAcceptable("policy", "expired")


def _text(found: dict[str, bytes], tag: str) -> str:
    return found.get(tag, b"").decode("utf-8", "replace")[:320]
