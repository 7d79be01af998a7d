"""/metrics, /healthz, /readyz and others, served by threads of their own: they answer even when the loop does not.

Bounded: a few requests at a time, _SECONDS each, however little by little they come in or are read. How it fails: an
address that can't be listened on is OSError with its name, from the constructor; a request that fails is answered 500
and said (`http.failed`). A file descriptor is kept for it, so that one request at a time is answered when there are no
more (`edge.descriptors`).
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any

from mailgate.config import Endpoint
from mailgate.edge.sockets import clear
from mailgate.ports import Telemetry

_AT_ONCE = 8
_SECONDS = 5.0  # that a request and its answer may take
_REST = 0.5  # seconds until somebody is let in again, when there is no descriptor for him

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
            named = f"{endpoint}: {error.strerror}" if error.strerror else str(error)
            raise OSError(error.errno, f"http.listen: {named}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.hurry()
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
            clear(Path(endpoint.path))
        elif ":" in endpoint.host:
            self.address_family = socket.AF_INET6
        self._slots = threading.Semaphore(_AT_ONCE)
        self._hurries = False
        self._resting = threading.Event()  # set: no longer
        self._spare: int | None = None
        self._spare_guard = threading.Lock()
        super().__init__(endpoint.path or (endpoint.host, endpoint.port), handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)  # HTTPServer's would ask the DNS for a name that nobody needs

    def server_activate(self) -> None:
        super().server_activate()
        self._keep_spare()

    def server_close(self) -> None:
        super().server_close()
        self._give_spare()

    def get_request(self) -> tuple[Any, Any]:
        """The next who waits. An OSError lets him wait: he is then asked for again at once."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            if self._give_spare():
                return super().get_request()
            self._resting.wait(_REST)  # or else this thread would ask for him without end
            raise

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._keep_spare()

    def _keep_spare(self) -> None:
        with self._spare_guard, suppress(OSError):  # somebody else was faster: at the end of the next request
            if self._spare is None and not self._hurries:
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _give_spare(self) -> bool:
        """Give the descriptor up, for another. False if there is none."""
        with self._spare_guard:
            spare, self._spare = self._spare, None
        if spare is not None:
            os.close(spare)
        return spare is not None

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(timeout=_SECONDS) or self._hurries:
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def hurry(self) -> None:
        """Keep nobody waiting any more who waits for his turn."""
        self._hurries = True
        self._resting.set()
        self._slots.release()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        end = threading.Timer(_SECONDS, _hang_up, (request,))  # the handler's own time-out begins anew with each octet
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is its own affair; our own trouble is answered and said by the handler."""


def _hang_up(request: socket.socket) -> None:
    """Whoever reads from it or writes to it is at its end."""
    with suppress(OSError):  # it has ended by itself
        request.shutdown(socket.SHUT_RDWR)


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
