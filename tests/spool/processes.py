"""Children of the tests: started, spoken with, and always ended by their own id."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class Child:
    """A running `tests.spool.child`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, line: str) -> str:
        """Say a line, hear a line."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> str:
        """The next line. Fails the test when the child has ended."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the child ended"
        return line.rstrip("\n")

    def kill(self, after: float = 0) -> list[str]:
        """SIGKILL, after some seconds; the lines that it had still said."""
        time.sleep(after)
        self.process.kill()
        rest, _ = self.process.communicate(timeout=60)
        return rest.splitlines()


@contextmanager
def child(mode: str, directory: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Start it; at the end it is gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.spool.child", mode, str(directory), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    )
    try:
        yield Child(process)
    finally:
        process.kill()
        process.communicate(timeout=60)
