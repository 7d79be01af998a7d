"""A spool with mail in it, a configuration, and the command `mailgate` run on them."""

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mailgate import config
from mailgate.cli import main
from mailgate.core.envelope import Envelope
from mailgate.core.ids import gate_id
from mailgate.core.message import message
from mailgate.edge.spool import Store
from mailgate.ports import Facts, Parked
from tests.stack.ports import Port

PROGRAM = Path(sys.executable).with_name("mailgate")


class Silence:
    """Telemetry that nobody reads."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None: ...
    def observe(self, name: str, value: float, exemplar: str = "", **labels: str) -> None: ...
    def event(self, name: str, fields: Mapping[str, object], *, level: str = "info") -> None: ...


@dataclass(frozen=True)
class Mail:
    """A message to be spooled: its recipients with their states, its age in seconds."""

    to: Mapping[str, str] = field(default_factory=lambda: {"announce@lists.test": "pending"})
    sender: str = "ann@example.org"
    age: float = 60.0
    octets: bytes = b"From: ann@example.org\r\nSubject: hello\r\n\r\nSee you.\r\n"
    reply: str = "451 4.3.0 not now"
    uncertain: bool = False
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    status: int
    out: str
    err: str
    octets: bytes

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


class Site:
    """A directory with a configuration; `mailman` is where Mailman is, or would be."""

    def __init__(self, directory: Path, mailman: str, capture: pytest.CaptureFixture[bytes]) -> None:
        self.directory = directory
        self.config = directory / "mailgate.toml"
        self.spool = directory / "spool.db"
        self._capture = capture
        self.ports = Port(), Port()
        self.config.write_text(
            f'hostname = "gate.lists.test"\n[relay]\nlmtp = ["{self.ports[0]}"]\n'
            f'[mailman]\nlmtp = "{mailman}"\nprobe_interval = "0.1s"\n'
            f'[spool]\nurl = "sqlite:///{self.spool}"\nmin_free = "1B"\n[http]\nlisten = "{self.ports[1]}"\n'
        )

    def close(self) -> None:
        """Give the ports back."""
        for port in self.ports:
            port.close()

    def store(self) -> Store:
        """The spool as a daemon has it, to be opened."""
        read = config.load(self.config)
        return Store(read.spool, read.hostname, Silence())

    def fill(self, *mails: Mail) -> list[str]:
        """Spool them; their ids."""
        return asyncio.run(self._fill(mails))

    async def _fill(self, mails: tuple[Mail, ...]) -> list[str]:
        store, now = self.store(), time.time()
        await store.open()
        ids = await asyncio.gather(*(spooled(store, mail, now - mail.age, n) for n, mail in enumerate(mails)))
        await store.close()
        return list(ids)

    def run(self, *arguments: str) -> Ran:
        """Run the command in this process: nothing of it is left out but the start of an interpreter."""
        self._capture.readouterr()
        status = self.call(*arguments)
        out, err = self._capture.readouterr()
        return Ran(status, out.decode(errors="replace"), err.decode(), out)

    def call(self, *arguments: str) -> int:
        """The same with the standard streams as they are; its exit status."""
        with _as_program("mailgate", *arguments, MAILGATE_CONFIG=str(self.config)), pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int | None)
        return end.value.code or 0

    def tried(self) -> int:
        """How many recipients an attempt has begun for."""
        with contextlib.closing(sqlite3.connect(self.spool)) as database:
            (count,) = database.execute("SELECT count(*) FROM recipients WHERE last_attempt IS NOT NULL").fetchone()
        return int(count)

    def waiting(self) -> int:
        """How many recipients have been tried, and wait for the next time."""
        with contextlib.closing(sqlite3.connect(self.spool)) as database:
            (count,) = database.execute("SELECT count(*) FROM recipients WHERE attempts > 0 AND lease = ''").fetchone()
        return int(count)

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What `queue list --json` says, history included."""
        return self.run("queue", "list", "--json", *arguments, "--state", ",".join(ALL_STATES)).rows

    def states(self) -> dict[tuple[str, str], str]:
        """The state of everybody, by message and address."""
        return {(row["id"], one["address"]): one["state"] for row in self.rows() for one in row["recipients"]}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start the command as a process of its own."""
        environment = {"MAILGATE_CONFIG": str(self.config), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "xterm"}
        return subprocess.Popen([PROGRAM, *arguments], env=environment, **options)


ALL_STATES = ("pending", "uncertain", "held", "failed", "corrupt", "delivered", "dropped")


async def spooled(store: Store, mail: Mail, received: float, number: int) -> str:
    """Spool one; its id."""
    name = gate_id(received, number << 30 | number)
    parked = [Parked(to, state, mail.reply, uncertain=mail.uncertain) for to, state in mail.to.items()]
    envelope = Envelope(mail.sender, tuple(mail.to))
    await store.store(name, envelope, message([mail.octets]), parked, mail.facts, received, 10)
    return name


@contextlib.contextmanager
def _as_program(*argv: str, **environment: str) -> Iterator[None]:
    before, values = sys.argv, {name: os.environ.get(name) for name in environment}
    sys.argv = list(argv)
    os.environ.update(environment)
    try:
        yield
    finally:
        sys.argv = before
        for name, value in values.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
