"""The record that publishes a DKIM key, and what it allows. RFC 6376 §3.6.1, RFC 8301, RFC 8463."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mailgate.core.auth import Resolved
from mailgate.core.dkim import Algorithm, NotAcceptable, octets
from mailgate.core.signed_fields import tags

MAX_KEY = 2048  # octets of p=: rsa with 4096 bits takes 736
_MOST = 4  # records of a name that are looked at
MIN_BITS, MAX_BITS = 1024, 4096  # RFC 8301 §3.2


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key that is there. `strict`: i= has to be d= itself (t=s). `testing`: its owner only tries it out (t=y)."""

    kind: Literal["rsa", "ed25519"]
    octets: bytes
    strict: bool
    testing: bool


def key_record(resolved: Resolved, algorithm: Algorithm) -> KeyRecord:
    """The key for a signature of this algorithm, by what the DNS said. Raises NotAcceptable: "no key" says a DNS
    that answers, any other trouble is `temperror` (§6.1.2).
    """
    if not resolved.known:
        raise NotAcceptable("temperror", f"key: {resolved.answer}")
    if resolved.answer != "found":
        raise NotAcceptable("permerror", f"no key ({resolved.answer})")
    record = _first(resolved.records)
    if (record.kind == "rsa") is not (algorithm == "rsa-sha256"):
        raise NotAcceptable("permerror", f"the key is for {record.kind}")
    return record


def _first(records: tuple[bytes, ...]) -> KeyRecord:
    """§6.1.2: of several any one; the first that is a key, in an order that does not change from answer to answer."""
    wrong: list[NotAcceptable] = []
    for text in sorted(records)[:_MOST]:
        try:
            return _record(text)
        except NotAcceptable as error:
            wrong.append(error)
    raise wrong[0]


def _record(text: bytes) -> KeyRecord:
    try:
        found = tags(text)
    except ValueError as error:
        raise NotAcceptable("permerror", f"key: {error}") from None
    if "v" in found and (found["v"] != b"DKIM1" or next(iter(found)) != "v"):
        raise NotAcceptable("permerror", "key: not version DKIM1")
    if "p" not in found:
        raise NotAcceptable("permerror", "key: p= is missing")
    if not found["p"]:
        raise NotAcceptable("permerror", "the key is revoked")
    if b"sha256" not in _listed(found.get("h", b"sha256")):
        raise NotAcceptable("permerror", "the key is not for sha256")
    if not {b"*", b"email"} & _listed(found.get("s", b"*")):
        raise NotAcceptable("permerror", "the key is not for mail")
    kind = found.get("k", b"rsa").lower()
    if kind not in {b"rsa", b"ed25519"}:
        raise NotAcceptable("permerror", "key: k= is not known")
    if len(found["p"]) > MAX_KEY:
        raise NotAcceptable("policy", "the key is too long")
    try:
        key = octets(found["p"])
    except NotAcceptable:
        raise NotAcceptable("permerror", "key: not base64") from None
    flags = _listed(found.get("t", b""))
    return KeyRecord("rsa" if kind == b"rsa" else "ed25519", key, strict=b"s" in flags, testing=b"y" in flags)


def _listed(value: bytes) -> set[bytes]:
    return {part.strip().lower() for part in value.split(b":")}
