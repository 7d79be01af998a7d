"""The programs that a test run starts: each in a process group of its own, ended by its number, never left behind.

A `Child` is ended with all that it forked. Should the test run itself be killed, the reaper ends the groups and removes
the temporary directories. As root the programs run as an unprivileged account.
"""

import atexit
import functools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.stack.waiting import PATIENCE, wait_until


@dataclass(frozen=True)
class Account:
    """A user that a program runs as, with no other group than its own."""

    name: str
    uid: int
    gid: int

    def own(self, *paths: Path) -> None:
        """Give the files to this account."""
        for path in paths:
            os.chown(path, self.uid, self.gid)

    def can_read(self, paths: Iterable[Path]) -> bool:
        """May this account read them? Nothing under /root, for one."""
        return all(_can_read(self, path) for path in paths)

    def launcher(self, reads: Iterable[Path] = ()) -> list[str]:
        """The command that starts another as this account.

        A program that must read one of `reads` and may not is given CAP_DAC_READ_SEARCH, and no other privilege.
        """
        look = [] if self.can_read(reads) else ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        return [*self._become(), *look]

    def _become(self) -> list[str]:
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]


@functools.cache
def _can_read(who: Account, path: Path) -> bool:
    return subprocess.run([*who._become(), "test", "-r", path], check=False).returncode == 0


def account(name: str) -> Account | None:
    """The account `name` when we may become it (as root), else None: we run on as who we are."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(name)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def me() -> Account:
    """Who we are."""
    return Account(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid())


class Child:
    """A started program and all that it forks. What it prints goes to the end of `log`."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        directory: Path,
        log: Path,
        run_as: Account | None = None,
        reads: Iterable[Path] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        launcher = run_as.launcher(reads) if run_as else []
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": str(directory)}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*launcher, *argv],
                cwd=directory,
                env={**clean, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.name = Path(argv[0]).name
        self.pid = self._process.pid
        _tell_reaper(f"+{self.pid}")

    @property
    def running(self) -> bool:
        """Has it not ended yet? (Its forks are not asked.)"""
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program alone."""
        self._process.send_signal(number)

    def wait(self, deadline: float = PATIENCE) -> int:
        """Its exit status, once it has ended by itself. TimeoutError if it does not."""
        try:
            status = self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} ({self.pid}) did not end within {deadline:g} s") from None
        self._end_group()
        return status

    def stop(self, deadline: float = PATIENCE) -> int:
        """Ask it to end (SIGTERM) and wait; its exit status. Past the deadline it is killed and TimeoutError raised."""
        if self.running:
            self.send(signal.SIGTERM)
        try:
            return self.wait(deadline)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it and all that it forked at once (SIGKILL). Nothing happens when it has ended."""
        self._end_group()
        self._process.wait()

    def _end_group(self) -> None:
        if members(self.pid):
            os.killpg(self.pid, signal.SIGKILL)
            wait_until(lambda: set(members(self.pid)) <= {self.pid}, f"the end of process group {self.pid}")
        _tell_reaper(f"-{self.pid}")


def temporary_directory(prefix: str) -> Path:
    """A new directory that the reaper removes, should we not come to `remove` it."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    _tell_reaper(f"+{directory}")
    return directory


def remove(directory: Path) -> None:
    """Remove a temporary directory with all that is in it."""
    shutil.rmtree(directory)
    _tell_reaper(f"-{directory}")


def members(group: int) -> list[int]:
    """The processes of a process group, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(entry.name))
    return found


@functools.cache
def _reaper() -> subprocess.Popen[str]:
    program = Path(__file__).with_name("reaper.py")
    reaper = subprocess.Popen([sys.executable, "-S", program], stdin=subprocess.PIPE, text=True, start_new_session=True)
    atexit.register(_dismiss, reaper)
    return reaper


def _dismiss(reaper: subprocess.Popen[str]) -> None:
    if reaper.stdin:
        reaper.stdin.close()
    reaper.wait()


def _tell_reaper(line: str) -> None:
    stream = _reaper().stdin
    if stream:
        stream.write(f"{line}\n")
        stream.flush()
