"""/healthz, /readyz and `mailgate status`: each answer is that of the moment."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.edge.pair import Pair, mail, started
from tests.stack.gate import PROGRAM
from tests.stack.waiting import wait_until

A = "a@lists.test"


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with started() as one:
        yield one


def page(pair: Pair, path: str) -> dict[str, Any]:
    """The tree of a page."""
    tree: dict[str, Any] = json.loads(pair.gate.page(path)[1])
    return tree


def line(said: str, name: str) -> str:
    """What stands behind a name."""
    found = re.search(rf"^{name}: +(.+)$", said, re.MULTILINE)
    assert found, said
    return found[1]


def test_alive(pair: Pair) -> None:
    status, text = pair.gate.page("/healthz")
    tree = json.loads(text)
    assert (status, tree["alive"], tree["pid"], tree["hostname"]) == (200, True, pair.gate.pid, "gate.lists.test")
    assert 0 <= tree["loop_lag_seconds"] < 10
    assert tree["up_seconds"] > 0


def test_a_loop_that_stood_still_is_seen_afterwards(pair: Pair) -> None:
    assert pair.gate.metric("mailgate_loop_lag_seconds") < 5
    with pair.client() as client:
        pair.gate.send(signal.SIGSTOP)
        try:
            client.send(b"NOOP\r\n")
            assert client.silent(0.8)
        finally:
            pair.gate.send(signal.SIGCONT)
        assert client.reply().code == 250
    wait_until(lambda: page(pair, "/healthz")["last_beat_seconds"] < 0.3, "the loop beats again")
    assert 0.4 < page(pair, "/healthz")["loop_lag_seconds"] < 10
    assert 0.4 < pair.gate.metric("mailgate_loop_lag_seconds") < 10


def test_what_would_become_of_a_message_now(pair: Pair) -> None:
    tree = page(pair, "/readyz")
    assert (tree["ready"], tree["doors"], tree["mailman"], tree["spool"]) == (True, {"relay": True}, "up", "ok")
    pair.fake.refuse()
    pair.send(A)
    tree = page(pair, "/readyz")
    assert (tree["ready"], tree["spool"], tree["mailman"][:6]) == (True, "ok", "down: ")
    assert pair.gate.metric("mailgate_ready") == pair.gate.metric("mailgate_spool_writable") == 1
    pair.settle()


def test_a_spool_that_is_full(pair: Pair) -> None:
    """It is known before a message comes, and known to be over before the next one does."""
    pair.configure({"spool": {"min_free": "64TiB"}})
    pair.gate.send(signal.SIGHUP)
    wait_until(lambda: page(pair, "/readyz")["spool"] != "ok", "the new limit counts")
    status, text = pair.gate.page("/readyz")
    assert (status, json.loads(text)["ready"]) == (200, True)  # Mailman takes it
    assert "spool.min_free: " in json.loads(text)["spool"]
    assert pair.gate.metric("mailgate_spool_writable") == 0
    assert pair.gate.metric("mailgate_spool_min_free_bytes") >= 64 * 2**40
    assert pair.gate.metric("mailgate_ready") == 1
    pair.fake.refuse()
    assert pair.send(A).final[0].code == 452
    status, text = pair.gate.page("/readyz")
    assert (status, json.loads(text)["ready"]) == (503, False)
    assert pair.gate.metric("mailgate_ready") == 0
    done = pair.gate.cli("status", check=False)
    assert done.returncode == 1
    assert line(done.stdout, "ready").startswith("no: neither Mailman nor the spool takes mail: spool.min_free: ")
    pair.configure({})
    pair.gate.send(signal.SIGHUP)
    wait_until(lambda: pair.gate.page("/readyz")[0] == 200, "there is room again")
    pair.settle()


def test_all_of_it_on_one_screen(pair: Pair) -> None:
    wait_until(lambda: page(pair, "/status")["per_minute"]["seconds"] > 0, "there is a note to compare with")
    hops = b"Received: from a by b; Sun, 22 Nov 2026 10:00:00 +0000\r\n" * 101
    pair.send(A, "b@lists.test", octets=mail("<\x1b[2J@example.net>"))
    pair.send(A, octets=hops + mail("<loop@example.net>"))
    pair.fake.refuse()
    pair.send(A)
    pair.gate.wait_for_event("upstream.down")
    pair.gate.cli("pause", "--reason", "an upgrade")
    wait_until(lambda: page(pair, "/readyz")["paused"], "the pause is seen")

    said = pair.gate.cli("status").stdout

    assert len(said.splitlines()) < 24
    assert line(said, "ready") == "yes"
    assert line(said, "daemon").startswith(f"gate.lists.test, version 0.1.0, pid {pair.gate.pid}, up ")
    assert re.fullmatch(r"[\d.]+ a minute \(accept [\d.]+, reject [\d.]+\), last \d+s", line(said, "mail"))
    assert "spooled" in line(said, "recipients")
    assert line(said, "mailman").startswith("down: ")
    assert line(said, "scorers") == "none"
    assert line(said, "spool").startswith("1 pending, the oldest for ")
    assert line(said, "networks") == "ok"
    assert line(said, "paused") == "an upgrade"
    assert "loop 1" in line(said, "reasons")
    assert "too-many-connections" not in line(said, "reasons")  # there was none
    assert re.match(r"upstream\.down (\d+ times, last )?\d+s ago: ", line(said, "errors"))
    assert "\x1b" not in said
    tree = page(pair, "/status")
    assert tree["in_spool"]["messages"]["pending"] == 1
    assert (tree["paused"], tree["shut"], tree["reasons"]["loop"]) == ("an upgrade", "paused: an upgrade", 1)
    pair.gate.cli("resume")
    pair.settle()


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A test that fails does not wait for what would go on for ever."""
    try:
        yield
    finally:
        process.kill()


def test_watched(pair: Pair) -> None:
    """Until Ctrl-C, also while no daemon answers."""
    environment = {"MAILGATE_CONFIG": str(pair.gate.config), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    argv: list[str | Path] = [PROGRAM, "status", "--watch", "--every", "200ms", "--json"]
    with (
        subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch,
        _ended(watch),
    ):
        assert watch.stdout
        assert watch.stderr
        assert json.loads(watch.stdout.readline())["ready"]
        pair.gate.stop()
        while "trouble" not in (tree := json.loads(watch.stdout.readline())):
            pass
        assert "does not answer" in tree["trouble"]
        pair.gate.start()
        while not json.loads(watch.stdout.readline())["ready"]:
            pass
        watch.send_signal(signal.SIGINT)
        assert (watch.wait(60), watch.stderr.read()) == (0, b"")


def test_watched_on_a_terminal(pair: Pair) -> None:
    ours, theirs = pty.openpty()
    environment = {
        "MAILGATE_CONFIG": str(pair.gate.config),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TERM": "xterm",
    }
    argv: list[str | Path] = [PROGRAM, "status", "--watch", "--every", "200ms"]
    with subprocess.Popen(argv, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as watch, _ended(watch):
        os.close(theirs)
        octets = b""
        while octets.count(b"gate.lists.test") < 2:
            octets += os.read(ours, 65536)
        watch.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # EIO: it has ended
            while more := os.read(ours, 65536):
                octets += more
        assert watch.wait(60) == 0
    os.close(ours)
    assert octets.startswith(b"\x1b[?1049h")  # a screen of its own,
    assert b"\x1b[?1049l" in octets  # and the one before is given back
    assert re.search(rb"\x1b\[[0-9;]*32m[^\x1b]*yes", octets)
    assert b"Traceback" not in octets
