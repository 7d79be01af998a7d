"""What the running daemon says on a page of its HTTP server; whoever asks goes on without it if it does not answer."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from mailgate.config import Config, Endpoint

_PATIENCE = 3.0  # seconds for its answer
_MOST = 16 * 2**20  # octets of it


class Silent(Exception):
    """The daemon does not answer; the text says why."""


def asked(config: Config, path: str) -> dict[str, Any]:
    """The object on this page; {} if the daemon does not answer."""
    try:
        return told(config, path)
    except Silent:
        return {}  # nobody there, or somebody else: the verbs work without the daemon


def told(config: Config, path: str) -> dict[str, Any]:
    """The same; Silent if the daemon does not answer."""
    at = config.http.listen
    connection = _Http(at)
    try:
        connection.request("GET", path)
        said = json.loads(connection.getresponse().read(_MOST))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Silent(f"http.listen: {at} does not answer: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if not isinstance(said, dict):
        raise Silent(f"http.listen: {at} is not mailgate's")
    return said


class _Http(http.client.HTTPConnection):
    """HTTP to an address of the configuration, a unix socket included."""

    def __init__(self, where: Endpoint) -> None:
        super().__init__(where.host or "localhost", where.port or None, timeout=_PATIENCE)
        self._path = where.path

    def connect(self) -> None:
        if not self._path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)
