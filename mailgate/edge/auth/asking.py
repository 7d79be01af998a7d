"""What one message may ask the DNS: so many questions for each check, until the deadline.

Each check has questions of its own, so that a message that wastes them in one (a chain of fifty seals, an SPF record
that goes on and on) does not get around the others. The same question is asked once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mailgate.core.auth import Lookup, RecordType, Resolved
from mailgate.ports import Resolver


@dataclass(slots=True)
class Asked:
    """What a message asked in all: by all checks, in the order of the answers."""

    deadline: float
    lookups: list[Lookup]


class Asking:
    """The questions of one check for one message: no more than `most`."""

    def __init__(self, resolver: Resolver, asked: Asked, most: int) -> None:
        self._resolver = resolver
        self._asked = asked
        self._left = most
        self._known: dict[tuple[str, RecordType], asyncio.Task[Resolved]] = {}

    async def ask(self, name: str, record: RecordType) -> Resolved:
        """What the DNS says of `name`; "too-many" if it is not asked any more, "timeout" at the deadline."""
        key = (name.lower(), record)
        if key not in self._known:
            self._left -= 1
            if self._left < 0:
                return self._said(name, record, Resolved("too-many"), 0.0)
            self._known[key] = asyncio.ensure_future(self._new(name, record))
        task = self._known[key]
        if not task.done():
            # Not `await task`: whoever is cancelled while it waits would take the answer from all others who do.
            await asyncio.wait({task})
        return Resolved("timeout") if task.cancelled() else task.result()

    async def _new(self, name: str, record: RecordType) -> Resolved:
        loop = asyncio.get_running_loop()
        started = loop.time()
        found = await self._resolver.resolve(name, record, self._asked.deadline)
        return self._said(name, record, found, loop.time() - started)

    def _said(self, name: str, record: RecordType, found: Resolved, seconds: float) -> Resolved:
        self._asked.lookups.append(Lookup(name, record, found.answer, seconds, found.cached))
        return found
