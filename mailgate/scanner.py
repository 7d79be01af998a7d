"""The story of one spam scan: the servers in turn, within one deadline.

Promises: an answer by the deadline; a server that failed is not asked again until it has answered a probe, so one that
hangs costs the messages under way one `spam.timeout` and those behind them nothing; one that scores other messages
meanwhile has not failed, however long it takes over one; no more than `connections` messages are at a server at once,
and the time that others wait counts.
How it fails: never with an exception (a bug is Unscored, and the event `spam.failed`: a scorer must not stop the mail).
What shows: `spam.server.down` and `spam.server.up`, with ALL_FAILED when none is left; `mailgate_spam_scans_total`.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from mailgate.core.breaker import Breaker
from mailgate.core.envelope import Client, Envelope
from mailgate.core.message import Message
from mailgate.core.scan import ALL_FAILED, Scored, Unscored
from mailgate.ports import Scorer, Telemetry
from mailgate.strays import caught

_PROBE = 5.0  # seconds that a probe waits at most
_MOST_DOUBT = 15.0  # seconds until a probe of a server that answers probes and nothing else


@dataclass(slots=True, eq=False)
class _Server:
    """`doubt`: seconds until it is probed after its next failure; `scored_at`: when last, of the loop's clock."""

    scorer: Scorer
    breaker: Breaker
    busy: int = 0
    doubt: float = 0.0
    scored_at: float = 0.0
    proven: bool = True  # has it scored since it came back?
    down: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def free(self) -> bool:
        return self.busy < self.breaker.allowed


@dataclass(slots=True, eq=False)
class _Waiter:
    """A message that waits for one of the servers that it has not been to; None if they are all down."""

    been: list[_Server]
    slot: asyncio.Future[_Server | None]


_Ask = Callable[[Scorer, float], Awaitable[Scored | Unscored]]


class Scorers:
    """All servers of one engine, in the order of the configuration. `watch` must run for one to come back.

    `timeout` (seconds for a message, all servers together) and `probe_interval` (seconds) may be replaced; `on_change`
    is called when a server went down or came back.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        telemetry: Telemetry,
        *,
        timeout: float,
        connections: int = 8,
        probe_interval: float = 1.0,
    ) -> None:
        self.timeout = timeout
        self.on_change: Callable[[], None] = lambda: None
        self._servers = tuple(_Server(scorer, Breaker(connections)) for scorer in scorers)
        self._telemetry = telemetry
        self.probe_interval = probe_interval
        self._waiters: deque[_Waiter] = deque()
        for scorer in scorers:
            for result in ("scored", "unscored"):
                telemetry.count("spam_scans", 0, result=result, server=scorer.name)

    @property
    def available(self) -> bool:
        """False while no server is believed alive."""
        return any(self._alive([]))

    @property
    def states(self) -> dict[str, bool]:
        """Each server, and whether it is believed alive."""
        return {server.scorer.name: not server.breaker.is_open for server in self._servers}

    async def scan(
        self, envelope: Envelope, message: Message, client: Client, deadline: float, queue_id: str = ""
    ) -> Scored | Unscored:
        """The score of the message, by `deadline` (of the loop's clock) and within `timeout`."""
        loop = asyncio.get_running_loop()
        started = loop.time()

        def ask(scorer: Scorer, by: float) -> Awaitable[Scored | Unscored]:
            return scorer.score(envelope, message, client, by, queue_id)

        found = await self._in_turn(ask, min(deadline, started + self.timeout))
        self._telemetry.observe("stage_seconds", loop.time() - started, queue_id, stage="spam")
        if isinstance(found, Scored):
            self._telemetry.observe("spam_score", found.score)
        return found

    async def watch(self) -> None:
        """Probe each server that is down, for as long as the daemon runs."""
        async with asyncio.TaskGroup() as group:
            for server in self._servers:
                group.create_task(self._probe(server))

    async def close(self) -> None:
        """Give back what the scorers hold open."""
        for server in self._servers:
            await server.scorer.close()

    async def _in_turn(self, ask: _Ask, end: float) -> Scored | Unscored:
        loop = asyncio.get_running_loop()
        been: list[_Server] = []
        failures: list[Unscored] = []
        while True:
            try:
                # For half of the time only: who begins with little time left would be taken for a server's failure.
                server = await self._enter(been, loop.time() + (end - loop.time()) / 2)
            except TimeoutError:
                failures.append(Unscored("busy", "no spamd server became free in time"))
                return _all_of(failures)
            if server is None:
                return _all_of(failures) if failures else Unscored("unavailable", self._why())
            try:
                found = await self._try(server, been, ask, end)
            finally:
                self._leave(server)
            if isinstance(found, Scored):
                return found
            failures.append(Unscored(found.reason, f"{server.scorer.name}: {found.detail}"))
            been.append(server)

    async def _try(self, server: _Server, been: list[_Server], ask: _Ask, end: float) -> Scored | Unscored:
        """Ask one server, for its share of the time that is left: one that hangs must leave some to the others."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        by = now + (end - now) / len({server, *self._alive(been)})
        try:
            found = await caught(ask(server.scorer, by))
        except Exception:  # noqa: BLE001  a bug in a scorer must not stop the mail
            self._telemetry.event(
                "spam.failed", {"server": server.scorer.name, "trace": traceback.format_exc()}, level="error"
            )
            found = Unscored("error", "trouble of our own")
        self._telemetry.count(
            "spam_scans", result="scored" if isinstance(found, Scored) else "unscored", server=server.scorer.name
        )
        if isinstance(found, Scored):
            server.proven, server.doubt, server.scored_at = True, 0.0, loop.time()
            server.breaker.succeeded()
        elif found.reason == "refused" or (
            server.scored_at <= now and self._was_slow(by - now if found.reason == "timeout" else loop.time() - now)
        ):
            self._down(server, found.detail)
        return found

    def _was_slow(self, seconds: float) -> bool:
        """Has it cost a message so much time that no other is to pay it? (A caller in a hurry waits for less.)

        A failure that cost no time is one message's own, and so is a slow one while others are scored: a stranger who
        knows how to make one must not switch off the scanning of everybody's mail by it.
        """
        return seconds >= self.timeout / (2 * len(self._servers))

    def _why(self) -> str:
        return "; ".join(f"{server.scorer.name}: {server.breaker.reason}" for server in self._servers)

    # the servers' places

    def _alive(self, been: list[_Server]) -> list[_Server]:
        return [server for server in self._servers if not server.breaker.is_open and server not in been]

    async def _enter(self, been: list[_Server], until: float) -> _Server | None:
        """A place at one of the servers that the message has not been to, in turn; None when those are all down.
        TimeoutError when none became free by then.
        """
        waiter = _Waiter(been, asyncio.get_running_loop().create_future())
        # Who comes for the second time has waited the longest.
        (self._waiters.appendleft if been else self._waiters.append)(waiter)
        self._wake()
        try:
            async with asyncio.timeout_at(until):
                return await waiter.slot
        except (TimeoutError, asyncio.CancelledError):
            if not waiter.slot.cancelled() and (server := waiter.slot.result()):
                self._leave(server)  # it was ours already
            raise

    def _leave(self, server: _Server) -> None:
        server.busy -= 1
        self._wake()

    def _wake(self) -> None:
        """Give out free places, and tell those for whom no server is left."""
        for waiter in tuple(self._waiters):
            alive = self._alive(waiter.been)
            server = next((one for one in alive if one.free), None)
            if server is None and alive:
                if not waiter.been:
                    break  # nobody behind this one has more choice
                continue
            self._waiters.remove(waiter)
            if waiter.slot.done():
                continue  # it has given up
            if server is not None:
                server.busy += 1
            waiter.slot.set_result(server)

    # the breakers

    def _down(self, server: _Server, cause: str) -> None:
        if not server.breaker.failed(cause):
            return
        if not server.proven:  # it answers probes and nothing else
            server.doubt = min(max(2 * server.doubt, self.probe_interval), _MOST_DOUBT)
        server.down.set()
        fields = {"server": server.scorer.name, "cause": cause}
        if self.available:
            self._telemetry.event("spam.server.down", fields, level="warning")
        else:
            self._telemetry.event("spam.server.down", {**fields, "text": ALL_FAILED}, level="error")
        self.on_change()

    async def _probe(self, server: _Server) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await server.down.wait()
            await asyncio.sleep(server.doubt)
            while cause := await server.scorer.ping(loop.time() + min(self.timeout, _PROBE)):
                server.breaker.reason = cause
                await asyncio.sleep(self.probe_interval)
            server.down.clear()
            server.proven = False
            server.breaker.probed()
            self._telemetry.event("spam.server.up", {"server": server.scorer.name})
            self._wake()
            self.on_change()


def _all_of(failures: list[Unscored]) -> Unscored:
    return Unscored(failures[-1].reason, "; ".join(failure.detail for failure in failures))
