"""A chain of ARC sets as the header has it: is it one, and what do its seals sign? RFC 8617 §4.2, §5.2."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from mailgate.core import dkim
from mailgate.core.dkim import Algorithm, NotAcceptable, Signed
from mailgate.core.signed_fields import Fields, relaxed_field, tags, unsigned

MAX_SETS = 50  # §4.2.1
_RESULTS, _MESSAGE, _SEAL = b"arc-authentication-results", b"arc-message-signature", b"arc-seal"
_INSTANCE = re.compile(rb"[ \t\r\n]*i[ \t\r\n]*=[ \t\r\n]*([0-9]{1,3})[ \t\r\n]*;")
_NUMBER = re.compile(rb"[0-9]{1,3}")


class Broken(Exception):
    """No chain at all, or one that says itself that it is broken: the result is `fail`."""


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal, `digest` is what it signs: all sets up to its own."""

    instance: int
    domain: str
    selector: str
    algorithm: Algorithm
    signature: bytes
    digest: hashlib._Hash

    @property
    def key_name(self) -> str:
        """Where its key is published."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class Chain:
    """The seals, the oldest first, and the newest set's signature of the message."""

    seals: tuple[Seal, ...]
    newest: Signed


def present(fields: Fields) -> bool:
    """Is there anything of ARC's?"""
    return any(map(fields.named, (_RESULTS, _MESSAGE, _SEAL)))


def chain(fields: Fields) -> Chain:
    """The chain, as far as its form goes. Raises Broken."""
    results, messages, seals = (_by_instance(fields.named(name), name) for name in (_RESULTS, _MESSAGE, _SEAL))
    most = max(results | messages | seals)
    instances = range(1, most + 1)
    if any(set(one) != set(instances) for one in (results, messages, seals)):
        raise Broken(f"not every set from 1 to {most} is whole")
    read = {instance: _tags(seals[instance]) for instance in instances}
    if read[most].get("cv", b"").lower() == b"fail":
        raise Broken(f"set {most} says that the chain had failed before")
    for instance in instances:
        if read[instance].get("cv", b"").lower() != (b"none" if instance == 1 else b"pass"):
            raise Broken(f"seal {instance} has a wrong cv=")
    running = hashlib.sha256()
    found = []
    for instance in instances:
        running.update(relaxed_field(results[instance]))
        running.update(relaxed_field(messages[instance]))
        found.append(_seal(instance, seals[instance], read[instance], running))
        running.update(relaxed_field(seals[instance]))
    return Chain(tuple(found), _newest(messages[most]))


def _seal(instance: int, field: bytes, found: dict[str, bytes], before: hashlib._Hash) -> Seal:
    if "h" in found:  # §4.1.3
        raise Broken(f"seal {instance} has h=")
    own = before.copy()
    own.update(relaxed_field(unsigned(field)).rstrip(b"\r\n"))
    if missing := [tag for tag in ("a", "b", "d", "s") if not found.get(tag)]:
        raise Broken(f"seal {instance}: {missing[0]}= is missing")
    try:
        return Seal(
            instance=instance,
            domain=dkim.domain(found["d"]),
            selector=dkim.selector(found["s"]),
            algorithm=dkim.algorithm(found["a"]),
            signature=dkim.octets(found["b"]),
            digest=own,
        )
    except NotAcceptable as error:
        raise Broken(f"seal {instance}: {error.why}") from None


def _newest(field: bytes) -> Signed:
    """§4.1.2: like DKIM's, without v=, and it does not sign seals."""
    try:
        signed = dkim.read(field, _tags(field))
    except NotAcceptable as error:
        raise Broken(f"the newest message signature: {error.why}") from None
    if _SEAL in signed.names:
        raise Broken("the newest message signature signs a seal")
    return signed


def _by_instance(fields: list[bytes], name: bytes) -> dict[int, bytes]:
    if len(fields) > MAX_SETS:
        raise Broken(f"more than {MAX_SETS} sets")
    found: dict[int, bytes] = {}
    for field in fields:
        instance = _instance(field, name)
        if instance in found:
            raise Broken(f"set {instance} has a field twice")
        found[instance] = field
    return found


def _instance(field: bytes, name: bytes) -> int:
    """§4.2.1. In the results it stands first."""
    if name == _RESULTS:
        written = _INSTANCE.match(field, field.index(b":") + 1)
        value = written[1] if written else b""
    else:
        value = _tags(field).get("i", b"")
    if not _NUMBER.fullmatch(value) or not 0 < int(value) <= MAX_SETS:
        raise Broken("a set without an instance from 1 to 50")
    return int(value)


def _tags(field: bytes) -> dict[str, bytes]:
    if len(field) > dkim.MAX_FIELD:
        raise Broken("a field is too long")
    try:
        return tags(field.partition(b":")[2])
    except ValueError as error:
        raise Broken(str(error)) from None
