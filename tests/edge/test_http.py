"""The pages' own server: who is slow, or there before it, does not keep others from them."""

import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from mailgate.core.endpoint import endpoint
from mailgate.edge import http
from mailgate.edge.http import HttpServer
from tests.edge.test_own_faults import Telemetry
from tests.stack.ports import Port
from tests.stack.waiting import wait_until

SECONDS = 0.3


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[Port]:
    """Where a server with little patience serves one page."""
    monkeypatch.setattr(http, "_SECONDS", SECONDS)
    with serving() as (port, _):
        yield port


@contextmanager
def serving() -> Iterator[tuple[Port, HttpServer]]:
    """A server of one page, and where it is."""
    with Port() as port:
        server = HttpServer(endpoint(str(port)), {"/healthz": lambda _: (200, "text/plain", b"well")}, Telemetry())
        yield port, server
        server.close()


def get(port: Port) -> bytes:
    """The page, b"" without an answer."""
    with socket.create_connection(port.address, 60) as client:
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        try:
            return client.makefile("rb").read()
        except ConnectionResetError:
            return b""


def test_who_speaks_octet_by_octet_is_hung_up_on(port: Port) -> None:
    """However many: as many as there are turns would take the page from everybody else."""
    slow = [socket.create_connection(port.address, 60) for _ in range(8)]
    answered = threading.Event()

    def drip() -> None:
        while not answered.wait(SECONDS / 10):
            for one in slow:
                with suppress(OSError):  # hung up on
                    one.sendall(b"G")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        assert wait_until(lambda: get(port), "the page is there").endswith(b"\r\n\r\nwell")
    finally:
        answered.set()
        thread.join()
        for one in slow:
            one.close()


def test_the_end_waits_for_nobodys_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the loop that waits: the mail would stand still."""
    with Port() as port:
        server = HttpServer(endpoint(str(port)), {}, Telemetry())
        clients = [socket.create_connection(port.address, 60) for _ in range(10)]
        wait_until(lambda: server._server._slots._value == 0, "no turn is left")
        begun = time.monotonic()
        server.close()
        assert time.monotonic() - begun < http._SECONDS
        for client in clients:
            client.close()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    file = tmp_path / "mailgate.toml"
    file.write_text("precious")
    with pytest.raises(OSError, match=f"http.listen: unix:{file}: there is a file that is no socket"):
        HttpServer(endpoint(f"unix:{file}"), {}, Telemetry())
    assert file.read_text() == "precious"


def test_without_descriptors_one_at_a_time_is_answered() -> None:
    """Who can't be let in yet waits, and nobody spins for him."""
    rested, go_on = threading.Event(), threading.Event()

    class Resting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002
            rested.set()
            return go_on.wait(60)

    clients = [socket.socket(), socket.socket()]
    with ExitStack() as undo:
        port, served = undo.enter_context(serving())
        served._server._resting = Resting()
        for client in clients:
            undo.enter_context(client).settimeout(60)
        undo.enter_context(no_descriptors())
        for client in clients:
            client.connect(port.address)
        assert rested.wait(60)
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert received(clients[0]).endswith(b"well")
        wait_until(lambda: served._server._spare is not None, "the descriptor is kept again")
        go_on.set()
        assert received(clients[1]).endswith(b"well")


def received(client: socket.socket) -> bytes:
    """All that comes."""
    found = b""
    while some := client.recv(4096):
        found += some
    return found


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None are left for this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(int(file.name) for file in Path("/proc/self/fd").iterdir()) + 1
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for one in taken:
            os.close(one)
