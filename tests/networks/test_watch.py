"""Who follows the lists, where what it depends on is killed or hangs."""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from mailgate.edge.networks import Networks, Sources, watch

LISTED = "192.0.2.1"
KILLED = ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


class Heard:
    """Telemetry: the causes of failures."""

    def __init__(self) -> None:
        self.failed: list[object] = []

    def count(self, name: str, amount: float = 1, **labels: str) -> None: ...
    def observe(self, name: str, value: float, exemplar: str = "", **labels: str) -> None: ...
    def event(self, name: str, fields: Mapping[str, object], *, level: str = "info") -> None:
        if (name, level) == ("networks.failed", "error"):
            self.failed.append(fields["cause"])


def following(folder: Path, heard: Heard, sources: Sources | None = None) -> Networks:
    (folder / "one.txt").write_text(f"{LISTED}\n")
    sources = sources or Sources((folder / "one.txt",), folder / "own.txt")
    return Networks(sources, folder / "networks.table", heard)


def test_a_table_whose_maker_is_killed_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        heard = Heard()
        networks = following(tmp_path, heard)
        monkeypatch.setattr(watch, "_MAKING", KILLED)
        monkeypatch.setattr(watch, "_AGAIN", (0.0, 60.0))  # at once
        await networks.open()
        cause = f"{tmp_path}/networks.table: who makes it was killed: SIGKILL"
        assert networks.trouble == cause
        await networks._look()
        assert heard.failed == [cause, cause]
        monkeypatch.undo()
        networks.reload()
        await networks._look()
        assert networks.find(LISTED, 0.0)
        assert networks.trouble == ""

    asyncio.run(story())


def test_the_same_failure_is_left_alone_for_longer_and_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        networks = following(tmp_path, Heard())
        monkeypatch.setattr(watch, "_MAKING", KILLED)
        pauses = []
        for _ in range(6):
            networks.reload()  # does not wait for it
            await networks._look()
            assert networks._failed
            pauses.append(networks._failed.pause)
        assert pauses == [5, 10, 20, 40, 60, 60]

    asyncio.run(story())


class Dead(Sources):
    """Files on a mount that hangs."""

    answers = threading.Event()
    looks = 0

    def versions(self) -> dict[str, str]:
        """When the mount is back."""
        Dead.looks += 1
        assert Dead.answers.wait(120)
        return super().versions()


def test_a_mount_that_hangs_holds_nothing_up_and_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        heard = Heard()
        networks = following(tmp_path, heard, Dead((tmp_path / "one.txt",), tmp_path / "own.txt"))
        monkeypatch.setattr(watch, "_GLANCE", 0.05)
        await networks.open()
        for _ in range(3):
            await networks._look()
        assert "a mount that hangs?" in networks.trouble
        assert len(heard.failed) == 1
        assert Dead.looks == 1  # and so threads don't pile up
        Dead.answers.set()
        async with asyncio.timeout(60):
            while networks.trouble:
                await networks._look()
                await asyncio.sleep(0.01)
        assert networks.find(LISTED, 0.0)

    asyncio.run(story())


def test_other_files_are_looked_at_while_a_mount_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGHUP with a list that is elsewhere."""

    async def story() -> None:
        Dead.answers.clear()
        networks = following(tmp_path, Heard(), Dead((), tmp_path / "own.txt"))
        monkeypatch.setattr(watch, "_GLANCE", 0.05)
        await networks._look()
        assert networks.trouble
        monkeypatch.undo()
        networks.sources = Sources((tmp_path / "one.txt",), tmp_path / "own.txt")
        networks.reload()
        await networks._look()
        assert (networks.trouble, len(networks.find(LISTED, 0.0))) == ("", 1)

    try:
        asyncio.run(story())
    finally:
        Dead.answers.set()
