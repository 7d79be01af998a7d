"""What a relay costs: CPU seconds and memory of all its processes, the ended ones included.

A control group counts exactly and at no cost, so version 2 or 1 is used where one can be made; elsewhere the process
tree in /proc is added up (there, a process whose parent did not wait for it is missed). `Meter.kind` says which.
A process that ends while it is looked at counts as gone.
"""

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

_TICK = os.sysconf("SC_CLK_TCK")


class Meter(Protocol):
    """Counts one relay's processes."""

    kind: str

    def wrap(self, command: list[str]) -> list[str]:
        """The command line that starts `command` under this meter."""
        ...

    def follow(self, pid: int) -> None:
        """Say which process was started so."""
        ...

    def pids(self) -> list[int]:
        """All processes alive."""
        ...

    def cpu_seconds(self) -> float:
        """User and system time used so far."""
        ...

    def close(self) -> None:
        """Forget the group; its processes have ended."""
        ...


class Group:
    """A control group of one relay."""

    def __init__(self, directory: Path, kind: str) -> None:
        directory.mkdir()
        self.kind = kind
        self._directory = directory

    def wrap(self, command: list[str]) -> list[str]:
        """The shell enters the group before it becomes the command, so that no child escapes."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self._directory / "cgroup.procs"), *command]

    def follow(self, pid: int) -> None:
        """The group knows its processes."""

    def pids(self) -> list[int]:
        """All processes alive."""
        return [int(pid) for pid in (self._directory / "cgroup.procs").read_text().split()]

    def cpu_seconds(self) -> float:
        """User and system time used so far, by live and dead processes."""
        if self.kind == "cgroup v1":
            return int((self._directory / "cpuacct.usage").read_text()) / 1e9
        lines = (self._directory / "cpu.stat").read_text().splitlines()
        return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6

    def close(self) -> None:
        """Remove the group."""
        self._directory.rmdir()


class Tree:
    """A relay's process tree as /proc shows it: live processes, and the dead ones that their parents waited for."""

    kind = "process tree"

    def __init__(self) -> None:
        self._root = 0

    def wrap(self, command: list[str]) -> list[str]:
        """Nothing to add."""
        return command

    def follow(self, pid: int) -> None:
        """The root of the tree."""
        self._root = pid

    def pids(self) -> list[int]:
        """All processes alive."""
        return list(self._processes())

    def cpu_seconds(self) -> float:
        """User and system time used so far."""
        return sum(self._processes().values())

    def close(self) -> None:
        """Nothing was made."""

    def _processes(self) -> dict[int, float]:
        children: dict[int, list[int]] = {}
        seconds: dict[int, float] = {}
        for pid, parent, used in _stat_lines():
            children.setdefault(parent, []).append(pid)
            seconds[pid] = used
        found: dict[int, float] = {}
        waiting = [self._root]
        while waiting:
            pid = waiting.pop()
            if pid in seconds:
                found[pid] = seconds[pid]
                waiting += children.get(pid, [])
        return found


def _stat_lines() -> Iterator[tuple[int, int, float]]:
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # the name in parentheses may hold spaces; fields 14 to 17 of proc(5) are utime stime cutime cstime
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            yield int(directory.name), int(fields[1]), sum(map(int, fields[11:15])) / _TICK


def new_meter(name: str) -> Meter:
    """The best meter that this machine allows. `name` must be unique on the machine."""
    for parent, kind in _group_parents():
        try:
            group = Group(parent / name, kind)
        except OSError:
            continue
        # some containers show a hierarchy in which nothing can be started or nothing is counted
        tried = subprocess.run(group.wrap(["true"]), check=False, stderr=subprocess.DEVNULL).returncode
        with contextlib.suppress(OSError, KeyError):
            if tried == 0 and group.cpu_seconds() > 0:
                return group
        group.close()
    return Tree()


def kind_of_meter() -> str:
    """What `new_meter` will use here."""
    meter = new_meter(f"mailgate-bench-{os.getpid()}-try")
    meter.close()
    return meter.kind


def _group_parents() -> Iterator[tuple[Path, str]]:
    """Where a group may be made: below our own one, or below the mount when that is hidden by a container."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            own[controller] = path.lstrip("/")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, filesystem, options, *_ = line.split()
        if filesystem == "cgroup2" and "" in own:
            controller, kind = "", "cgroup v2"
        elif filesystem == "cgroup" and "cpuacct" in options.split(",") and "cpuacct" in own:
            controller, kind = "cpuacct", "cgroup v1"
        else:
            continue
        yield Path(mount, own[controller]), kind
        yield Path(mount), kind


def pss_mib(meter: Meter) -> float:
    """Memory of all processes of the relay, shared pages divided among their users."""
    total = 0
    for pid in meter.pids():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


@contextlib.contextmanager
def watching_memory(meter: Meter | None) -> Iterator[list[float]]:
    """Sample the memory four times a second; the list holds what was seen (MiB). Without a meter it stays empty."""
    samples: list[float] = []
    if meter is None:
        yield samples
        return
    ended = threading.Event()

    def sample() -> None:
        while not ended.is_set():
            samples.append(pss_mib(meter))
            ended.wait(0.25)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
