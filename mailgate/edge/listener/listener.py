"""Where the relay door listens, who may come in, and how it ends.

Duty: servers on TCP and unix sockets; peers outside `relay.trusted_peers` and more than `relay.max_connections` are
answered 421 (a 4xx, so that a wrong setting costs nobody mail); the octets of all messages under way are bounded by
`relay.max_in_flight`; a session whose peer hangs up ends only when its message has found an end.
How it fails: an address that can't be listened on is OSError with its name, from `start`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import get_args

from mailgate.config import Config, Endpoint
from mailgate.core.envelope import Door, Envelope, Peer
from mailgate.core.message import Message
from mailgate.core.reply import Reply
from mailgate.edge.listener.front import FrontedSession
from mailgate.edge.listener.hooks import Hooks
from mailgate.edge.listener.session import LMTPSession, Session
from mailgate.edge.sockets import Sockets, address_of, emptied, trusted
from mailgate.ports import Telemetry

Handle = Callable[[Peer, Envelope, Message], Awaitable[tuple[Reply, ...]]]
TurnAway = Callable[[Peer, Envelope, Reply, str], tuple[Reply, ...]]


class Listener:
    """Both relay doors. `config` may be replaced; new sessions go by the new one."""

    address_of = staticmethod(address_of)

    def __init__(self, config: Config, handle: Handle, turn_away: TurnAway, telemetry: Telemetry) -> None:
        self.config = config
        self.turn_away = turn_away
        self.telemetry = telemetry
        self.loop = asyncio.get_running_loop()
        self.in_flight = 0
        self.handle = handle
        self._sockets = Sockets()
        self._sessions: set[Session] = set()
        self._draining = False
        self._quiet = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """False when the messages under way take more memory than they may."""
        return self.in_flight < self.config.relay.max_in_flight

    @property
    def connections(self) -> dict[str, int]:
        """How many are open, by door. Any thread may ask."""
        doors = [session.door for session in tuple(self._sessions)]
        return {door: doors.count(door) for door in get_args(Door)}

    @property
    def listening(self) -> bool:
        """True between `start` and `stop`."""
        return self._sockets.listening and not self._draining

    async def start(self) -> None:
        """Listen on every address of the configuration."""
        for endpoint in self.config.relay.lmtp:
            await self._listen(endpoint, LMTPSession)
        for endpoint in self.config.relay.smtp:
            await self._listen(endpoint, FrontedSession)

    async def drain(self, seconds: float) -> bool:
        """Answer what is in flight, send everybody else away with 421; True if all went in time."""
        self._draining = True
        for session in tuple(self._sessions):
            session.say_farewell("421 4.3.2 shutting down", False)
        return await emptied(self._sessions, self._quiet, seconds)

    async def stop(self) -> None:
        """Close everything. What is still relayed goes on until the loop ends."""
        self._sockets.close()
        for session in tuple(self._sessions):
            session.abort()

    # for the sessions

    def admit(self, session: Session, address: str) -> str:
        """Count the session in; the reply that sends it away instead, "" if it may stay."""
        if self._draining:
            return "421 4.3.2 shutting down"
        if not self.trusts(address):
            self.refused(address, "is not one of our trusted peers", "untrusted-peer")
            return f"421 4.7.1 {address} is not one of our trusted peers"
        if len(self._sessions) >= self.config.relay.max_connections:
            self.refused(address, "max_connections", "too-many-connections")
            return "421 4.3.2 too many connections, try again later"
        self._sessions.add(session)
        return ""

    def trusts(self, address: str) -> bool:
        """Is this the address of one of the trusted peers? On a unix socket ("") all are."""
        return trusted(address, self.config.relay.trusted_peers)

    def refused(self, address: str, cause: str, reason: str) -> None:
        """Say and count that a peer is sent away."""
        self.telemetry.event("peer.refused", {"peer": address, "cause": cause}, level="warning")
        self.telemetry.count("reasons", reason=reason)

    def gone(self, session: Session) -> None:
        """The session has ended."""
        self._sessions.discard(session)
        self._quiet.set()

    async def _listen(self, endpoint: Endpoint, kind: type[Session]) -> None:
        hooks = Hooks()

        def session() -> Session:
            return kind(self, hooks)

        await self._sockets.listen(endpoint, session)
