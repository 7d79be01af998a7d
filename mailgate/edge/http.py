"""/metrics, /healthz, /readyz and others, served by threads of their own: they answer even when the loop does not.

Bounded: a few requests at a time, a few seconds each. How it fails: an address that can't be listened on is OSError
with its name, from the constructor; a request that fails is answered 500 and said (`http.failed`).
"""

from __future__ import annotations

import errno
import json
import socket
import threading
import traceback
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any

from mailgate.config import Endpoint
from mailgate.ports import Telemetry

_AT_ONCE = 8
_SECONDS = 5.0  # that a request may take to come in, and an answer to go out

Answer = tuple[int, str, bytes]  # status, content type, content
Page = Callable[[str], Answer]  # of what the request says it accepts


def as_json(status: int, tree: Mapping[str, object]) -> Answer:
    """An answer in JSON."""
    return status, "application/json", json.dumps(tree, indent=1).encode() + b"\n"


class HttpServer:
    """Serves `pages` (path to what makes the answer) on `endpoint` until `close`."""

    def __init__(self, endpoint: Endpoint, pages: Mapping[str, Page], telemetry: Telemetry) -> None:
        self._endpoint = endpoint
        try:
            self._server = _Server(endpoint, _handler(pages, telemetry))
        except OSError as error:
            raise OSError(error.errno, f"http.listen: {endpoint}: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        if self._endpoint.path:
            Path(self._endpoint.path).unlink(missing_ok=True)


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, endpoint: Endpoint, handler: type[BaseHTTPRequestHandler]) -> None:
        if endpoint.path:
            self.address_family = socket.AF_UNIX
            _clear(endpoint.path)
        elif ":" in endpoint.host:
            self.address_family = socket.AF_INET6
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(endpoint.path or (endpoint.host, endpoint.port), handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)  # HTTPServer's would ask the DNS for a name that nobody needs

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(timeout=_SECONDS):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is its own affair; our own trouble is answered and said by the handler."""


def _clear(path: str) -> None:
    """Remove the socket that a dead process left; raises OSError if a living one listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            Path(path).unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, "another process listens there")


def _handler(pages: Mapping[str, Page], telemetry: Telemetry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS
        server_version = "mailgate"
        sys_version = ""

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            try:
                status, kind, content = (
                    page(self.headers.get("Accept", "")) if page else (404, "text/plain", b"not here\n")
                )
            except Exception:  # noqa: BLE001  said, and answered as what it is
                telemetry.event("http.failed", {"path": self.path, "trace": traceback.format_exc()}, level="error")
                status, kind, content = 500, "text/plain", b"trouble of our own, see the log\n"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815  the library's name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
            telemetry.event("http.request", {"text": format % args}, level="debug")

    return Handler
