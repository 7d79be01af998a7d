"""Watches Mailman from behind: what its queues hold, which runners live, and whether it stands still.

Duty: a look each `mailman.probe_interval` (less often where it takes long), by the keys of [mailman] that are set.
Promises: the loop waits for no file; a look that does not come back (a dead network mount) is not begun a second time,
and what was seen before it counts for no longer than `_STALE`: what is not known is absent, never a zero.
How it fails: never for mail. What can't be seen is said once (`mailman.unseen`). With `mailman.spool_when_stalled` a
Mailman that stands still is fed no more, but for a moment now and then, by which it is seen whether it moves again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from mailgate.config import MailmanConfig
from mailgate.core.mailman_queues import RUNNERS, Look, Queue, seen, stalled
from mailgate.edge.mailmanwatch import queues, rest, runners
from mailgate.edge.threads import begun
from mailgate.ports import Telemetry, Valve

_STALE = 60.0  # seconds after which a look is too old to be told
_PATIENCE = 30.0  # seconds for a look
_SHARE = 10  # a look takes at most one part in so many of the time
_DECLARED_AGAIN = 600.0  # seconds until Mailman is asked again which runners it should have
_TRIAL = 1.0  # seconds at most for which a Mailman that stands still is fed, each mailman.stalled_after

_Found = tuple[dict[str, Look], dict[str, bool], str]  # queues, runners, and why those can't be seen
_Values = tuple[tuple[dict[str, str], float], ...]


@dataclass(slots=True)
class _Seen:
    """What the last look found in the queues of the directory `of`. `alive`: the runners that are, were, or should be
    there.
    """

    at: float = 0.0
    of: Path | None = None
    queues: Mapping[str, Queue] = field(default_factory=dict)
    alive: Mapping[str, bool] = field(default_factory=dict)
    version: str = ""


class MailmanWatch:
    """`watch` must run; `config` may be replaced. `valve.stalled` is turned; `on_change` is called when it was."""

    def __init__(self, config: MailmanConfig, valve: Valve, telemetry: Telemetry) -> None:
        self.config = config
        self.on_change: Callable[[], None] = lambda: None
        self.stalled = ""  # why Mailman is taken to stand still
        self._valve = valve
        self._telemetry = telemetry
        self._seen = _Seen()
        self._trouble: dict[str, str] = {}  # what can't be seen, and why
        self._good_for = _STALE
        self._looking: Future[_Found] | None = None
        self._declared: frozenset[str] = frozenset()
        self._ask_again = 0.0
        self._tried = 0.0

    async def watch(self) -> None:
        """Look, for as long as the daemon runs."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            if self.config.watched:
                await self._look()
            else:
                self._seen, self._trouble = _Seen(), {}
            pause = max(self.config.probe_interval, _SHARE * (loop.time() - started))
            self._good_for = max(_STALE, 2 * pause)
            self._judge(time.time())
            await self._trial()
            await asyncio.sleep(pause)

    # look

    async def _look(self) -> None:
        version = await self._ask()
        if self._looking and not self._looking.done():
            return  # still at the one before
        config = self.config
        before = self._seen.queues if self._seen.of == config.queue_dir else {}
        self._looking = begun(lambda: _look(config, before), "mailman")
        try:
            async with asyncio.timeout(_PATIENCE):
                looks, alive, unseen = await asyncio.wrap_future(self._looking)
        except (OSError, TimeoutError) as error:
            self._say("queues", str(error) or f"not seen within {_PATIENCE:g} s")
            return
        self._say("queues", "")
        self._say("runners", unseen)
        found = {name: seen(before.get(name), look) for name, look in looks.items()}
        for name, queue in found.items():
            self._telemetry.count("mailman_drained", queue.left, queue=name)
        self._seen = _Seen(time.time(), config.queue_dir, found, self._runners(alive), version)

    def _runners(self, alive: Mapping[str, bool]) -> dict[str, bool]:
        """Those that live, and as dead those that did or should. Nothing at all where no process was ever seen."""
        before = self._seen.alive
        alive = {name: lives for name, lives in alive.items() if name in RUNNERS or name in self._declared}
        if not alive and not before:
            return {}
        found = dict.fromkeys([*before, *self._declared], False) | dict(alive)
        if self._declared:  # what it is not to have any more is no loss
            found = {name: lives for name, lives in found.items() if lives or name in self._declared}
        changed = {name: lives for name, lives in found.items() if lives != before.get(name, True)}
        if ended := [name for name, lives in changed.items() if not lives]:
            cause = f"not all processes are there: {', '.join(ended)}"
            self._telemetry.event("mailman.runners.down", {"runners": ended, "cause": cause}, level="error")
        if back := [name for name, lives in changed.items() if lives]:
            self._telemetry.event("mailman.runners.up", {"runners": back})
        return found

    async def _ask(self) -> str:
        """Ask Mailman itself; its version, "" if it does not answer."""
        url, secret, now = self.config.rest_url, self.config.rest_secret_file.octets, time.monotonic()
        if url is None:
            self._declared, self._ask_again = frozenset(), 0.0
            return ""
        try:
            async with asyncio.timeout(self.config.connect_timeout):
                version = await rest.version(url, secret)
                if now >= self._ask_again or "rest" in self._trouble:
                    self._declared = await rest.declared(url, secret)
                    self._ask_again = now + _DECLARED_AGAIN
        except (OSError, ValueError) as error:  # a TimeoutError is an OSError
            cause = str(error) or f"no answer within {self.config.connect_timeout:g} s"
            self._say("rest", f"{url}: {cause}")
            return ""
        self._say("rest", "")
        return version

    def _say(self, what: str, trouble: str) -> None:
        if trouble and trouble != self._trouble.get(what):
            self._telemetry.event("mailman.unseen", {"what": what, "cause": trouble}, level="warning")
        elif not trouble and what in self._trouble:
            self._telemetry.event("mailman.seen", {"what": what})
        self._trouble.pop(what, None)
        if trouble:
            self._trouble[what] = trouble

    # judge

    def _judge(self, now: float) -> None:
        before, found = self.stalled, self._fresh(now).queues
        if self._declared:  # what Mailman has no runner for is not its to process
            found = {name: queue for name, queue in found.items() if name in self._declared}
        self.stalled = stalled(found, self.config.stalled_after)
        if self.stalled and not before:
            self._telemetry.event("mailman.stalled", {"cause": self.stalled}, level="error")
            self._tried = time.monotonic()
        elif before and not self.stalled:
            self._telemetry.event("mailman.flows", {})
        self._turn(self.stalled if self.config.spool_when_stalled else "")

    async def _trial(self) -> None:
        if self._valve.stalled and time.monotonic() >= self._tried + self.config.stalled_after:
            self._turn("")
            await asyncio.sleep(min(_TRIAL, self.config.stalled_after / 4))
            self._turn(self.stalled)
            self._tried = time.monotonic()

    def _turn(self, stalled: str) -> None:
        if bool(stalled) != bool(self._valve.stalled):
            self._valve.stalled = stalled
            self.on_change()
        self._valve.stalled = stalled

    def _fresh(self, now: float) -> _Seen:
        """What was seen, if that was lately."""
        return self._seen if abs(now - self._seen.at) < self._good_for else _Seen()

    # tell: any thread may ask

    def samples(self, now: float) -> Iterator[tuple[str, str, _Values]]:
        """Gauges: name, help, labelled values."""
        found = self._fresh(now)
        if self.config.queue_dir and found.queues:
            files = tuple(({"queue": name}, float(queue.look.files)) for name, queue in found.queues.items())
            yield "mailman_queue_files", "Files in a queue of Mailman's", files
            ages = tuple(({"queue": name}, queue.age) for name, queue in found.queues.items())
            yield "mailman_queue_oldest_seconds", "Age of the oldest file in a queue of Mailman's", ages
            yield "mailman_stalled", "1 while Mailman takes mail and does nothing with it", (({}, bool(self.stalled)),)
        if found.alive:
            alive = tuple(({"runner": name}, float(lives)) for name, lives in found.alive.items())
            yield "mailman_runners", "1 if all processes of a runner of Mailman's are there", alive
        if self.config.rest_url:
            answers = float("rest" not in self._trouble and bool(found.version))
            yield "mailman_rest_up", "1 if Mailman's REST interface answered last", (({}, answers),)

    def status(self, now: float) -> dict[str, object]:
        """The same for people, as JSON has it; {} if nothing is watched."""
        if not self.config.watched:
            return {}
        found = self._fresh(now)
        return {
            "version": found.version,
            "stalled": self.stalled,
            "queues": {
                name: {"files": queue.look.files, "oldest_seconds": round(queue.age, 1)}
                for name, queue in found.queues.items()
            },
            "runners": dict(found.alive),
            "trouble": dict(self._trouble),
        }


def _look(config: MailmanConfig, before: Mapping[str, Queue]) -> _Found:
    looks = queues.look(config.queue_dir, before) if config.queue_dir else {}
    try:
        return looks, runners.alive(config.pid_file), ""
    except OSError as error:
        return looks, {}, str(error)
