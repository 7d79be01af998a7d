"""The resolver that all messages share: one cache, one question at a time for one name, a bound on all of them.

Promises: an answer by the caller's deadline, whatever the servers do; what others asked meanwhile is not asked again;
no more than _AT_ONCE questions are under way, each with an end of its own, so that an answer that comes too late for
one message is there for the next.
How it fails: never with an exception (a bug is "servfail", and the event `dns.failed`); see `core.auth.Answer`.
What shows: `mailgate_dns_seconds`, `mailgate_dns_queries_total`, `mailgate_dns_lookups_total`.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence

from mailgate.core.auth import RecordType, Resolved
from mailgate.core.endpoint import Endpoint
from mailgate.edge.dns.cache import Cache, Key
from mailgate.edge.dns.servers import Servers
from mailgate.ports import Telemetry

_AT_ONCE = 200  # questions, each with a socket


class Resolver:
    """Use one for all messages, on one loop."""

    def __init__(self, nameservers: Sequence[Endpoint], telemetry: Telemetry) -> None:
        self._servers = Servers(nameservers, telemetry)
        self._telemetry = telemetry
        self._cache = Cache()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._asked: dict[Key, asyncio.Task[Resolved]] = {}
        self._waiting: dict[Key, int] = {}

    async def resolve(self, name: str, record: RecordType, deadline: float) -> Resolved:
        """What the DNS says of `name`, by `deadline` (of the loop's clock)."""
        key = (name.lower().removesuffix("."), record)
        loop = asyncio.get_running_loop()
        if known := self._cache.find(key, loop.time()):
            self._telemetry.count("dns_lookups", source="cache")
            return known
        task = self._asked.get(key)
        self._telemetry.count("dns_lookups", source="shared" if task else "asked")
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._ask(key))
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            await asyncio.wait({task}, timeout=max(deadline - loop.time(), 0))
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
        return task.result() if task.done() and not task.cancelled() else Resolved("timeout")

    async def close(self) -> None:
        """End what is under way."""
        for task in self._asked.values():
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
        await self._servers.close()

    async def _ask(self, key: Key) -> Resolved:
        loop = asyncio.get_running_loop()
        try:
            async with self._slots:
                if key not in self._waiting:  # all have given up while it waited for a slot
                    return Resolved("timeout")
                started = loop.time()
                said = await self._servers.ask(*key)
            if said is None:
                return Resolved("nxdomain")
            self._telemetry.observe("dns_seconds", loop.time() - started)
            self._telemetry.count("dns_queries", answer=said.resolved.answer)
            if said.ttl > 0:
                self._cache.keep(key, said.resolved, said.ttl, loop.time())
            return said.resolved
        except Exception:  # noqa: BLE001  the checks go on without this answer
            self._telemetry.event("dns.failed", {"trace": traceback.format_exc()}, level="error")
            return Resolved("servfail")
        finally:
            del self._asked[key]
