"""Ends the children of a test run that could not end them itself, because it was killed.

Runs as a process of its own (`python reaper.py`) beside the test run, which writes `+GROUP` when it starts a child in a
process group of its own and `-GROUP` when it has ended it. End of input means that the run is gone, however it went:
all groups still named get SIGKILL, which also ends what is stopped (SIGSTOP).
"""

import os
import signal
import sys
from typing import IO


def watch(stream: IO[str]) -> None:
    """Read the group numbers until the end of `stream`, then kill the groups that are left."""
    groups: set[int] = set()
    for line in stream:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            print(f"reaper: group {group} had ended already", file=sys.stderr)


if __name__ == "__main__":
    watch(sys.stdin)
