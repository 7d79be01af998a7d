"""The table that is in force, and who sees to it that it says what the files say.

Promises: a look-up waits for nothing; a new table takes the place of the old in one step, so each message is judged by
one of them; the table of the last run is in force from the start, before any file is read; changes on disk are taken
up within seconds, once a file is left alone. A table is made by another process (`making`), and read by a thread.
How it fails: never for mail. What can't be made, read or looked at leaves the table in force, and is said:
`networks.failed`, and `trouble` for as long as it lasts; a file that can't be used is `networks.broken`, entries that
were skipped are `networks.skipped`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
import traceback
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from mailgate.core.network_table import ListFile, Table
from mailgate.core.networks import NetworkSet
from mailgate.edge.networks.files import Sources
from mailgate.edge.networks.making import load
from mailgate.edge.threads import begun
from mailgate.ports import Telemetry

_LOOK = 1.0  # seconds between two looks at the files; one that has changed is read when it is the same at the next
_GLANCE = 5.0  # seconds that a look at the files may take
_AGAIN = 5.0, 60.0  # seconds until the same files are tried again after a failure: at first, and at most
_PATIENCE = 600.0  # seconds that a table may take to be made
_ENDS = 5.0  # seconds that a process may take to end which was killed: one that waits for a dead mount does not
_AT_START = 10.0  # seconds that the doors wait for the first table
# Python would say on stderr, where the reason of a failure is looked for, that this package knows the module already.
_MAKING = ("-I", "-W", "ignore::RuntimeWarning:runpy", "-m", "mailgate.edge.networks.making")


@dataclass(frozen=True, slots=True)
class _Failure:
    """Of which versions no table could be made, when that was, and how long it is left alone then."""

    of: dict[str, str]
    at: float
    pause: float


class Networks:
    """Implements ports.Networks. `watch` must run for changes to be seen; `sources` may be replaced. `trouble`: why
    what is in force is not what the files say, "" if it is.
    """

    def __init__(self, sources: Sources, path: Path, telemetry: Telemetry) -> None:
        """`path` is where the table is kept."""
        self.sources = sources
        self.table: Table | None = None
        self.trouble = ""
        self._path = path
        self._telemetry = telemetry
        self._wanted = asyncio.Event()
        self._seen: dict[str, str] = {}
        self._loaded = ""  # the version of the file that `table` was read from
        self._failed: _Failure | None = None
        self._looking: tuple[Sources, Future[tuple[str, dict[str, str]]]] | None = None

    def find(self, ip: str, now: float) -> tuple[NetworkSet, ...]:
        """The sets that list this address ("": none)."""
        if not self.table or not ip:
            return ()
        family, kind = (6, socket.AF_INET6) if ":" in ip else (4, socket.AF_INET)
        return self.table.find(family, int.from_bytes(socket.inet_pton(kind, ip.partition("%")[0])), now)

    def reload(self) -> None:
        """Have all files read anew, soon."""
        self._wanted.set()

    async def open(self) -> None:
        """Have a table in force, that of the last run if making one takes long. Never fails, waits some seconds."""
        try:
            async with asyncio.timeout(_AT_START):
                await self._load(await asyncio.to_thread(_version, self._path))
                _, self._seen = await self._glance()
                await self._look()
        except TimeoutError:
            self._telemetry.event("networks.slow", {"cause": "no table was made in time: it goes on"})
        except Exception:  # noqa: BLE001  a bug of ours must not keep the doors shut
            self._telemetry.event("networks.failed", {"trace": traceback.format_exc()}, level="error")

    async def watch(self) -> None:
        """Follow the files, for as long as the daemon runs."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), _LOOK)
            await self._look()

    async def _look(self) -> None:
        wanted = self._wanted.is_set()
        try:
            on_disk, versions = await self._glance()
        except TimeoutError:
            cause = f"the files are not seen within {_GLANCE:.0f} s: a mount that hangs?"
            if cause != self.trouble:
                self._fails(cause)
            return
        self._wanted.clear()
        if on_disk != self._loaded:  # a verb made it
            await self._load(on_disk)
        settled, self._seen = versions == self._seen, versions
        known = {one.name: one.version for one in self.table.files} if self.table else {}
        if not wanted:
            if versions == known:
                self.trouble, self._failed = "", None
            if versions == known or not settled or self._is_left_alone(versions):
                return
        await self._make(versions)

    async def _glance(self) -> tuple[str, dict[str, str]]:
        """The versions of the table and of the files, as they are now. Raises TimeoutError; that look then goes on, and
        the next one waits for it, lest threads pile up at a dead mount.
        """
        sources = self.sources
        if not self._looking or self._looking[0] is not sources:
            self._looking = sources, begun(lambda: (_version(self._path), sources.versions()), "networks")
        looking = self._looking[1]
        async with asyncio.timeout(_GLANCE):
            found = await asyncio.wrap_future(looking)
        self._looking = None
        return found

    def _is_left_alone(self, versions: dict[str, str]) -> bool:
        failed = self._failed
        return failed is not None and failed.of == versions and time.monotonic() < failed.at + failed.pause

    async def _make(self, versions: dict[str, str]) -> None:
        started = time.monotonic()
        try:
            trouble = await self._made()
        except (OSError, TimeoutError) as error:
            trouble = str(error) or f"took longer than {_PATIENCE:.0f} s"
        if trouble:
            self._fails(trouble)
        else:
            self._telemetry.observe("stage_seconds", time.monotonic() - started, stage="networks")
            if await self._load(await asyncio.to_thread(_version, self._path)):
                self.trouble, self._failed = "", None
                return
        again = self._failed is not None and self._failed.of == versions
        pause = min(2 * self._failed.pause, _AGAIN[1]) if again and self._failed else _AGAIN[0]
        self._failed = _Failure(versions, time.monotonic(), pause)

    def _fails(self, cause: str) -> None:
        self.trouble = cause
        self._telemetry.event("networks.failed", {"cause": cause}, level="error")

    async def _made(self) -> str:
        """Make a table; what went wrong. A process of its own, since this one's loop has mail to look after."""
        argv = ["--table", str(self._path), "--own", str(self.sources.own), *map(str, self.sources.files)]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *_MAKING, *argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_PATIENCE):
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ENDS):
                        await process.wait()
        if not process.returncode:
            return ""
        if process.returncode < 0:
            return f"{self._path}: who makes it was killed: {signal.Signals(-process.returncode).name}"
        return said.decode(errors="replace")[-2000:].strip() or f"exit status {process.returncode}"

    async def _load(self, version: str) -> bool:
        """Have the table on disk in force; False if it can't be read."""
        read = True
        try:
            table = await asyncio.to_thread(load, self._path) or self.table
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else error
            if version != self._loaded:
                self._fails(f"{self._path}: {said}")
            table, read = self.table, False
        self._loaded = version
        before, self.table = self.table, table
        if table and table is not before:
            self._tell(table, before)
        return read

    def _tell(self, table: Table, before: Table | None) -> None:
        then = {(one.name, one.version, one.broken) for one in before.files} if before else set()
        for one in table.files:
            if (one.name, one.version, one.broken) not in then:
                self._tell_file(one)
        for of in table.sets:
            self._telemetry.count("network_hits", 0, set=of.name)
        self._telemetry.event(
            "networks.loaded",
            {"sets": len(table.sets), "networks": sum(table.living(time.time())), "bytes": table.size},
        )

    def _tell_file(self, one: ListFile) -> None:
        if one.broken:
            kept = {"since": one.read} if one.read else {}
            self._telemetry.event("networks.broken", {"file": one.name, "cause": one.broken, **kept}, level="error")
        elif one.bad:
            skipped = {"file": one.name, "entries": one.bad, "problems": list(one.problems)}
            self._telemetry.event("networks.skipped", skipped, level="warning")


def _version(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"
