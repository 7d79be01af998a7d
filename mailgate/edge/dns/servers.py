"""The name servers, one after the other, and which of them is believed alive.

A server that is slow with one name is not dead: others' names would suffer for it. So one that has left a few questions
in a row unanswered is asked for the root first, which every resolver answers at once; only if it does not answer that
is it left alone until it does. While none is alive a question costs nothing: its answer is "timeout" at once.
What shows: `dns.down` and `dns.up`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

import dns.exception
import dns.message
import dns.resolver

from mailgate.core.auth import Answer, RecordType, Resolved
from mailgate.core.endpoint import Endpoint
from mailgate.edge.dns import wire
from mailgate.ports import Telemetry
from mailgate.turns import Turns

_FIRST = 1.5  # seconds until a question is asked again: a datagram may be lost
_IN_ALL = 5.0  # seconds for a question
_SILENT = 3  # questions without an answer
_PROBE = 1.0  # seconds that a probe waits, and from one to the next


@dataclass(slots=True, eq=False)
class _Server:
    at: Endpoint
    silent: int = 0
    down: bool = False
    probing: asyncio.Task[None] | None = None


def system_nameservers() -> tuple[Endpoint, ...]:
    """Those of /etc/resolv.conf, or this host if it names none (resolv.conf(5))."""
    try:
        found = dns.resolver.Resolver(configure=True)
    except dns.exception.DNSException:
        return (Endpoint("127.0.0.1", 53),)
    return tuple(Endpoint(str(at), found.port) for at in found.nameservers)


class Servers:
    """Questions go to the first that lives, then to the others."""

    def __init__(self, servers: Sequence[Endpoint], telemetry: Telemetry) -> None:
        """Raises ValueError for one that is not an IP address: whom should we ask for it?"""
        for at in servers:
            ipaddress.ip_address(at.host)
        self._servers = tuple(_Server(at) for at in servers)
        self._telemetry = telemetry
        self._turns = Turns()

    async def ask(self, name: str, record: RecordType) -> wire.Said | None:
        """What they say within _IN_ALL seconds; None, and nobody is asked, if there can't be such a name."""
        question = await self._turns.take(lambda: wire.query(name, record))
        if question is None:
            return None
        loop = asyncio.get_running_loop()
        end = loop.time() + _IN_ALL
        worst: Answer = "timeout"
        patience = _FIRST
        while alive := [server for server in self._servers if not server.down]:
            for server in alive:
                left = end - loop.time()
                if left <= 0:
                    return wire.Said(Resolved(worst), _IN_ALL)
                found = await self._one(server, question, record, min(patience, left))
                if found.resolved.known:
                    return found
                worst = found.resolved.answer
            if worst != "timeout":  # all have spoken; nobody says more when asked twice
                return wire.Said(Resolved(worst), _IN_ALL)
            patience = _IN_ALL
        return wire.Said(Resolved("timeout"), 0.0)

    async def close(self) -> None:
        """End the probes."""
        for server in self._servers:
            if server.probing:
                server.probing.cancel()
                await asyncio.gather(server.probing, return_exceptions=True)

    async def _one(
        self, server: _Server, question: dns.message.QueryMessage, record: RecordType, patience: float
    ) -> wire.Said:
        try:
            answer = await wire.ask(server.at, question, patience, self._turns)
            server.silent = 0
            return wire.said(answer, record)
        except TimeoutError:
            self._unanswered(server)
            return wire.Said(Resolved("timeout"), 0.0)
        except wire.Garbage:
            return wire.Said(Resolved("garbage"), 0.0)
        except OSError:
            self._unanswered(server)
            return wire.Said(Resolved("servfail"), 0.0)

    def _unanswered(self, server: _Server) -> None:
        server.silent += 1
        if server.silent >= _SILENT and server.probing is None:
            server.probing = asyncio.create_task(self._probe(server))

    def _down(self, server: _Server) -> None:
        server.down = True
        none_left = all(one.down for one in self._servers)
        cause = "no name server answers" if none_left else "the others are asked"
        fields = {"server": str(server.at), "cause": cause}
        self._telemetry.event("dns.down", fields, level="error" if none_left else "warning")

    async def _probe(self, server: _Server) -> None:
        """Ask until it answers."""
        try:
            while not await _alive(server.at, self._turns):
                if not server.down:
                    self._down(server)
                await asyncio.sleep(_PROBE)
            if server.down:
                self._telemetry.event("dns.up", {"server": str(server.at)})
        except Exception:  # noqa: BLE001  a bug must not leave a server out for ever
            self._telemetry.event("dns.failed", {"trace": traceback.format_exc()}, level="error")
        finally:
            server.silent, server.down, server.probing = 0, False, None


async def _alive(at: Endpoint, turns: Turns) -> bool:
    try:
        await wire.ask(at, wire.probe(), _PROBE, turns)
    except (TimeoutError, OSError):
        return False
    except wire.Garbage:
        return True
    return True
