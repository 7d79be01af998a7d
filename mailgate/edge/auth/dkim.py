"""DKIM: each signature for itself, all of them at once. RFC 6376 §6.1.

Promises: a result for each of the first MAX_SIGNATURES signatures, and one for all others together; what the DNS or the
deadline keeps from being known is `temperror`, never "no key".
"""

from __future__ import annotations

import asyncio
from functools import partial

from mailgate.core import dkim
from mailgate.core.auth import Signature
from mailgate.core.dkim import MAX_SIGNATURES, NotAcceptable, Signed
from mailgate.core.dkim_key import KeyRecord, key_record
from mailgate.core.signed_fields import Fields
from mailgate.edge.auth.asking import Asking
from mailgate.edge.auth.keys import Key, key
from mailgate.edge.auth.octets import Bodies
from mailgate.turns import Turns


def signatures(fields: Fields, now: float) -> list[Signed | Signature]:
    """Those of a message at `now` (seconds since the epoch): to be checked, or settled already."""
    found = fields.named(b"dkim-signature")
    read = [dkim.signature(field, now) for field in found[:MAX_SIGNATURES]]
    if len(found) > MAX_SIGNATURES:
        why = f"{len(found) - MAX_SIGNATURES} more were not looked at"
        read.append(Signature("neutral", "", "", "", "", 0, covered=True, why=why))
    return read


class Checking:
    """The signatures of one message."""

    def __init__(self, fields: Fields, bodies: Bodies, asking: Asking, turns: Turns) -> None:
        self._fields = fields
        self._bodies = bodies
        self._asking = asking
        self._turns = turns

    async def all(self, found: list[Signed | Signature], deadline: float) -> tuple[Signature, ...]:
        """What they come to, by `deadline` (of the loop's clock)."""
        return tuple(await asyncio.gather(*(self._one(one, deadline) for one in found)))

    async def _one(self, signed: Signed | Signature, deadline: float) -> Signature:
        if isinstance(signed, Signature):
            return signed
        bits = 0
        try:
            async with asyncio.timeout_at(deadline):
                record, public = await self.key(signed)
                bits = public.bits
                if record.strict and not signed.for_domain_itself:
                    return signed.result("permerror", "the key is not for subdomains", bits)
                covered = await self.holds(signed, public)
        except NotAcceptable as error:
            return signed.result(error.result, error.why, bits)
        except TimeoutError:
            return signed.result("temperror", "not done in time", bits)
        why = f"{bits} bit key" if public.bits != 256 else "ed25519 key"
        if not covered:
            why += ", the end of the body is not signed"
        if record.testing:
            why += ", being tried out"
        return signed.result("pass", why, bits, covered=covered)

    async def key(self, signed: Signed) -> tuple[KeyRecord, Key]:
        """The key of a signature. Raises NotAcceptable."""
        record = key_record(await self._asking.ask(signed.key_name, "TXT"), signed.algorithm)
        return record, await self._turns.take(partial(key, record))

    async def holds(self, signed: Signed, public: Key) -> bool:
        """Whether a signature that holds covers all of the body. Raises NotAcceptable if it does not hold."""
        body = await self._bodies.digests(relaxed=signed.relaxed_body)
        digest = body.digest(signed.limit)
        if digest is None:
            raise NotAcceptable("permerror", "l= is larger than the body")
        if digest != signed.body_digest:
            raise NotAcceptable("fail", "the body is not what was signed")
        if not signed.signs_all_authors(self._fields):
            raise NotAcceptable("policy", "there is a From that is not signed")
        octets = self._fields.octets(signed.names, signed.field, relaxed=signed.relaxed_header)
        if not await self._turns.take(partial(public.signed, octets, signed.signature)):
            raise NotAcceptable("fail", "the header is not what was signed")
        return signed.limit is None or signed.limit == body.length
