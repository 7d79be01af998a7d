"""Ends the children of a test run that could not end them itself, because it was killed.

Runs as a process of its own (`python reaper.py`) beside the test run. That writes `+GROUP` when it starts a child in a
process group of its own, `+/DIRECTORY` when it makes a temporary directory, and the same with `-` when it has put them
away itself. End of input means that the run is gone, however it went: all groups still named get SIGKILL, which also
ends what is stopped (SIGSTOP), then the directories are removed.
"""

import os
import shutil
import signal
import sys
from typing import IO


def watch(stream: IO[str]) -> None:
    """Read what there is to put away until the end of `stream`, then put away what is left."""
    left: set[str] = set()
    for line in stream:
        thing = line[1:].rstrip("\n")
        if line.startswith("+"):
            left.add(thing)
        else:
            left.discard(thing)
    for group in [int(thing) for thing in left if not thing.startswith("/")]:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            print(f"reaper: group {group} had ended already", file=sys.stderr)
    for directory in [thing for thing in left if thing.startswith("/")]:
        shutil.rmtree(directory)


if __name__ == "__main__":
    watch(sys.stdin)
