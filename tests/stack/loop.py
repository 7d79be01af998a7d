"""An event loop in a thread of its own, for the servers that a test runs beside itself."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.stack.waiting import PATIENCE

Value = TypeVar("Value")


class Loop:
    """Runs from the start until `close`."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Value], deadline: float = PATIENCE) -> Value:
        """Have the loop do `work`; its result. TimeoutError past the deadline (seconds)."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(deadline)

    def close(self) -> None:
        """End all tasks, the loop and its thread."""
        self.run(_cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()


async def stop_listening(server: asyncio.Server) -> None:
    """Close a server. What it is just accepting is let in first: asyncio would trip over it and leave it open."""
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener)
    await asyncio.sleep(0)
    server.close()


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
