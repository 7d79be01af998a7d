"""The table that is in force, and who sees to it that it says what the files say.

Promises: a look-up waits for nothing; a new table takes the place of the old in one step, so each message is judged by
one of them; the table of the last run is in force from the start, before any file is read; changes on disk are taken
up within seconds, once a file is left alone. A table is made by another process (`making`), and read by a thread.
How it fails: never for mail. What can't be made or read leaves the table in force, and is said: `networks.failed`; a
file that can't be used is `networks.broken`, entries that were skipped are `networks.skipped`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
import traceback
from pathlib import Path

from mailgate.core.network_table import ListFile, Table
from mailgate.core.networks import NetworkSet
from mailgate.edge.networks.files import Sources
from mailgate.edge.networks.making import load
from mailgate.ports import Telemetry

_LOOK = 1.0  # seconds between two looks at the files; one that has changed is read when it is the same at the next
_AGAIN = 60.0  # seconds until the same files are tried again after a failure
_PATIENCE = 600.0  # seconds that a table may take to be made
_AT_START = 10.0  # seconds that the doors wait for the first table
# Python would say on stderr, where the reason of a failure is looked for, that this package knows the module already.
_MAKING = ("-I", "-W", "ignore::RuntimeWarning:runpy", "-m", "mailgate.edge.networks.making")


class Networks:
    """Implements ports.Networks. `watch` must run for changes to be seen; `sources` may be replaced."""

    def __init__(self, sources: Sources, path: Path, telemetry: Telemetry) -> None:
        """`path` is where the table is kept."""
        self.sources = sources
        self.table: Table | None = None
        self._path = path
        self._telemetry = telemetry
        self._wanted = asyncio.Event()
        self._seen: dict[str, str] = {}
        self._loaded = ""  # the version of the file that `table` was read from
        self._failed: tuple[dict[str, str], float] = {}, 0.0

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
                self._seen = await asyncio.to_thread(self.sources.versions)
                await self._look()
        except TimeoutError:
            self._telemetry.event("networks.slow", {"cause": f"not made in {_AT_START:.0f} s: it goes on"})
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
        self._wanted.clear()
        on_disk, versions = await asyncio.to_thread(lambda: (_version(self._path), self.sources.versions()))
        if on_disk != self._loaded:  # a verb made it
            await self._load(on_disk)
        settled, self._seen = versions == self._seen, versions
        known = {one.name: one.version for one in self.table.files} if self.table else {}
        if not wanted:
            if versions == known or not settled:
                return
            failed, when = self._failed
            if versions == failed and time.monotonic() < when + _AGAIN:
                return
        await self._make(versions)

    async def _make(self, versions: dict[str, str]) -> None:
        started = time.monotonic()
        try:
            trouble = await self._made()
        except (OSError, TimeoutError) as error:
            trouble = str(error) or f"took longer than {_PATIENCE:.0f} s"
        if trouble:
            self._failed = versions, time.monotonic()
            self._telemetry.event("networks.failed", {"cause": trouble}, level="error")
            return
        self._telemetry.observe("stage_seconds", time.monotonic() - started, stage="networks")
        await self._load(await asyncio.to_thread(_version, self._path))

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
                await process.wait()
        if not process.returncode:
            return ""
        return said.decode(errors="replace")[-2000:].strip() or f"exit status {process.returncode}"

    async def _load(self, version: str) -> None:
        try:
            table = await asyncio.to_thread(load, self._path) or self.table
        except (OSError, ValueError) as error:
            if version != self._loaded:
                said = error.strerror if isinstance(error, OSError) else error
                self._telemetry.event("networks.failed", {"cause": f"{self._path}: {said}"}, level="error")
            table = self.table
        self._loaded = version
        before, self.table = self.table, table
        if table and table is not before:
            self._tell(table, before)

    def _tell(self, table: Table, before: Table | None) -> None:
        then = {(one.name, one.version, one.broken) for one in before.files} if before else set()
        for one in table.files:
            if (one.name, one.version, one.broken) not in then:
                self._tell_file(one)
        for of in table.sets:
            self._telemetry.count("network_hits", 0, set=of.name)
        self._telemetry.event(
            "networks.loaded",
            {"sets": len(table.sets), "networks": sum(of.entries for of in table.sets), "bytes": table.size},
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
