"""The watch on a directory of queues: when it turns the valve, and how it finds out that Mailman moves again."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from mailgate.config import MailmanConfig, parse
from mailgate.config.kinds import Secret
from mailgate.edge.mailmanwatch import MailmanWatch
from mailgate.ports import Valve
from tests.cli.site import Silence
from tests.health.test_queues import put, runner
from tests.health.test_rest import OK, SECRET, played


class Counting(Silence):
    """Telemetry of which the sum of all counts is kept, and what was said."""

    def __init__(self) -> None:
        self.counted = 0.0
        self.said: list[tuple[str, object]] = []

    def event(self, name: str, fields: Mapping[str, object], *, level: str = "info") -> None:  # noqa: ARG002
        self.said.append((name, fields.get("runners", fields.get("cause"))))

    def count(self, name: str, amount: float = 1, **labels: str) -> None:  # noqa: ARG002  as ports.Telemetry has it
        self.counted += amount


class Watched:
    """A watch that runs, its valve, and each turn of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.valve = Valve()
        self.turns: list[bool] = []
        self.telemetry = Counting()
        self.watch = MailmanWatch(self.config("200ms"), self.valve, self.telemetry)
        self.watch.on_change = lambda: self.turns.append(bool(self.valve.stalled))

    def config(self, stalled_after: str) -> MailmanConfig:
        """It looks at `directory` a hundred times a second."""
        keys = {
            "queue_dir": str(self.directory),
            "pid_file": f"{self.directory}/master.pid",
            "probe_interval": "10ms",
            "stalled_after": stalled_after,
        }
        return parse({"mailman": {**keys, "spool_when_stalled": True}}).mailman

    def samples(self, later: float = 0.0) -> dict[str, dict[str, float]]:
        """Values by the name of the gauge and its label."""
        return {
            name: {"".join(labels.values()): value for labels, value in values}
            if isinstance(values, tuple)
            else {"": values}
            for name, _, values in self.watch.samples(time.time() + later)
        }


@contextlib.asynccontextmanager
async def running(found: Watched) -> AsyncIterator[Watched]:
    """The watch looks."""
    task = asyncio.create_task(found.watch.watch())
    yield found
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    async with running(Watched(tmp_path)) as found:
        yield found


async def until(condition: Callable[[], object]) -> None:
    """Until it is so."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  what is asked has no event
            await asyncio.sleep(0.005)


async def test_the_valve_is_shut_and_tried(watched: Watched) -> None:
    """One file that can't be processed does not keep all mail back, once it is seen that others go."""
    put(watched.directory / "in", time.time() - 1000)
    await until(lambda: watched.turns == [True])
    assert watched.valve.shut.startswith("Mailman stands still: nothing leaves the queue in: 1 file, the oldest since")
    assert watched.samples()["mailman_stalled"] == {"": 1.0}
    await until(lambda: watched.turns == [True, False, True])  # tried, in vain
    await until(lambda: watched.turns == [True, False, True, False])  # tried once more
    put(watched.directory / "in", time.time()).unlink()  # what was let through is processed
    await until(lambda: not watched.watch.stalled)
    assert not watched.valve.shut


async def test_what_moves_slowly_is_not_kept_back(watched: Watched) -> None:
    watched.watch.config = watched.config("5s")
    files = [put(watched.directory / "out", time.time() - 1000 + n) for n in range(4)]
    await until(lambda: "mailman_queue_files" in watched.samples())
    for number, file in enumerate(files, 1):
        file.unlink()
        await until(partial(lambda left: watched.telemetry.counted == left, number))
    assert watched.turns == []


async def test_a_runner_that_ends_is_dead_until_it_is_back(watched: Watched) -> None:
    (watched.directory / "master.pid").write_text(str(os.getpid()))
    with runner("--runner=in:0:1"), runner("--runner=nobodys:0:1"):
        with runner("--runner=out:0:1"):
            await until(lambda: watched.samples().get("mailman_runners") == {"in": 1.0, "out": 1.0})
        await until(lambda: watched.samples()["mailman_runners"] == {"in": 1.0, "out": 0.0})
        with runner("--runner=out:0:1"):
            await until(lambda: watched.samples()["mailman_runners"] == {"in": 1.0, "out": 1.0})
    told = [one for one in watched.telemetry.said if one[0].startswith("mailman.runners")]
    assert told[:2] == [("mailman.runners.down", ["out"]), ("mailman.runners.up", ["out"])]


async def test_what_is_said_of_what_can_not_be_seen(tmp_path: Path) -> None:
    """Also by a gate that was started so."""
    (tmp_path / "in").touch()
    async with running(Watched(tmp_path)) as watched:
        said = watched.telemetry.said
        await until(lambda: said)
        ((name, cause),) = said
        assert name == "mailman.unseen"
        assert "Not a directory" in str(cause)
        assert watched.samples() == {
            "mailman_watched": {"queues": 0.0, "runners": 0.0}
        }  # no process of Mailman's, either
        (tmp_path / "in").unlink()
        await until(lambda: len(said) > 1)
        assert said[1] == ("mailman.unseen", f"{tmp_path}: none of Mailman's queues is there")
        (tmp_path / "in").mkdir()
        await until(lambda: len(said) > 2)
        assert said[2][0] == "mailman.seen"
        await until(lambda: watched.samples()["mailman_watched"]["queues"])


async def test_queues_that_can_not_be_seen_hide_neither_runners_nor_the_rest_interface(watched: Watched) -> None:
    """That a runner has died is then all that there is to be seen."""
    (watched.directory / "in").touch()  # no directory: not even root can list it
    (watched.directory / "master.pid").write_text(str(os.getpid()))
    async with played(lambda _: OK + b'{"mailman_version": "GNU Mailman 3.3.10"}') as url:
        watched.watch.config = watched.watch.config.model_copy(
            update={"rest_url": url, "rest_secret_file": Secret("", SECRET)}
        )
        with runner("--runner=out:0:1"):
            await until(lambda: watched.samples().get("mailman_runners") == {"out": 1.0})
            assert watched.samples()["mailman_watched"] == {"queues": 0.0, "runners": 1.0}
        await until(lambda: watched.samples().get("mailman_runners") == {"out": 0.0})
        await until(lambda: watched.samples().get("mailman_rest_up") == {"": 1.0})
    assert ("mailman.runners.down", ["out"]) in watched.telemetry.said
    assert "mailman_queue_files" not in watched.samples()
    found = watched.watch.status(time.time())
    assert (found["watched"], found["version"]) == ({"queues": False, "runners": True}, "GNU Mailman 3.3.10")


async def test_it_is_not_told_before_it_is_known(tmp_path: Path) -> None:
    """After a start an old file may be of a Mailman that stands still, or of one that drains."""
    put(tmp_path / "in", time.time() - 1000)
    once = Watched(tmp_path)
    once.watch.config = once.watch.config.model_copy(update={"probe_interval": 3600.0})
    async with running(once):
        await until(lambda: "mailman_queue_files" in once.samples())
        assert "mailman_stalled" not in once.samples()


async def test_what_is_not_known_is_absent(watched: Watched) -> None:
    put(watched.directory / "in", time.time())
    await until(lambda: "mailman_queue_files" in watched.samples())
    assert watched.samples()["mailman_queue_files"] == {"in": 1.0}
    assert watched.samples(later=61) == {"mailman_watched": {"queues": 0.0, "runners": 0.0}}
