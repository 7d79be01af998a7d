"""A look at the directories of Mailman's queues. Blocks: for a thread.

Promises: names are read, no file is opened; memory does not grow with the queue; other threads get their turn, however
many files there are. How it fails: a directory that can't be read is OSError with its name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from mailgate.core.mailman_queues import QUEUES, Look, Queue

_SLICE = 1000  # names that are read in one go: about a millisecond of this thread's
_REST = 0.001  # seconds for the other threads, after each
# .bak is what a runner is working at, .psv what it has given up (in the queue bad).
_FILES = {"pck", "bak", "psv"}


def look(directory: Path, before: Mapping[str, Queue]) -> dict[str, Look]:
    """What is in the queues of this directory. A queue that Mailman has not made yet is left out."""
    (directory / ".").stat()  # a directory that is not there is no Mailman without queues
    found = {}
    for name in QUEUES:
        try:
            found[name] = _look(directory / name, before[name].look.at if name in before else 0.0)
        except FileNotFoundError:
            continue
    return found


def _look(queue: Path, last: float) -> Look:
    version = queue.stat().st_mtime_ns
    at = time.time()
    files = earlier = 0
    oldest, coming = 0.0, False
    with os.scandir(queue) as entries:
        for number, entry in enumerate(entries, 1):
            if not number % _SLICE:
                time.sleep(_REST)
            name, _, ending = entry.name.rpartition(".")
            coming = coming or ending == "tmp"
            if ending not in _FILES:
                continue
            entered = _entered(name)
            if at < entered <= time.time():
                continue  # it came while we looked: the next look's, or it would seem to have left by then
            files += 1
            # A name that says nothing, or a time to come (another clock's), is not of a file that has just come.
            earlier += not last < entered <= at
            if entered and (not oldest or entered < oldest):
                oldest = entered
    # Or what came between the first line and the listing would seem, at the next look, to have passed through since.
    coming = coming or queue.stat().st_mtime_ns != version
    return Look(at, files, oldest, earlier, version, coming)


def _entered(name: str) -> float:
    """When the file of this name ("1795348800.123+0f…") entered its queue; 0 if the name does not say it."""
    try:
        entered = float(name.partition("+")[0])
    except ValueError:
        return 0.0
    return entered if isfinite(entered) else 0.0
