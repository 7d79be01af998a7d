"""The octets of a message as signatures see them: fields by name, and digests of the body, in short steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

from mailgate.core.dkim import Signed
from mailgate.core.dkim_body import BodyDigests
from mailgate.core.message import Message
from mailgate.core.signed_fields import Fields
from mailgate.turns import Turns

_PIECE = 64 * 1024  # octets of a body in a step: 1 ms, 10 for the most unfortunate ones
_FIELDS = 3000  # in a step: 3 ms


async def fields(message: Message, turns: Turns) -> Fields:
    """The fields of its header."""
    found = Fields(message.head)
    while not await turns.take(partial(found.read, _FIELDS)):
        pass
    return found


class Bodies:
    """The digests of the body that these signatures are about: one pass for each canonical form, once it is needed."""

    def __init__(self, message: Message, turns: Turns, signatures: Iterable[Signed]) -> None:
        self._message = message
        self._turns = turns
        self._limits = [(one.relaxed_body, one.limit) for one in signatures if one.limit is not None]
        self._passes: dict[bool, asyncio.Task[BodyDigests]] = {}

    async def digests(self, *, relaxed: bool) -> BodyDigests:
        """Those of one form."""
        if relaxed not in self._passes:
            self._passes[relaxed] = asyncio.create_task(self._pass(relaxed=relaxed))
        task = self._passes[relaxed]
        if not task.done():
            # Not `await task`: a signature that is given up would take the digests from all others.
            await asyncio.wait({task})
        return task.result()

    def give_up(self) -> None:
        """Make none any more: nobody waits for them."""
        for task in self._passes.values():
            task.cancel()

    async def _pass(self, *, relaxed: bool) -> BodyDigests:
        found = BodyDigests(relaxed=relaxed, limits=[limit for form, limit in self._limits if form is relaxed])
        for piece in self._message.body:
            for start in range(0, len(piece), _PIECE):
                await self._turns.take(partial(found.update, piece[start : start + _PIECE]))
        found.finish()
        return found
