"""How late an event loop is, at worst, while something goes on."""

import asyncio
import gc
import time
from types import TracebackType
from typing import Self

_TICK = 0.002  # seconds


class Lag:
    """`worst` is how late it was, `computing` for how long it computed at a stretch (there neither waiting counts, nor
    others' use of the machine); both in seconds.
    """

    def __init__(self) -> None:
        self.worst = self.computing = 0.0

    async def __aenter__(self) -> Self:
        gc.freeze()  # what the tests before left is not looked through while we measure
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.sleep(_TICK)  # a last look
        self._task.cancel()
        gc.unfreeze()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before, computed = loop.time(), time.thread_time()
            await asyncio.sleep(_TICK)
            self.worst = max(self.worst, loop.time() - before - _TICK)
            self.computing = max(self.computing, time.thread_time() - computed)
