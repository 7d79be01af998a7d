"""Where the doors listen: TCP and unix sockets, and whose connections are let in.

How it fails: an address that can't be listened on is OSError with its name. A unix socket that a dead process left is
replaced, one that a living process listens on is not.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import stat
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from pathlib import Path

from mailgate.core.endpoint import Endpoint
from mailgate.core.spam import Network

UNKNOWN = "unknown"  # instead of an address
_BACKLOG = 1024


class Sockets:
    """What one door listens on."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []  # unix sockets of ours

    @property
    def listening(self) -> bool:
        """True between the first `listen` and `close`."""
        return bool(self._servers)

    async def listen(self, endpoint: Endpoint, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Serve each connection to `endpoint` with a protocol of its own."""
        loop = asyncio.get_running_loop()
        if endpoint.path:
            path = Path(endpoint.path)
            clear(path)
            server = await loop.create_unix_server(protocol, path, backlog=_BACKLOG)
            self._paths.append(path)
            path.chmod(0o660)
        else:
            server = await loop.create_server(protocol, endpoint.host, endpoint.port, backlog=_BACKLOG)
        self._servers.append(server)

    def close(self) -> None:
        """Take no more connections. Those that are there stay."""
        for server in self._servers:
            server.close()
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._servers, self._paths = [], []


async def emptied(sessions: Collection[object], ended: asyncio.Event, seconds: float) -> bool:
    """Wait until there are no more sessions; False if some are left after that time. `ended` is set at each end."""
    try:
        async with asyncio.timeout(seconds):
            while sessions:
                ended.clear()
                await ended.wait()
    except TimeoutError:
        return False
    else:
        return True


def address_of(peername: object) -> str:
    """The IP address of a peer's socket name, "" on a unix socket, UNKNOWN if the system does not know it any more.

    It does not where the peer has reset the connection by now; what it sent before may still be read (by uvloop).
    """
    if isinstance(peername, tuple):
        return str(peername[0]).removeprefix("::ffff:")
    return UNKNOWN if peername is None else ""


def trusted(address: str, networks: Iterable[Network]) -> bool:
    """May a peer from that address come in?"""
    if not address:
        return True  # a unix socket is guarded by its file's mode
    if address == UNKNOWN:
        return False
    ip = _ip(address.partition("%")[0])
    return any(ip in network for network in networks)


@lru_cache(maxsize=64)  # the same few hosts hand over all mail
def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(address)


def clear(path: Path) -> None:
    """Remove the socket that a dead process left; OSError if a living one listens there, or there is another file."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(f"unix:{path}: there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(f"unix:{path}: another process listens there")
