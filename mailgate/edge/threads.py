"""A job in a thread of its own, for what may hang in the kernel: a look at a file system that has gone away.

Promises: the end of the daemon does not wait for it, and it takes no thread from the loop's pool.
How it fails: as the job does; whoever waits bounds that, and begins no second one while the first is at it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


def begun(job: Callable[[], _T], name: str) -> Future[_T]:
    """The job, begun in a thread of this name. It can't be cancelled."""
    future: Future[_T] = Future()
    future.set_running_or_notify_cancel()  # from now on it can't be cancelled

    def run() -> None:
        try:
            future.set_result(job())
        except BaseException as error:  # noqa: BLE001  whoever waits gets it
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
