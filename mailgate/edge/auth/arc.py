"""ARC: is the chain of seals whole? RFC 8617 §5.2.

Promises: one result by the deadline; a seal that does not hold is `fail`, whatever could not be known of others.
"""

from __future__ import annotations

import asyncio

from mailgate.core.arc import Chain, Seal
from mailgate.core.auth import Arc
from mailgate.core.dkim import NotAcceptable
from mailgate.core.dkim_key import key_record
from mailgate.edge.auth.asking import Asking
from mailgate.edge.auth.dkim import Checking
from mailgate.edge.auth.keys import key
from mailgate.turns import Turns


async def check(chain: Chain, checking: Checking, asking: Asking, turns: Turns, deadline: float) -> Arc:
    """What the chain comes to, by `deadline` (of the loop's clock). `checking` is that of the message."""
    sealers = tuple(seal.domain for seal in chain.seals)
    try:
        async with asyncio.timeout_at(deadline):
            # The newest set first: most broken chains end there, and the keys of the others are not asked for.
            newest = await asyncio.gather(_message(chain, checking), _seal(chain.seals[-1], asking, turns))
            worst = _worst(newest)
            if worst is None or worst.result == "temperror":
                others = await asyncio.gather(*(_seal(seal, asking, turns) for seal in chain.seals[:-1]))
                worst = _worst([worst, *others])
    except TimeoutError:
        return Arc("temperror", sealers, "not done in time")
    if worst is None:
        return Arc("pass", sealers, f"{len(sealers)} set{'s' if len(sealers) > 1 else ''}")
    return Arc("temperror" if worst.result == "temperror" else "fail", sealers, worst.why)


def _worst(found: list[NotAcceptable | None] | tuple[NotAcceptable | None, ...]) -> NotAcceptable | None:
    troubles = [one for one in found if one]
    return next((one for one in troubles if one.result != "temperror"), troubles[0] if troubles else None)


async def _message(chain: Chain, checking: Checking) -> NotAcceptable | None:
    try:
        _, public = await checking.key(chain.newest)
        await checking.holds(chain.newest, public)
    except NotAcceptable as error:
        return NotAcceptable(error.result, f"newest message signature: {error.why}")
    return None


async def _seal(seal: Seal, asking: Asking, turns: Turns) -> NotAcceptable | None:
    try:
        record = key_record(await asking.ask(seal.key_name, "TXT"), seal.algorithm)
        holds = await turns.take(lambda: key(record).signed_digest(seal.digest, seal.signature))
    except NotAcceptable as error:
        return NotAcceptable(error.result, f"seal {seal.instance}: {error.why}")
    return None if holds else NotAcceptable("fail", f"seal {seal.instance} is not of these sets")
