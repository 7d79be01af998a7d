"""What the running daemon says on a page of its HTTP server; whoever asks goes on without it if it does not answer."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from mailgate.config import Config, Endpoint

_PATIENCE = 3.0  # seconds for its answer
_MOST = 16 * 2**20  # octets of it


def asked(config: Config, path: str) -> dict[str, Any]:
    """The object on this page; {} if the daemon does not answer."""
    connection = _Http(config.http.listen)
    try:
        connection.request("GET", path)
        said = json.loads(connection.getresponse().read(_MOST))
        return said if isinstance(said, dict) else {}
    except (OSError, http.client.HTTPException, ValueError):
        return {}  # nobody there, or somebody else: the verbs work without the daemon
    finally:
        connection.close()


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
