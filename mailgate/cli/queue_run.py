"""`queue replay` where no daemon runs: this command opens the spool itself and delivers what was chosen, once.

The parts are those of the daemon, with a spool that hands out nothing but what was chosen. It ends when all was
tried, on Ctrl-C, when deliveries get paused, when `--for` runs out or, if no `--for` was given, when Mailman is not
reached. What was not tried is due, and has nothing written about it but that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from mailgate.cli.output import say
from mailgate.cli.queue_outcome import Job, Outcomes
from mailgate.config import Config
from mailgate.core import story
from mailgate.core.envelope import Envelope
from mailgate.core.message import Message
from mailgate.core.story import Told
from mailgate.edge.log import as_text
from mailgate.edge.mailman import Mailman
from mailgate.edge.spool import Store
from mailgate.ports import Claimed, Facts, Parked, Settlement, Valve
from mailgate.replay import Replay
from mailgate.wiring import scorers_of

_TICK = 0.05  # seconds between two looks at what has come of it
_CONTROL = 1.0  # seconds until what another process did to the spool is noticed
_PUT_OFF = 2.0  # seconds; what is not tried for longer has met trouble of ours, which is said when it happens
_TOLD = frozenset({"upstream.down", "upstream.up", "replay.delivered", "replay.deferred", "replay.uncertain"})


def run(job: Job) -> str:
    """Replay. Why not all of it was tried, "" if it was. Raises SpoolBusy if a daemon has the spool."""
    return asyncio.run(_run(job))


async def _run(job: Job) -> str:
    telemetry = _Aloud()
    store = Store(job.config.spool, job.config.hostname, telemetry, job.config.history)
    telemetry.keep = store.history.note
    await store.open()
    try:
        job.make_due(job.ids, "making due")
        with job.bar():
            return await _replay(job, store, telemetry)
    finally:
        await store.close()


async def _replay(job: Job, store: Store, telemetry: _Aloud) -> str:
    config = _with_rate(job.config, job.manner.rate)
    upstream = Mailman(config.mailman, config.hostname, telemetry)
    scorers = scorers_of(config, telemetry)
    replay = Replay(config, scorers, upstream, _Chosen(store, job.outcomes), Valve(), telemetry)
    upstream.on_change = scorers.on_change = replay.look
    watching = [asyncio.create_task(one.watch()) for one in (upstream, scorers)]
    replaying = asyncio.create_task(replay.run())
    with _interruptions(replaying) as interrupted:
        try:
            return await _until_done(job, store, upstream, replaying, interrupted)
        finally:
            replay.stop()
            await asyncio.wait({replaying})
            for task in watching:
                task.cancel()
            upstream.close()
            await scorers.close()
            if not replaying.cancelled():
                replaying.result()


async def _until_done(
    job: Job, store: Store, upstream: Mailman, replaying: asyncio.Task[None], interrupted: asyncio.Event
) -> str:
    outcomes, patience = job.outcomes, job.manner.patience
    began = looked = time.monotonic()
    while outcomes.awaited and not replaying.done():
        now = time.monotonic()
        if interrupted.is_set():
            return "interrupted"
        if not upstream.up and not patience:
            return f"Mailman is not reached: {upstream.reason}"
        if patience and now - began > patience:
            return "--for has run out" + ("" if upstream.up else f"; Mailman is not reached: {upstream.reason}")
        if now - looked > _CONTROL:
            looked = now
            control = await store.control(time.time())
            if control.paused:
                return f"paused: {control.paused.reason}"
            outcomes.look(job.database)
        await asyncio.sleep(_TICK)
    return ""


@contextlib.contextmanager
def _interruptions(replaying: asyncio.Task[None]) -> Iterator[asyncio.Event]:
    """Ctrl-C once: come to an end; twice: at once, and what was being sent is uncertain."""
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()

    def again() -> None:
        if interrupted.is_set():
            replaying.cancel()
        say("ending when what is being sent has an answer (Ctrl-C again: at once)")
        interrupted.set()

    loop.add_signal_handler(signal.SIGINT, again)
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _with_rate(config: Config, rate: float) -> Config:
    if not rate:
        return config
    return config.model_copy(update={"replay": config.replay.model_copy(update={"rate": rate})})


class _Chosen:
    """The spool, as if it held nothing but what is awaited. See `mailgate.ports.Spool`."""

    def __init__(self, store: Store, outcomes: Outcomes) -> None:
        self._store = store
        self._outcomes = outcomes
        self.ledger = store.ledger

    async def claim(self, now: float, most: int) -> list[Claimed]:
        oldest = itertools.islice(self._outcomes.awaited.items(), most)
        return await self._store.claim_those(now, {gate_id: tuple(numbers) for gate_id, numbers in oldest})

    async def claim_awaiting(self, now: float, before: float, most: int) -> list[Claimed]:  # noqa: ARG002
        return []  # what an operator has chosen is due

    async def load(self, gate_id: str) -> Message | None:
        message = await self._store.load(gate_id)
        if message is None:
            for number in list(self._outcomes.awaited.get(gate_id, {})):
                self._outcomes.tell(gate_id, number, "corrupt", "")
        return message

    async def settle(self, gate_id: str, settlements: Sequence[Settlement], now: float, scanned: str = "") -> None:
        await self._store.settle(gate_id, settlements, now, scanned)
        for one in settlements:
            if one.tried or one.next_attempt > now + _PUT_OFF:
                waits = "uncertain" if one.uncertain else "deferred"
                self._outcomes.tell(gate_id, one.number, waits if one.state == "pending" else one.state, one.reply)

    async def store(
        self,
        gate_id: str,
        envelope: Envelope,
        message: Message,
        parked: Sequence[Parked],
        facts: Facts,
        now: float,
        timeout: float,
    ) -> None:
        await self._store.store(gate_id, envelope, message, parked, facts, now, timeout)


class _Aloud:
    """Telemetry of a command: nothing is counted, trouble is said; `keep` gets each event of a message."""

    def __init__(self) -> None:
        self.keep: Callable[[str, Told, str], None] = lambda *_: None

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        pass

    def observe(self, name: str, value: float, exemplar: str = "", **labels: str) -> None:
        pass

    def event(self, name: str, fields: Mapping[str, object], *, level: str = "info") -> None:
        if (told := story.of_message(fields)) is not None:
            self.keep(name, told, level)
        if level in {"warning", "error"} and name not in _TOLD and "recipients" not in fields:
            say(as_text(datetime.now(UTC), name, level, fields))
