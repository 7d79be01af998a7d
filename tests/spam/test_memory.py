"""What scans of large messages hold in memory, besides the messages themselves."""

from __future__ import annotations

import asyncio
import tracemalloc

from mailgate.core.scan import Scored
from mailgate.scanner import Scorers
from tests.spam.kit import CLIENT, ENVELOPE, Watched, of_size, scorer
from tests.stack.fake_scorer import Engine, FakeScorer

SIZE, COUNT = 25 * 2**20, 20
MOST = 2 * 2**20  # octets for each message under way; one copy would be 25


async def test_twenty_large_messages_at_once_are_not_copied(engine: Engine, fake: FakeScorer) -> None:
    mail = of_size(SIZE)
    scanner = Scorers([scorer(engine, fake.port)], Watched(), timeout=60, connections=COUNT)
    deadline = asyncio.get_running_loop().time() + 60
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        found = await asyncio.gather(*(scanner.scan(ENVELOPE, mail, CLIENT, deadline) for _ in range(COUNT)))
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert all(isinstance(one, Scored) for one in found)
    assert fake.most_open == COUNT
    assert all(octets >= SIZE for octets in fake.octets)
    print(
        f"{COUNT} messages of {SIZE / 2**20:g} MiB: {most / 2**20:.1f} MiB besides them, the server's buffers included"
    )
    assert most < COUNT * MOST
    await scanner.close()
