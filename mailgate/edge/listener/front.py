"""The SMTP door with something in front of it that says whom it passes on: the PROXY protocol (v1, v2) and XCLIENT.

Duty: a stranger who is passed on is no trusted peer: what he says (header fields, another XCLIENT) is not believed.
Whoever is passed on and is a trusted peer speaks for himself, as if he had connected.
How it fails: without a PROXY header, in time and by the rules, the connection ends with 421 and `peer.refused`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aiosmtpd.proxy_protocol import AF, V2_CMD, get_proxy
from aiosmtpd.smtp import syntax

from mailgate.core import xclient
from mailgate.core.envelope import Client, Peer
from mailgate.core.origin import address
from mailgate.edge.listener.session import Session
from mailgate.edge.listener.wire import Wire

_NOT_FOR_YOU = "550 5.7.0 XCLIENT is not for you"


class FrontedSession(Session):
    """SMTP, perhaps behind a front."""

    patience = 10.0  # seconds until a PROXY header must have come; the protocol asks for at least 3

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # the base's own
        self._stranger: Client | None = None  # for whom the peer only passes octets on
        self._said: dict[str, str] = {}  # by XCLIENT

    def _peer(self) -> Peer:
        peer, stranger = super()._peer(), self._stranger
        if stranger is None:
            return peer
        helo = stranger.helo or peer.helo
        return Peer(self.door, stranger.ip, helo, replace(stranger, helo=helo))

    async def _dialogue(self) -> None:
        if not self.listener.config.relay.proxy_protocol or await self._proxied():
            await super()._dialogue()

    def _stands_for(self, client: Client) -> None:
        """From now on the peer speaks for this client."""
        if client.ip and self.listener.trusts(client.ip):
            self._address, self._stranger = client.ip, None
        else:
            self._stranger = client

    # the PROXY protocol: haproxy's doc/proxy-protocol.txt

    async def _proxied(self) -> bool:
        """Read the header; False if the connection has to end."""
        try:
            async with asyncio.timeout(self.patience):
                said = await get_proxy(_Reader(self.wire))
            cause = said.error or ("" if said.valid else "no PROXY header")
        except TimeoutError:
            cause = "no PROXY header in time"
        if cause:
            self.listener.refused(self._address, cause, "bad-proxy-header")
            self.say_farewell("421 4.7.0 a PROXY header is asked for here", True)
            return False
        if said.version == 2 and said.command == V2_CMD.LOCAL:
            return True  # the front itself, to see whether we live
        ip = address(str(said.src_addr)) if said.family in {AF.INET, AF.INET6} else ""
        self._stands_for(Client(ip, source="proxy" if ip else "unknown"))
        return True

    # XCLIENT

    def _keywords(self) -> tuple[str, ...]:
        offered = (f"XCLIENT {' '.join(xclient.ATTRIBUTES)}",) if self._may_introduce else ()
        return super()._keywords() + offered

    @property
    def _may_introduce(self) -> bool:
        """A stranger whom the front passes on must not say that he is somebody else."""
        return self.listener.config.relay.xclient and self._stranger is None

    @syntax("XCLIENT attribute=value...")
    async def smtp_XCLIENT(self, arg: str | None) -> None:  # noqa: N802  aiosmtpd's name
        assert self.session is not None
        assert self.envelope is not None
        # A front may need several commands for one client. With the next EHLO, it is the client who speaks; before it
        # may be either, so a stranger is only ever told more of, and does not become a peer.
        if not self._may_introduce and not (self._said and not self.session.host_name):
            await self.push(_NOT_FOR_YOU)
        elif self.envelope.mail_from:
            await self.push("503 5.5.1 a transaction is under way")
        else:
            try:
                said = xclient.attributes(arg or "")
            except ValueError as error:
                await self.push(f"501 5.5.4 {error}")
                return
            if not self._introduced(said):
                await self.push(_NOT_FOR_YOU)
                return
            self._set_rset_state()  # type: ignore[no-untyped-call]
            self.session.host_name = None
            await self.push(self.greeting)

    def _introduced(self, said: dict[str, str]) -> bool:
        """Take over what was said of the client; False if a stranger would be somebody else by it."""
        if self._stranger is None:  # by a peer, who may say what he likes
            together = said if "ADDR" in said else self._said | said
        else:
            try:
                together = xclient.added(self._said, said)
            except ValueError:
                return False
            if (ip := xclient.client(together).ip) and self.listener.trusts(ip):
                return False
        self._said = together
        self._stands_for(xclient.client(together))
        return True


class _Reader:
    """The wire, as aiosmtpd's reader of PROXY headers wants it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def read(self, n: int = -1) -> bytes:
        octets = await self._wire.some()
        if 0 <= n < len(octets):
            self._wire.unread(octets[n:])
            return octets[:n]
        return octets

    async def readexactly(self, n: int = -1) -> bytes:
        octets = b""
        while len(octets) < n:
            octets += await self.read(n - len(octets))
        return octets

    async def readuntil(self, separator: bytes = b"\n") -> bytes:  # noqa: ARG002  it is a line that is asked for
        return await self._wire.line()
