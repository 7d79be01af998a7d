"""How late an event loop is, at worst, while something goes on."""

import asyncio
import gc
import time
from types import TracebackType
from typing import Self

_TICK = 0.002  # seconds


class Lag:
    """`worst` is how late it was. `computing` is for how long it computed at a stretch, `kept` for how long this whole
    process did without the loop being let in: in these neither waiting counts, nor others' use of the machine. All in
    seconds.
    """

    def __init__(self) -> None:
        self.worst = self.computing = self.kept = 0.0

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
            before, computed, kept = loop.time(), time.thread_time(), time.process_time()
            await asyncio.sleep(_TICK)
            self.worst = max(self.worst, loop.time() - before - _TICK)
            self.computing = max(self.computing, time.thread_time() - computed)
            self.kept = max(self.kept, time.process_time() - kept)
