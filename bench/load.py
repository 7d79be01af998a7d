"""The two ends of the bench, each driving a C tool: `send` makes the load, a `Sink` is where mail must arrive."""

import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.parts import OUT

_GIVE_UP_SECONDS = 30.0


@dataclass(frozen=True)
class Arrivals:
    """What a sink has counted since it was started; `sink.c` says what each number means."""

    messages: int
    distinct: int
    duplicates: int
    unnumbered: int
    recipients: int
    connections: int
    open_peak: int
    first_arrival: float
    last_arrival: float


class Sink:
    """A counting server that takes everything; a context manager that ends it."""

    def __init__(self, protocol: str, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [OUT / "sink", protocol, f"127.0.0.1:{port}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        word, _, number = self._process.stdout.readline().partition(" ")
        if word != "listening":
            self.stop()
            message = f"the sink could not listen on port {port}"
            raise OSError(message)
        self.port = int(number)

    def arrivals(self) -> Arrivals:
        """The counts of now."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as peer, peer.makefile("rb") as lines:
            lines.readline()
            peer.sendall(b"XCOUNT\r\nQUIT\r\n")
            return Arrivals(**json.loads(lines.readline().removeprefix(b"250 ")))

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@dataclass(frozen=True)
class Load:
    """What the load generator saw; `load.c` says what each number means."""

    ok: int
    refused: int
    broken: int
    unfinished: int
    next: int
    connections: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    replies: dict[str, int]


_next_sequence = 0


def send(
    protocol: str, port: int, mail: Path, *, sessions: int, per_connection: int, seconds: float, pipelining: bool
) -> Load:
    """Send for that many seconds. No number is used twice in the life of this process."""
    global _next_sequence  # noqa: PLW0603 - one row of numbers for all sinks
    options = {
        "-s": sessions,
        "-c": per_connection,
        "-t": seconds,
        "-w": _GIVE_UP_SECONDS,
        "-f": _next_sequence,
        "-p": int(pipelining),
    }
    command = [str(OUT / "load"), protocol, f"127.0.0.1:{port}", str(mail)]
    command += [str(part) for option in options.items() for part in option]
    limit = seconds + _GIVE_UP_SECONDS + 10
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=limit).stdout
    load = Load(**json.loads(output))
    _next_sequence = load.next
    return load
