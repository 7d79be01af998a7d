"""A disk that does not sync: nothing is acknowledged, nothing of it comes back, and it is over when it is over."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.spool.kit import Recorder, spool, states
from tests.spool.processes import child

SHIM = Path(__file__).with_name("shim.c")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim, compiled."""
    made = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", made, SHIM, "-ldl"], check=True)
    return made


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """While this file is there, syncing fails."""
    return tmp_path / "failing"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the spool is."""
    made = tmp_path / "spool"
    made.mkdir()
    return made


def with_shim(library: Path, flag: Path, part: str) -> Mapping[str, str]:
    """The environment of a process whose files with `part` in their path do not sync while the flag is there."""
    return dict(os.environ, LD_PRELOAD=str(library), FAIL_FLAG=str(flag), FAIL_PATH=part)


@pytest.mark.parametrize("part", ["spool.db-wal", "spool.db"])
async def test_nothing_is_acknowledged_and_it_recovers(library: Path, flag: Path, directory: Path, part: str) -> None:
    with child("obey", directory, env=with_shim(library, flag, part)) as one:
        assert one.hear() == "ready"
        assert one.ask("before") == "stored before"
        flag.touch()
        for n in range(5):
            answer = one.ask(f"lost{n}")
            assert answer.startswith(f"failed lost{n} storing: disk I/O error (SQLITE_IOERR"), answer
        flag.unlink()
        assert one.ask("after") == "stored after"
        one.kill()
    async with spool(directory) as store:
        assert states(store) == {"pending": 2}
        assert {claimed.id for claimed in await store.claim(2e9, 9)} == {"before", "after"}


async def test_what_failed_does_not_come_back_when_the_process_dies(library: Path, flag: Path, directory: Path) -> None:
    """The frames of a failed commit stand in the log: recovery must not find them."""
    with child("obey", directory, env=with_shim(library, flag, "spool.db-wal")) as one:
        one.hear()
        assert one.ask("before") == "stored before"
        flag.touch()
        assert one.ask("lost").startswith("failed lost")
        one.kill()
    telemetry = Recorder()
    async with spool(directory, telemetry) as store:
        assert [claimed.id for claimed in await store.claim(2e9, 9)] == ["before"]
        assert await store.load("before")
