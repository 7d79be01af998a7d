"""The composition root: makes the parts, wires them, listens, and ends in order.

Promises: what can be given up is given up before the mail is (a spool that can't be opened is tried again while mail
passes straight through); SIGTERM answers what is in flight; SIGHUP takes a new configuration or keeps the old one
and says why; a task that dies is said (`task.failed`) and begun again.
How it fails: `run` raises StartError with words for a person when an address can't be listened on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvloop

import mailgate
from mailgate import config as configuration
from mailgate.blocking import Blocking
from mailgate.config import Config, ConfigError
from mailgate.core.pulse import Pulse
from mailgate.edge import systemd
from mailgate.edge.descriptors import Descriptors
from mailgate.edge.http import HttpServer
from mailgate.edge.listener import Listener
from mailgate.edge.log import Bridge, EventLog
from mailgate.edge.mailman import Mailman
from mailgate.edge.mailmanwatch import MailmanWatch
from mailgate.edge.networks import Networks, sources_of
from mailgate.edge.spool import Store
from mailgate.edge.telemetry import Telemetry
from mailgate.edge.verdictport import VerdictPort
from mailgate.pages import Pages
from mailgate.ports import SpoolError, Valve
from mailgate.relay import Relay, new_gate_id
from mailgate.replay import Replay
from mailgate.strays import caught
from mailgate.verdict import VerdictDoor
from mailgate.wiring import Senders, scorers_of

_BEAT = 0.25  # seconds between two looks at the loop's lag
_NOTE = 5.0  # seconds between two looks at the counters, for their rates
_CONTROL = 1.0  # seconds until what an operator did in another process is noticed
_HOUSEKEEPING = 10.0
_DRAIN_GRACE = 5.0  # seconds past relay.budget
_SWITCH = 0.0005  # seconds until the spool's thread may have the interpreter: each commit of it lets many go on
_GARBAGE = (20_000, 20, 50)  # a message leaves hardly any cycles behind; looking for them at each one costs more


class StartError(Exception):
    """The daemon could not start; the text says why, and which key it comes from."""


def serve(config: Config, file: Path) -> None:
    """Run one mailgate until it is told to stop. Raises StartError."""
    uvloop.run(Daemon(config, file).run())


class Daemon:
    """One mailgate. `run` returns when it was told to stop."""

    def __init__(self, config: Config, file: Path) -> None:
        self._file = file
        self._config = config
        log = config.log
        self._log = EventLog(log.format, log.level, journal=systemd.under_journald(), redact=log.redact)
        self._telemetry = Telemetry(self._log)
        self._valve = Valve()
        self._upstream = Mailman(config.mailman, config.hostname, self._telemetry)
        self._spool = Store(config.spool, config.hostname, self._telemetry, config.history)
        self._telemetry.keep = self._spool.history.note
        self._scorers = scorers_of(config, self._telemetry)
        records = self._spool.records
        self._relay = Relay(
            config,
            self._scorers,
            self._upstream,
            self._spool,
            self._valve,
            self._telemetry,
            records=records if config.verdict.listen else None,
        )
        self._verdict = VerdictDoor(config, self._scorers, records, self._telemetry, new_gate_id)
        self._checkings = self._relay.checking, self._verdict.checking
        self._networks = Networks(sources_of(config), config.networks_table, self._telemetry)
        self._relay.blocking = self._verdict.blocking = Blocking(self._networks, self._telemetry)
        self._senders = Senders(self._telemetry)
        self._senders.serve(config, self._checkings)
        self._replay = Replay(config, self._scorers, self._upstream, self._spool, self._valve, self._telemetry)
        self._watch = MailmanWatch(config.mailman, self._valve, self._telemetry)
        self._upstream.on_change = self._scorers.on_change = self._watch.on_change = self._replay.look
        self._descriptors = Descriptors(self._telemetry)
        self._pulse = Pulse(_BEAT, time.monotonic())
        self._pages = Pages(
            config=config,
            telemetry=self._telemetry,
            upstream=self._upstream,
            watch=self._watch,
            spool=self._spool,
            scorers=self._scorers,
            networks=self._networks,
            blocking=self._relay.blocking,
            verdict=self._verdict,
            valve=self._valve,
            pulse=self._pulse,
        )
        self._stop = asyncio.Event()
        self._listener: Listener | None = None
        self._port: VerdictPort | None = None
        self._reserve = True  # whether the spool has its space for a full disk

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, drain, end."""
        bridge = Bridge(self._log)
        logging.getLogger().addHandler(bridge)
        http = None
        try:
            await self._open_spool()
            await self._networks.open()
            self._listener = Listener(self._config, self._relay.handle, self._relay.turn_away, self._telemetry)
            self._port = VerdictPort(self._config, self._verdict.judge, self._verdict.turn_away, self._telemetry)
            self._pages.doors = {"relay": self._listener}
            if self._config.verdict.listen:
                self._pages.doors["verdict"] = self._port
            self._telemetry.at_scrape(self._pages.samples)
            http = self._serve_http()
            self._descriptors.begin(self._config.descriptors)
            self._catch_signals()  # before anybody can see us listen, and end us
            await self._listen()
            sys.setswitchinterval(_SWITCH)
            gc.freeze()  # what is loaded by now stays: there is no use in looking through it again and again
            gc.set_threshold(*_GARBAGE)
            async with self._tasks() as replaying:
                self._telemetry.event("daemon.ready", {"version": mailgate.__version__, "config": str(self._file)})
                systemd.notify("READY=1")
                await self._stop.wait()
                await self._drain(replaying)
        finally:
            for door in (self._port, self._listener):
                if door:
                    await door.stop()
            if http:
                http.close()
            self._upstream.close()
            await self._scorers.close()
            await self._senders.close()
            await self._spool.close()
            logging.getLogger().removeHandler(bridge)
            self._log.close()

    # the start

    async def _open_spool(self) -> None:
        try:
            await self._spool.open()
            await self._control()
            self._pages.spool_trouble = ""
        except SpoolError as error:
            if str(error) != self._pages.spool_trouble:
                self._telemetry.event("spool.failed", {"cause": str(error)}, level="error")
            self._pages.spool_trouble = str(error)

    def _serve_http(self) -> HttpServer:
        try:
            return HttpServer(self._config.http.listen, self._pages.served(), self._telemetry)
        except OSError as error:
            raise StartError(str(error.strerror or error)) from error

    async def _listen(self) -> None:
        assert self._listener is not None
        assert self._port is not None
        # The relay door last: /readyz looks at it.
        for keys, door in (("verdict.listen", self._port), ("relay.lmtp or relay.smtp", self._listener)):
            try:
                await door.start()
            except OSError as error:
                raise StartError(f"{keys}: {error.strerror or error}") from error

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    @contextlib.asynccontextmanager
    async def _tasks(self) -> AsyncIterator[asyncio.Task[None]]:
        replaying = asyncio.create_task(self._keep("replay", self._replay.run))
        others = [
            asyncio.create_task(self._keep(name, task))
            for name, task in (
                ("upstream", self._upstream.watch),
                ("mailman", self._watch.watch),
                ("scorers", self._scorers.watch),
                ("networks", self._networks.watch),
                ("control", self._watch_control),
                ("housekeeping", self._housekeeping),
                ("beat", self._measure),
            )
        ]
        try:
            yield replaying
        finally:
            for task in (replaying, *others):
                task.cancel()
            await asyncio.gather(replaying, *others, return_exceptions=True)

    async def _keep(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await caught(task())
                return
            except Exception:  # noqa: BLE001  a bug in one task must not end the others
                self._telemetry.event("task.failed", {"task": name, "trace": traceback.format_exc()}, level="error")
                await asyncio.sleep(1)

    # the end

    async def _drain(self, replaying: asyncio.Task[None]) -> None:
        assert self._listener is not None
        assert self._port is not None
        systemd.notify("STOPPING=1")
        self._telemetry.event("daemon.draining", {})
        seconds = self._config.relay.budget + _DRAIN_GRACE
        self._replay.stop()
        drained = all(await asyncio.gather(self._port.drain(seconds), self._listener.drain(seconds)))
        try:
            await asyncio.wait_for(replaying, _DRAIN_GRACE)
        except TimeoutError:
            drained = False  # what was being replayed is leased still, and uncertain at the next start
        self._telemetry.event("daemon.stopped", {"drained": drained}, level="info" if drained else "warning")

    # the reload

    def _reload(self) -> None:
        try:
            new = configuration.load(self._file)
        except ConfigError as error:
            self._telemetry.event("config.refused", {"problems": error.problems}, level="error")
            return
        new, fixed = configuration.with_fixed(new, self._config)
        self._config = self._relay.config = self._replay.config = self._verdict.config = self._pages.config = new
        self._upstream.config, self._watch.config = new.mailman, new.mailman
        self._spool.config, self._spool.history.config = new.spool, new.history
        self._senders.serve(new, self._checkings)
        self._networks.sources = sources_of(new)
        self._networks.reload()
        self._scorers.timeout, self._scorers.probe_interval = new.spam.timeout, new.spam.probe_interval
        self._log.level, self._log.form, self._log.redact = new.log.level, new.log.format, new.log.redact
        for door in (self._port, self._listener):
            if door:
                door.config = new
        self._telemetry.event("config.reloaded", {"needs_restart": fixed})

    # the tasks

    async def _watch_control(self) -> None:
        while True:
            await asyncio.sleep(_CONTROL)
            await self._open_spool()

    async def _control(self) -> None:
        control = await self._spool.control(time.time())
        paused = control.paused.reason if control.paused else ""
        if (paused, control.foreign) != (self._valve.paused, self._valve.foreign):
            self._valve.paused, self._valve.foreign = paused, control.foreign
            level = "warning" if paused or control.foreign else "info"
            self._telemetry.event("valve.turned", {"paused": paused, "foreign": control.foreign}, level=level)
            self._replay.look()

    async def _housekeeping(self) -> None:
        told = ""
        while True:
            try:
                if self._spool.opened:
                    await self._tend()
                told = ""
            except SpoolError as error:
                if str(error) != told:
                    self._telemetry.event("spool.trouble", {"cause": str(error)}, level="error")
                told = str(error)
            await asyncio.sleep(_HOUSEKEEPING)

    async def _tend(self) -> None:
        reserve = (await self._spool.tend(time.time())).ballast
        if reserve != self._reserve:
            cause = "kept again" if reserve else "the disk has no room for it: full, it can't even settle what it has"
            self._telemetry.event("spool.reserve", {"cause": cause}, level="info" if reserve else "warning")
        self._reserve = reserve

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        watchdog = systemd.watchdog_interval()
        told = noted = 0.0
        self._pulse.beat(time.monotonic(), 0.0)  # what came before, the opening, is no silence of the loop's
        while True:
            due = loop.time() + _BEAT
            await asyncio.sleep(_BEAT)
            self._pulse.beat(time.monotonic(), max(loop.time() - due, 0.0))
            self._descriptors.look(time.monotonic())
            if loop.time() - noted >= _NOTE:
                self._pages.note()
                noted = loop.time()
            if watchdog and loop.time() - told >= min(watchdog, 10.0):
                systemd.notify("WATCHDOG=1")
                told = loop.time()
