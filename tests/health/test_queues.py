"""Looks at directories as Mailman makes them, and at processes as its master starts them."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailgate.core.mailman_queues import seen
from mailgate.edge.mailmanwatch.queues import look
from mailgate.edge.mailmanwatch.runners import alive
from tests.stack.lag import Lag
from tests.stack.waiting import wait_until


def put(queue: Path, entered: float, ending: str = ".pck") -> Path:
    """A file that entered the queue then."""
    queue.mkdir(exist_ok=True)
    file = queue / f"{entered!r}+{os.urandom(20).hex()}{ending}"
    file.touch()
    return file


def test_what_is_in_the_queues(tmp_path: Path) -> None:
    now = time.time()
    put(tmp_path / "in", now - 30)
    put(tmp_path / "in", now - 90.5, ".bak")  # a runner works at it
    put(tmp_path / "in", now - 500, ".pck.tmp")  # is being written
    put(tmp_path / "bad", now - 7000, ".psv")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README").touch()
    (tmp_path / "shunt").mkdir()
    (tmp_path / "shunt" / "nonsense.pck").touch()
    (tmp_path / "elsewhere").mkdir()

    found = look(tmp_path, {})

    assert {name: one.files for name, one in found.items()} == {"in": 2, "bad": 1, "out": 0, "shunt": 1}
    assert (found["in"].oldest, found["in"].coming) == (now - 90.5, True)
    assert (found["bad"].oldest, found["out"].oldest, found["shunt"].oldest) == (now - 7000, 0, 0)


def test_what_left_and_what_came(tmp_path: Path) -> None:
    files = [put(tmp_path / "in", time.time()) for _ in range(3)]
    queue = seen(None, look(tmp_path, {})["in"])
    files[0].unlink()
    put(tmp_path / "in", time.time())
    queue = seen(queue, look(tmp_path, {"in": queue})["in"])
    assert (queue.look.files, queue.look.earlier, queue.left) == (3, 2, 1)
    moved = queue.moved
    put(tmp_path / "in", time.time()).unlink()  # in and out between two looks
    queue = seen(queue, look(tmp_path, {"in": queue})["in"])
    assert queue.left == 0
    assert queue.moved > moved
    still = seen(queue, look(tmp_path, {"in": queue})["in"])
    assert still.moved == queue.moved


def test_what_comes_during_a_look_has_not_left_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a Mailman that stands still would seem to move, for as long as mail comes."""
    put(tmp_path / "in", time.time())
    queue = seen(None, look(tmp_path, {})["in"])
    scandir = os.scandir

    def coming(path: Path) -> object:
        put(path, time.time())
        return scandir(path)

    monkeypatch.setattr(os, "scandir", coming)
    for files in (1, 2, 3):
        queue = seen(queue, look(tmp_path, {"in": queue})["in"])
        assert (queue.look.files, queue.left, queue.moved) == (files, 0, 0)


def test_what_came_before_the_listing_has_not_passed_by_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name says that it had entered before the look began: Mailman takes a while to write it."""
    put(tmp_path / "in", time.time())
    queue = seen(None, look(tmp_path, {})["in"])
    scandir = os.scandir

    def renamed(path: Path) -> object:
        monkeypatch.setattr(os, "scandir", scandir)
        put(path, before)
        os.utime(path, (before, before))  # another mtime for sure: that of some file systems steps by milliseconds
        return scandir(path)

    before = time.time()
    monkeypatch.setattr(os, "scandir", renamed)
    for files in (2, 2):
        queue = seen(queue, look(tmp_path, {"in": queue})["in"])
        assert (queue.look.files, queue.left, queue.moved) == (files, 0, 0)


def test_a_file_of_another_clock_does_not_leave_again_and_again(tmp_path: Path) -> None:
    for entered in (time.time() + 3600, float("nan"), float("inf")):
        put(tmp_path / "in", entered)
    queue = seen(None, look(tmp_path, {})["in"])
    for _ in range(3):
        queue = seen(queue, look(tmp_path, {"in": queue})["in"])
        assert (queue.look.files, queue.left, queue.moved, queue.age) == (3, 0, 0, 0)


def test_a_directory_that_can_not_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="queue"):
        look(tmp_path / "queue", {})
    (tmp_path / "in").touch()
    with pytest.raises(NotADirectoryError, match="in"):
        look(tmp_path, {})


@pytest.fixture
def crowded() -> Iterator[Path]:
    """Twenty thousand files in a queue: a hundred thousand cost the same a slice, and the test run ten seconds."""
    memory = Path("/dev/shm")  # where there is one: a disk may take ten seconds to make them
    directory = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    out = directory / "out"
    out.mkdir()
    handle = os.open(out, os.O_RDONLY)
    for number in range(1, 20_001):
        os.mknod(f"{number}.5+0f.pck", dir_fd=handle)
    os.close(handle)
    yield directory
    shutil.rmtree(directory)


async def test_twenty_thousand_files_do_not_hold_the_loop_up(crowded: Path) -> None:
    """Other programs use this machine: the best of some looks counts."""
    held = [await _held_up(crowded)]
    while held[-1] >= 0.1 and len(held) < 5:
        held.append(await _held_up(crowded))
    assert min(held) < 0.1, held


async def _held_up(crowded: Path) -> float:
    """The longest that the loop was kept from turning by a look, in seconds."""
    async with Lag() as lag:
        found = (await asyncio.to_thread(look, crowded, {}))["out"]
    assert (found.files, found.oldest) == (20_000, 1.5)
    return min(lag.worst, lag.kept)  # late by others, or at work beside a loop that was let in: either is no fault


@contextmanager
def runner(*arguments: str) -> Iterator[int]:
    """A process with such a command line; its id."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "import sys; sys.stdin.read()", *arguments],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin
    try:
        yield process.pid
    finally:
        process.stdin.close()
        process.wait(60)


def test_which_runners_are_alive(tmp_path: Path) -> None:
    pid_file = tmp_path / "master.pid"
    pid_file.write_text(f"{os.getpid()}\n")
    with runner("-C", "mailman.cfg", "--runner=x-out:0:2"), runner("--runner=x-in:0:1"), runner("--runnerx=x-no:0:1"):
        wait_until(lambda: len(alive(pid_file)) == 2, "both are seen")  # once they are what they exec
        assert alive(pid_file) == {"x-out": False, "x-in": True}  # a slice of two is missing
        with runner("--runner=x-out:1:2"):
            wait_until(lambda: alive(pid_file)["x-out"], "both slices are seen")
        pid_file.write_text("1")
        assert not {"x-out", "x-in"} & alive(pid_file).keys()  # another master's
        assert alive(None).keys() >= {"x-out", "x-in"}
    pid_file.unlink()
    assert alive(pid_file) == {}


def test_runners_outlive_a_master_that_was_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "master.pid"
    with runner("--runner=x-orphan:0:1") as pid:
        pid_file.write_text(str(pid))  # that session's
        wait_until(lambda: alive(pid_file) == {"x-orphan": True}, "it is seen")
