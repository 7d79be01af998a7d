"""What the running daemon says on a page of its HTTP server; whoever asks goes on without it if it does not answer."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from mailgate.config import Config, Endpoint

_PATIENCE = 5.0  # seconds for its answer
_MOST = 16 * 2**20  # octets of it


class Silent(Exception):
    """The daemon does not answer, or it is somebody else who does; the text says how."""


def page(config: Config, path: str) -> dict[str, Any]:
    """The object on this page. Raises Silent."""
    connection = _Http(config.http.listen)
    try:
        connection.request("GET", path)
        said = json.loads(connection.getresponse().read(_MOST))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Silent(str(error) or type(error).__name__) from None
    finally:
        connection.close()
    if not isinstance(said, dict):
        raise Silent(f"what it says at {path} is none of mailgate's")
    return said


def asked(config: Config, path: str) -> dict[str, Any]:
    """The same; {} if the daemon does not answer: the verbs work without it."""
    try:
        return page(config, path)
    except Silent:
        return {}


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
