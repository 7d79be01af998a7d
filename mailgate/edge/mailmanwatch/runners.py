"""Which of Mailman's runners are alive, by the command lines of this machine's processes. Blocks: for a thread.

How it fails: where processes of other users are not to be seen (hidepid, ProtectProc=), or Mailman is on another
machine, nothing is found.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

# The master starts each one so: …/runner -C FILE --runner=out:0:1 (name, which slice, of how many).
_RUNNER = re.compile(rb"\0--runner=([a-z][a-z0-9_-]{0,63}):(\d+):(\d+)(?:\0|$)")
_MOST = 4096  # octets of a command line


def alive(pid_file: Path | None) -> dict[str, bool]:
    """The runners that have processes, and whether all of a runner's slices have one. With the file that holds the
    master's process id, those of this master only.
    """
    master = _pid(pid_file) if pid_file else ""
    slices: defaultdict[str, set[bytes]] = defaultdict(set)
    of: dict[str, int] = {}
    for process in os.scandir("/proc"):
        if not process.name.isdigit():
            continue
        try:
            found = _RUNNER.search(_read(f"/proc/{process.name}/cmdline"))
            if not found or (pid_file and master not in _kin(process.name)):
                continue
        except OSError:
            continue  # it has ended
        name = found[1].decode()
        slices[name].add(found[2])
        of[name] = int(found[3])
    return {name: len(found) >= of[name] for name, found in slices.items()}


def _pid(file: Path) -> str:
    """The process id in a file; "none" if there is no such file: the master was stopped."""
    try:
        return file.read_bytes()[:32].decode("ascii", "replace").strip() or "none"
    except FileNotFoundError:
        return "none"


def _kin(pid: str) -> tuple[str, str]:
    """A process' parent, and the session that it is in: runners outlive a master that was killed."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return fields[1].decode(), fields[3].decode()


def _read(file: str) -> bytes:
    with open(file, "rb", buffering=0) as opened:  # noqa: PTH123  for each process of the machine
        return opened.read(_MOST)
