"""A real exim4 of Debian in a directory and on a port of its own, with the configuration of config/exim4.

It runs as Debian-exim from the start, never as root, and reads no file of the machine's own Exim. `start` returns when
it listens. What it does is in its main log; a message that it bounces lands in `bounces()`.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.stack.children import Child, account, me
from tests.stack.ports import Port
from tests.stack.program import Program
from tests.stack.waiting import PATIENCE, wait_until

PROGRAM = "/usr/sbin/exim4"
CONFIG = Path(__file__).parents[2] / "config" / "exim4"


class Exim(Program):
    """Takes mail for *@`domain` on `port` and hands it by LMTP to `next_hop`. Mailman, whom it asks for each recipient,
    is down, as far as it sees, until `set` names it.
    """

    name = "Exim"

    def __init__(self, directory: Path, next_hop: tuple[str, int], domain: str = "lists.test") -> None:
        super().__init__(directory, account("Debian-exim"))
        self.log = directory / "log" / "mainlog"
        self._config = directory / "exim4.conf"
        self._extra: dict[str, object] = {}
        self._appended = ""
        owner = self._drop or me()
        self._nobody = Port()
        directory.mkdir(mode=0o755)
        for folder in ("log", "spool"):
            (directory / folder).mkdir()
        shutil.copytree(CONFIG, directory / "config")  # Exim must be able to read it, wherever the checkout is
        self._macros: dict[str, object] = {
            "CONFIG_DIR": directory / "config",
            "STATE_DIR": directory,
            "SMTP_PORT": self.port.number,
            "RUN_USER": owner.name,
            "RUN_GROUP": owner.gid,
            "MAILGATE_HOST": next_hop[0],
            "MAILGATE_PORT": next_hop[1],
            "MAILGATE_DOMAINS": domain,
            "MAILGATE_MAILMAN_PORT": self._nobody.number,
        }
        self._write()
        owner.own(directory, self._config, directory / "log", directory / "spool")

    def _write(self) -> None:
        lines = [f"{name} = {value}" for name, value in (self._macros | self._extra).items()]
        self._config.write_text("\n".join([*lines, f".include {self.directory}/config/exim4.conf", self._appended]))

    @property
    def macros(self) -> dict[str, object]:
        """Those that `set` has set."""
        return dict(self._extra)

    @property
    def extra(self) -> tuple[dict[str, object], str]:
        """What `set` was told last."""
        return dict(self._extra), self._appended

    def set(self, macros: Mapping[str, object] | None = None, appended: str = "") -> None:
        """Run with these macros more than at first, and no others, and `appended` at the end of the configuration;
        restarted if that makes a difference.
        """
        extra = dict(macros or {})
        if (appended, extra) == (self._appended, self._extra):
            return
        self._appended, self._extra = appended, extra
        self._write()
        if self.running:
            self.stop()
            self.start()

    def begin(self) -> None:
        """Start it; `ready` waits until it listens. A queue run each minute is its own, others by `run_queue`."""
        argv: list[str | Path] = [PROGRAM, "-C", self._config, "-bdf", "-q1m"]
        self._child = Child(argv, directory=self.directory, log=self.output, run_as=self._drop)

    def stop(self) -> None:
        """End the daemon and the deliveries that it forked."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def close(self) -> None:
        """End it and give its ports back."""
        super().close()
        self._nobody.close()

    def command(self, *arguments: str, deadline: float = PATIENCE, check: bool = True) -> str:
        """Run exim4 with this configuration, as the daemon's user; what it prints."""
        launcher = self._drop.launcher() if self._drop else []
        argv = [*launcher, PROGRAM, "-C", str(self._config), *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=deadline, check=check, cwd=self.directory)
        return done.stdout

    def run_queue(self, deadline: float = PATIENCE) -> None:
        """Try every queued message now, retry times or not; returns when each has been tried."""
        self.command("-qff", deadline=deadline)

    def forget(self) -> None:
        """Empty the queue, the hints about hosts that did not answer, and the bounces. The log stays."""
        wait_until(self._emptied, "Exim's queue is empty")
        for hint in (self.directory / "spool" / "db").glob("retry*"):
            hint.unlink()
        for bounce in (self.directory / "bounces" / "new").glob("*"):
            bounce.unlink()

    def _emptied(self) -> bool:
        if queued := self.queue():
            self.command("-Mrm", *queued, check=False)  # one that is being delivered is locked, or done in a moment
        return not self.queue()

    def queue(self) -> list[str]:
        """The Exim ids of the messages in its queue."""
        return sorted(path.name.removesuffix("-H") for path in (self.directory / "spool" / "input").rglob("*-H"))

    def bounces(self) -> list[bytes]:
        """The messages that it wrote itself, oldest first: bounces, with Return-path and Envelope-to in front."""
        return [path.read_bytes() for path in sorted((self.directory / "bounces" / "new").glob("*"))]

    def log_lines(self, pattern: str = "") -> list[str]:
        """The lines of the main log that `pattern` (a regular expression) is found in."""
        if not self.log.exists():
            return []
        return [line for line in self.log.read_text(errors="replace").splitlines() if re.search(pattern, line)]

    def wait_for_log(self, pattern: str, *, count: int = 1, deadline: float = PATIENCE) -> list[str]:
        """The lines of the main log with `pattern`, once there are `count` or more."""

        def lines() -> list[str]:
            found = self.log_lines(pattern)
            return found if len(found) >= count else []

        return wait_until(lines, f"{pattern!r} {count} times in Exim's log", deadline=deadline)

    def wait_for_id(self, message_id: str, deadline: float = PATIENCE) -> str:
        """The Exim id under which it took the message with this Message-ID (with or without brackets)."""
        line = self.wait_for_log(rf" <= .* id={re.escape(message_id.strip('<>'))}(\s|$)", deadline=deadline)[-1]
        return line.split()[2]

    def wait_empty(self, deadline: float = PATIENCE) -> None:
        """Wait until nothing is queued."""
        wait_until(lambda: not self.queue(), "Exim's queue is empty", deadline=deadline)
