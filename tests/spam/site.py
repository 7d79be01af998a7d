"""Some fake servers and the scanner that asks them; the fixture `make` (conftest.py) makes and ends them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from mailgate.core.message import Message
from mailgate.core.scan import Scored, Unscored
from mailgate.scanner import Scorers
from tests.spam.kit import CLIENT, ENVELOPE, HAM, QUEUE_ID, Watched, scorer
from tests.stack.fake_scorer import GOOD, Act, FakeScorer

INTERVAL = 0.05  # seconds between probes
SILENT = Act(then="hang")
LATE = Act(GOOD["spamd"].says, late=True)
BROKE_OFF = "the answer broke off behind 0 octets"


class Site:
    """Some fake servers, and the scanner that asks them."""

    def __init__(self, count: int, connections: int, timeout: float) -> None:
        self.fakes = [FakeScorer("spamd") for _ in range(count)]
        self.watched = Watched()
        self.changes: list[bool] = []
        self.scanner = Scorers(
            [scorer("spamd", fake.port) for fake in self.fakes],
            self.watched,
            timeout=timeout,
            connections=connections,
            probe_interval=INTERVAL,
        )
        self.scanner.on_change = lambda: self.changes.append(self.scanner.available)

    async def scan(self, mail: Message = HAM, within: float = 30.0) -> Scored | Unscored:
        """One message."""
        deadline = asyncio.get_running_loop().time() + within
        return await self.scanner.scan(ENVELOPE, mail, CLIENT, deadline, QUEUE_ID)

    def all_do(self, act: Act) -> None:
        """What all servers do from now on, with messages and with probes."""
        for fake in self.fakes:
            fake.scan, fake.ping = act, act

    def counted(self, result: str, number: int) -> float:
        """The tries at that server that ended so."""
        return self.watched.value("spam_scans_total", result=result, server=str(self.fakes[number].port))


@contextlib.asynccontextmanager
async def watching(site: Site) -> AsyncIterator[None]:
    """With probes."""
    task = asyncio.create_task(site.scanner.watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await site.scanner.close()
