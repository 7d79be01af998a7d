"""Loopback ports that stay ours.

A reserved port is bound, but does not listen: to connect to it is refused, as if nothing were there, and nobody else is
given it by the kernel. The program that it is for binds it too (both sockets say SO_REUSEADDR) and listens. So a
program may be stopped and started again at the same address while other test runs go on beside it.
"""

import socket
from types import TracebackType
from typing import Self


class Port:
    """A reserved TCP port of 127.0.0.1, until `close`."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((self.host, 0))
        self.number: int = self._socket.getsockname()[1]

    def __str__(self) -> str:
        return f"{self.host}:{self.number}"

    @property
    def address(self) -> tuple[str, int]:
        """The port as the socket module wants it."""
        return self.host, self.number

    def open(self) -> bool:
        """Does somebody listen there?"""
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(self.address) == 0

    def listener(self) -> socket.socket:
        """A socket of our own that listens there."""
        # asyncio sends small replies at once (TCP_NODELAY) only where the protocol is said to be TCP.
        listener = socket.socket(proto=socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self.address)
        listener.listen(128)
        listener.setblocking(False)
        return listener

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
