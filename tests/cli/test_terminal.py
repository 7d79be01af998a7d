"""What only a terminal gets: tables, progress, questions; and what a pipe gets instead. On a real pseudo-terminal."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.site import Mail, Site
from tests.stack.fake_mailman import FakeMailman
from tests.stack.waiting import wait_until

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A terminal of 120 columns, and what was written to it."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.octets = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """What was written, without colours and movements of the cursor."""
        return ESCAPE.sub("", self.octets.decode())

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while octets := os.read(self._ours, 65536):
                self.octets += octets

    def wait_for(self, words: str) -> None:
        """Until these words have come."""
        wait_until(lambda: words in self.text, f"{words!r} on the terminal")

    def type(self, text: str) -> None:
        """As if somebody did."""
        os.write(self._ours, text.encode())

    @contextlib.contextmanager
    def taken_over(self, monkeypatch: pytest.MonkeyPatch, columns: int = 120) -> Iterator[None]:
        """In the block it is the terminal of our own process."""
        with monkeypatch.context() as patch, contextlib.ExitStack() as streams:
            for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
                patch.setattr(sys, name, streams.enter_context(os.fdopen(os.dup(self.theirs), mode)))
            patch.setenv("TERM", "xterm")
            patch.setenv("COLUMNS", str(columns))  # rich asks the streams that the process began with
            yield

    def end(self) -> None:
        """Hang up, and read what was still on its way."""
        os.close(self.theirs)
        self._reader.join(60)
        assert not self._reader.is_alive()
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal of its own."""
    made = Terminal()
    yield made
    made.end()


def test_a_terminal_gets_a_table_without_control_characters_of_a_mail(
    site: Site, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = Mail(
        {"b\udcf6b\x9b2J@lists.test": "held"},
        sender="x\x1b]0;owned\x07@example.org",
        octets=b"A: \x1b[2J\x9b\r\n\r\n\x07\r\nThe end\r\n",
    )
    (gate_id,) = site.fill(evil)

    with terminal.taken_over(monkeypatch):
        assert site.call("queue", "list") == 0
        assert site.call("queue", "show", gate_id) == 0
        assert site.call("queue", "show", gate_id, "--raw") == 0
    terminal.wait_for("The end")

    assert "1 message, 1 recipient" in terminal.text
    assert "─────" in terminal.text
    assert r"A: \x1b[2J" in terminal.text
    assert terminal.text.replace("\r", "").replace("\n", "").isprintable()
    assert b"owned\x07" not in terminal.octets
    assert b"\x1b[2J" not in terminal.octets


def test_a_narrow_terminal_gets_the_most_important_columns(
    site: Site, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.fill(Mail(sender="somebody.with.a.long.name@example.org"))

    with terminal.taken_over(monkeypatch, columns=80):
        assert site.call("queue", "list") == 0
    terminal.wait_for("1 recipient")

    assert terminal.text.splitlines()[0].split() == ["ID", "AGE", "SIZE", "STATE", "RECIPIENT"]
    assert max(map(len, terminal.text.splitlines())) <= 80


def test_progress_is_shown_on_a_terminal_and_not_in_a_pipe(fed: Site, fake: FakeMailman, terminal: Terminal) -> None:
    fed.fill(*(Mail(age=900 - n) for n in range(6)))
    piped = fed.start("queue", "replay", "--all", "--limit", "3", "-v", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = piped.communicate(timeout=60)
    shown = fed.start("queue", "replay", "--all", "--rate", "20/s", stdout=subprocess.PIPE, stderr=terminal.theirs)
    unheard, _ = shown.communicate(timeout=60)
    terminal.wait_for("3 delivered in ")

    assert (piped.returncode, shown.returncode) == (0, 0)
    assert "replaying ━" in terminal.text.replace("╸", "━").replace("╺", "━")
    assert "3/3" in terminal.text
    assert unheard == b""
    assert b"\x1b" not in out + err
    assert "━" not in err.decode()
    assert len(out.splitlines()) == 3
    assert len(fake.taken) == 6


@pytest.mark.parametrize(("answer", "status", "state"), [("n\n", 1, "pending"), ("y\n", 0, "dropped")])
def test_a_terminal_is_asked(
    site: Site, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, answer: str, status: int, state: str
) -> None:
    site.fill(Mail())
    terminal.type(answer)

    with terminal.taken_over(monkeypatch):
        assert site.call("queue", "drop", "--all") == status
    terminal.wait_for("[y/N]")

    assert "drop: 1 recipient of 1 message, " in terminal.text
    assert list(site.states().values()) == [state]


def test_a_reader_that_goes_away_is_no_error(site: Site) -> None:
    site.fill(*(Mail(age=900 - n, reply="451 " + "x" * 500) for n in range(400)))  # more than a pipe holds
    process = site.start("queue", "list", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()

    assert (process.stderr.read(), process.wait(60)) == (b"", 0)
    process.stderr.close()


def test_a_reader_that_goes_away_does_not_stop_a_change(site: Site) -> None:
    site.fill(*(Mail(age=900 - n) for n in range(600)))
    process = site.start("queue", "hold", "--all", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()

    assert process.stderr.read().endswith(b"\n600 recipients of 600 messages held\n")
    assert process.wait(60) == 0
    process.stderr.close()
    assert set(site.states().values()) == {"held"}


def test_a_full_disk_behind_stdout_is_said_and_is_a_failure(site: Site) -> None:
    site.fill(Mail(), Mail())
    with Path("/dev/full").open("wb") as full:
        process = site.start("queue", "hold", "--all", "--json", stdout=full, stderr=subprocess.PIPE)
        said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    assert said.splitlines()[-1] == "mailgate: standard output: No space left on device"
    assert "Traceback" not in said
    assert set(site.states().values()) == {"held"}, "what it does is done all the same"
