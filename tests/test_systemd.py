"""mailgate under systemd: the unit by systemd's own tools, and what the daemon says to a real notify socket."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from mailgate.config import Config, parse
from mailgate.core.units import seconds
from mailgate.edge import systemd
from mailgate.edge.spool.store import DEADLINE
from tests.stack.children import remove, temporary_directory
from tests.stack.gate import Gate
from tests.stack.ports import Port

FOLDER = Path(__file__).parent.parent / "systemd"
UNIT = FOLDER / "mailgate.service"
EXPOSURE = 2.0
DRAIN_GRACE = 10  # seconds that the daemon may take past relay.budget
PATIENCE = 60.0  # seconds until what is waited for is missed


def directives(name: str) -> list[str]:
    """All values that the unit gives a directive."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)


def directive(name: str) -> str:
    """Its only value."""
    (value,) = directives(name)
    return value


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which needs no running systemd for this."""
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# the unit


def test_the_sandbox_leaves_little_exposed() -> None:
    run = analyze("security", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}", UNIT)
    assert run.returncode == 0, run.stdout + run.stderr
    found = re.search(r"Overall exposure level for mailgate\.service: ([0-9.]+)", run.stdout)
    assert found
    assert float(found[1]) <= EXPOSURE


def test_systemd_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    """Its programs stand in for ours, which are not installed where the tests run."""
    text, count = re.subn(r"^(Exec\w+=)\S+", r"\1/bin/true", UNIT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert count == 4
    unit = tmp_path / UNIT.name
    unit.write_text(text, encoding="utf-8")
    run = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_check_above_can_fail(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("Type=notify", "Tpye=notify"), encoding="utf-8")
    assert "Tpye" in analyze("verify", "--man=no", "--recursive-errors=no", unit).stderr


def test_what_it_runs() -> None:
    assert directives("Exec[A-Za-z]+") == [
        "/usr/local/bin/mailgate check-config",
        "/usr/local/bin/mailgate serve",
        "/usr/local/bin/mailgate check-config",
        "/bin/kill -HUP $MAINPID",
    ]


def test_its_times_and_limits_fit_the_defaults() -> None:
    config = Config()
    assert float(directive("TimeoutStopSec")) > config.relay.budget + DRAIN_GRACE + 2 * DEADLINE
    assert seconds(directive("TimeoutStartSec").replace("min", "m")) > config.relay.budget
    assert int(directive("LimitNOFILE")) > 2 * parse({"verdict": {"listen": ["127.0.0.1:11333"]}}).descriptors


def test_the_defaults_lie_where_the_unit_lets_them() -> None:
    config = Config()
    assert config.spool.path.parent == Path("/var/lib") / directive("StateDirectory")
    assert directive("RuntimeDirectory") == "mailgate"
    assert directives("IPAddressAllow") == ["localhost"]
    for at in (*config.relay.lmtp, config.mailman.lmtp, config.http.listen):
        assert ip_address(at.host).is_loopback


def test_the_user_is_made(tmp_path: Path) -> None:
    rules = FOLDER / "mailgate.sysusers"
    (tmp_path / "etc").mkdir()
    run = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", rules], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    (user,) = (tmp_path / "etc" / "passwd").read_text(encoding="utf-8").splitlines()
    name, _, _, _, _, home, shell = user.split(":")
    assert (name, home) == (directive("User"), f"/var/lib/{directive('StateDirectory')}")
    assert shell.endswith("/nologin")
    assert f"{directive('Group')}:" in (tmp_path / "etc" / "group").read_text(encoding="utf-8")


# what is said to systemd


@contextmanager
def notify_socket(path: str) -> Iterator[socket.socket]:
    """The end of NOTIFY_SOCKET that systemd holds, at a path or (with "@") at an abstract address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + path[1:] if path.startswith("@") else path)
        heard.settimeout(PATIENCE)
        yield heard


def next_that_is(heard: socket.socket, state: str) -> list[str]:
    """What was said before this state (which must come in time)."""
    before = []
    end = time.monotonic() + PATIENCE
    while (said := heard.recv(4096).decode()) != state:
        before.append(said)
        assert time.monotonic() < end, f"{state} was not said, but {set(before)}"
    return before


@pytest.mark.parametrize("address", ["{0}/notify", "@mailgate-test-{1}"])
def test_a_state_reaches_systemd(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = address.format(tmp_path, os.getpid())
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with notify_socket(path) as heard:
        systemd.notify("READY=1", "STATUS=serving")
        assert heard.recv(4096) == b"READY=1\nSTATUS=serving"


def test_without_systemd_nothing_is_said_and_nothing_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody-listens"))
    systemd.notify("READY=1")


@pytest.mark.parametrize(("value", "interval"), [(None, 0.0), ("60000000", 30.0), ("1000000", 0.5)])
def test_how_often_the_watchdog_is_fed(value: str | None, interval: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    if value:
        monkeypatch.setenv("WATCHDOG_USEC", value)
    assert systemd.watchdog_interval() == interval


@pytest.mark.parametrize(("value", "journal"), [(None, False), ("", False), ("8:12345", True)])
def test_whether_stderr_is_the_journal(value: str | None, journal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if value is not None:
        monkeypatch.setenv("JOURNAL_STREAM", value)
    assert systemd.under_journald() is journal


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the daemon's user can reach."""
    directory = temporary_directory("mailgate-systemd-")
    directory.chmod(0o755)
    yield directory
    remove(directory)


def test_the_daemon_tells_its_life(place: Path) -> None:
    notify = place / "notify"
    with Port() as nobody, notify_socket(str(notify)) as heard:
        notify.chmod(0o777)
        gate = Gate(place / "gate", nobody.address)
        try:
            gate.begin({"NOTIFY_SOCKET": str(notify), "WATCHDOG_USEC": "1000000"})
            assert next_that_is(heard, "READY=1") == []
            with socket.create_connection(gate.lmtp, timeout=PATIENCE) as client:  # ready means: the doors are open
                assert client.recv(4) == b"220 "
            for _ in range(3):
                assert next_that_is(heard, "WATCHDOG=1") == []
            assert gate.stop() == 0
            assert set(next_that_is(heard, "STOPPING=1")) <= {"WATCHDOG=1"}
        finally:
            gate.close()


def test_a_daemon_that_cannot_listen_is_not_ready(place: Path) -> None:
    notify = place / "notify"
    with Port() as taken, notify_socket(str(notify)) as heard, taken.listener():
        notify.chmod(0o777)
        gate = Gate(place / "gate", ("127.0.0.1", 1), {"relay": {"lmtp": [str(taken)]}})
        try:
            gate.begin({"NOTIFY_SOCKET": str(notify)})
            assert gate.ended() == 1
            heard.setblocking(False)
            with pytest.raises(BlockingIOError):
                heard.recv(4096)
        finally:
            gate.close()
        assert "address already in use" in gate.log.read_text(encoding="utf-8")
