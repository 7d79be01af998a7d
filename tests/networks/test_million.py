"""A million networks: what a look-up, the memory and the loop of a daemon that reads them come to."""

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailgate.core.network_table import Table
from mailgate.edge.networks import Networks, Sources
from tests.cli.site import Silence
from tests.edge.pair import Pair
from tests.stack.children import remove, temporary_directory
from tests.stack.lag import Lag
from tests.stack.waiting import wait_until

MANY = 1_000_000
LAG = 0.05  # seconds that the loop may be kept
BUSY = 1.0  # seconds that it may be late in a daemon beside which other tests run


@pytest.fixture
def million() -> Iterator[Path]:
    """A list of a million networks, half of them IPv6, that no two are the same of; in a directory for everybody."""
    folder = temporary_directory("mailgate-lists-")
    folder.chmod(0o755)
    numbers = random.Random(1)
    file = folder / "new"
    with file.open("w") as out:
        for number in range(MANY // 2):
            four = (number << 12 | numbers.getrandbits(12)).to_bytes(4)
            out.write("{}.{}.{}.{}/{}\n".format(*four, numbers.choice((24, 28, 32))))
            six = f"2001{number:08x}{numbers.getrandbits(80):020x}"
            out.write(f"{':'.join(six[n : n + 4] for n in range(0, 32, 4))}/{numbers.choice((48, 64, 128))}\n")
    file.chmod(0o644)
    yield file
    remove(folder)


def memory(pid: int) -> int:
    """Octets that the process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.timeout(400)
def test_a_million_networks(million: Path) -> None:
    listed = million.with_name("many.txt")
    own = {"files": [str(million.parent)], "own_file": str(million.parent / "own.txt")}
    (million.parent / "few.txt").write_text("192.0.2.1\n")
    (million.parent / "few.txt").chmod(0o644)
    pair = Pair({"networks": own})
    try:
        pair.gate.start()
        before = memory(pair.gate.pid)
        million.rename(listed)
        wait_until(lambda: loaded(pair), "a million networks are in force", deadline=300)
        grown = memory(pair.gate.pid) - before
        lag = pair.gate.metric("mailgate_loop_lag_seconds")  # the worst of the last half minute at least
        table = million.with_name("table")
        table.write_bytes((pair.gate.directory / "networks.table").read_bytes())
    finally:
        pair.close()
    octets = table.read_bytes()
    print(f"lag: at most {lag:.4f} s; memory: {grown / 2**20:.0f} MiB")
    assert len(octets) < 40 * 2**20
    assert grown < 2 * len(octets)
    assert lag < BUSY
    kept = asyncio.run(take_up(table, million.parent / "own.txt"))
    print(f"the loop is kept for {kept:.4f} s at most")
    assert kept < LAG
    look_up(Table(octets))


def loaded(pair: Pair) -> bool:
    """Is the whole list in force?"""
    return any(one["networks"] == MANY + 1 for one in pair.gate.events("networks.loaded"))


async def take_up(table: Path, own: Path) -> float:
    """For how long a loop is kept while that table is taken up: in the time of this process, others run beside it."""
    networks = Networks(Sources((), own), table, Silence())
    async with Lag() as lag:
        await networks._load("")
    assert networks.table
    assert sum(one.entries for one in networks.table.sets) == MANY + 1
    return lag.kept


def look_up(table: Table) -> None:
    """In the time of this process: others run beside it."""
    numbers = random.Random(2)
    questions = [(4, numbers.getrandbits(32)) for _ in range(20_000)]
    questions += [(6, 0x2001 << 112 | numbers.getrandbits(99)) for _ in range(20_000)]
    best = min(_seconds(table, questions) for _ in range(5)) / len(questions)
    print(f"a look-up: {best * 1e6:.2f} µs")
    assert best < 5e-6


def _seconds(table: Table, questions: list[tuple[int, int]]) -> float:
    began = time.process_time()
    for family, address in questions:
        table.find(family, address, 1.0)
    return time.process_time() - began
