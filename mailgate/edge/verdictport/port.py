"""Where the verdict door listens, who may ask, how much at once, and how it ends.

Duty: peers outside `relay.trusted_peers`, more than `verdict.max_connections`, and messages of more than
`verdict.max_in_flight` octets together get an answer that is no verdict, so that Exim's /defer_ok goes on.
How it fails: an address that can't be listened on is OSError with its name, from `start`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mailgate.config import Config
from mailgate.core import spamc
from mailgate.core.message import Message
from mailgate.core.reply import Reply
from mailgate.core.spamc import Finding, Question
from mailgate.edge.sockets import Sockets, address_of, emptied, trusted
from mailgate.edge.verdictport.session import READ_AHEAD, Session
from mailgate.ports import Telemetry

Judge = Callable[[str, Question, Message, float], Awaitable[Finding | None]]
TurnAway = Callable[[str, Question, Reply, str], Finding]


class VerdictPort:
    """The verdict door. `config` may be replaced; new questions go by the new one."""

    def __init__(self, config: Config, judge: Judge, turn_away: TurnAway, telemetry: Telemetry) -> None:
        self.config = config
        self.judge = judge
        self.turn_away = turn_away
        self.telemetry = telemetry
        self.in_flight = 0  # octets of the messages under way
        self._sockets = Sockets()
        self._sessions: dict[Session, asyncio.Task[None]] = {}
        self._turned_away: set[asyncio.Task[None]] = set()  # who are being told that there is no room
        self._draining = False
        self._quiet = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """False when the messages under way take more memory than they may."""
        return self.in_flight < self.config.verdict.max_in_flight

    @property
    def connections(self) -> dict[str, int]:
        """How many are open, by door."""
        return {"verdict": len(self._sessions)}

    @property
    def listening(self) -> bool:
        """True between `start` and `drain`."""
        return self._sockets.listening and not self._draining

    async def start(self) -> None:
        """Listen on every address of the configuration."""
        for endpoint in self.config.verdict.listen:
            await self._sockets.listen(endpoint, self._protocol)

    async def drain(self, seconds: float) -> bool:
        """Take no more questions, answer those that were asked; True if all went in time."""
        self._draining = True
        self._sockets.close()
        for session, task in tuple(self._sessions.items()):
            if not session.asked:
                task.cancel()
        return await emptied(self._sessions, self._quiet, seconds)

    async def stop(self) -> None:
        """Close everything, whatever is under way."""
        self._sockets.close()
        tasks = (*self._sessions.values(), *self._turned_away)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _protocol(self) -> asyncio.BaseProtocol:
        loop = asyncio.get_running_loop()
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(READ_AHEAD, loop), self._connected, loop)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = address_of(writer.get_extra_info("peername"))
        session = Session(self, peer, reader, writer)
        if refused := self._refused(peer):
            # Exim sends the whole message before it reads: closed at once, the answer would be reset away.
            if refused == "too-many-connections" and len(self._turned_away) < self.config.verdict.max_connections:
                task = asyncio.create_task(session.turn_away())
                self._turned_away.add(task)
                task.add_done_callback(self._turned_away.discard)
            else:
                writer.write(spamc.failed("RSPAMC", "not now"))
                writer.close()
            return
        self._sessions[session] = task = asyncio.create_task(session.serve())
        task.add_done_callback(lambda _: self._gone(session))

    def _refused(self, peer: str) -> str:
        """Why the peer is to be sent away, "" if it is not. Said and counted here."""
        if self._draining:
            return "draining"
        if not trusted(peer, self.config.relay.trusted_peers):
            cause, reason = "is not one of our trusted peers", "untrusted-peer"
        elif len(self._sessions) >= self.config.verdict.max_connections:
            cause, reason = "max_connections", "too-many-connections"
        else:
            return ""
        self.telemetry.event("peer.refused", {"door": "verdict", "peer": peer, "cause": cause}, level="warning")
        self.telemetry.count("reasons", reason=reason)
        return reason

    def _gone(self, session: Session) -> None:
        del self._sessions[session]
        self._quiet.set()
