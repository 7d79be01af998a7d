"""Starting, watching and ending the programs under test: by process id, each with a log file and a meter of its own.

A program that ends early or never becomes ready raises `NotReadyError` with the last lines of its log. The programs
get a SIGTERM when the bench dies.
"""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.meter import new_meter

_STOP_SECONDS = 10.0


class NotReadyError(Exception):
    """A program under test did not come up."""


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask every 20 ms until it holds; false when it still does not after that many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def free_port() -> int:
    """A loopback port that nobody listens on, outside the range from which connecting sockets get theirs.

    Ports of that range would be taken away by the load's own connections while a server is down.
    """
    while True:
        port = random.randint(15000, 31000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def greets(port: int) -> bool:
    """Whether an SMTP or LMTP server says 220 there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as peer:
            greeting = peer.recv(200)
            peer.sendall(b"QUIT\r\n")
            while peer.recv(200):
                pass
    except OSError:
        return False
    return greeting.startswith(b"220")


class Program:
    """A metered child process; a context manager that ends it."""

    def __init__(self, name: str, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self.meter = new_meter(f"mailgate-bench-{os.getpid()}-{name}")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *self.meter.wrap(command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.meter.follow(self._process.pid)

    def wait_ready(self, ready: Callable[[], bool], seconds: float = 20.0) -> None:
        """Return when `ready` says so."""
        if not wait_until(lambda: self._process.poll() is not None or ready(), seconds):
            self._fail(f"not ready after {seconds:g} s")
        if self._process.poll() is not None:
            self._fail(f"ended with status {self._process.returncode}")

    def _fail(self, why: str) -> None:
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        message = f"{self.name}: {why}\n{tail}"
        raise NotReadyError(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it: SIGTERM, and after ten seconds SIGKILL for what is left of its processes."""
        if self._process.poll() is None:
            self._process.terminate()
        if not wait_until(lambda: self._process.poll() is not None and not self.meter.pids(), _STOP_SECONDS):
            for pid in self.meter.pids():
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        wait_until(lambda: not self.meter.pids(), _STOP_SECONDS)
        self.meter.close()
