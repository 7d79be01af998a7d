"""A program of the stack that listens: begun, ready, frozen, killed. What it prints is in `output` in its directory."""

import os
import signal
from abc import ABC, abstractmethod
from pathlib import Path

from tests.stack.children import Account, Child, members
from tests.stack.ports import Port
from tests.stack.waiting import PATIENCE, wait_until


class Program(ABC):
    """Listens on `port` when it is ready, and runs as `_drop` if that is anybody."""

    name: str
    patience = PATIENCE  # seconds until it listens

    def __init__(self, directory: Path, drop: Account | None) -> None:
        self.directory = directory
        self.port = Port()
        self.output = directory / "output"
        self._drop = drop
        self._child: Child | None = None

    @abstractmethod
    def begin(self) -> None:
        """Start it; `ready` waits until it listens."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens by TCP; it may be spoken to from any address of 127.0.0.0/8."""
        return self.port.address

    @property
    def running(self) -> bool:
        """Is it there?"""
        return self._child is not None and self._child.running

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.begin()
        self.ready()

    def ready(self) -> None:
        """Wait until it listens."""
        self._wait_open(self.port)

    def _wait_open(self, port: Port) -> None:
        wait_until(lambda: not self.running or port.open(), f"{self.name} listens", deadline=self.patience)
        if not self.running:
            raise RuntimeError(f"{self.name} ended: {self.output.read_text()}")

    def kill(self) -> None:
        """End all its processes at once (SIGKILL): its port refuses connections."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def close(self) -> None:
        """Kill it and give its port back."""
        self.kill()
        self.port.close()

    def freeze(self) -> None:
        """Stop it and all that it forked in their tracks (SIGSTOP): it takes connections and never answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in members(self._child.pid) if self._child else []:
            os.kill(pid, number)
