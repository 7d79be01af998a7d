"""Watches Mailman from behind: what its queues hold, which runners live, and whether it stands still.

Duty: a look each `mailman.probe_interval` (less often where it takes long), by the keys of [mailman] that are set; at
the queues, and at runners and REST interface, each for itself: what hides one does not hide the others.
Promises: the loop waits for no file; a look that does not come back (a dead network mount) is not begun a second time,
and what was seen before it counts for no longer than `_STALE`: what is not known is absent, never a zero.
How it fails: never for mail. What can't be seen is said once (`mailman.unseen`), and for as long as it lasts by
`mailman_watched`. With `mailman.spool_when_stalled` a Mailman that stands still is fed no more, but for a moment now
and then, by which it is seen whether it moves again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mailgate.config import MailmanConfig
from mailgate.core.mailman_queues import RUNNERS, Look, Queue, seen, stalled, undecided
from mailgate.edge.mailmanwatch import queues, rest, runners
from mailgate.edge.mailmanwatch.apart import Apart
from mailgate.ports import Telemetry, Valve

_STALE = 60.0  # seconds after which a look is too old to be told
_SHARE = 10  # a look takes at most one part in so many of the time
_DECLARED_AGAIN = 600.0  # seconds until Mailman is asked again which runners it should have
_TRIAL = 1.0  # seconds at most for which a Mailman that stands still is fed, each mailman.stalled_after

_Values = tuple[tuple[dict[str, str], float], ...]


@dataclass(slots=True)
class _Queues:
    """What the last look found in the queues of the directory `of`, and until when that counts."""

    of: Path | None
    found: Mapping[str, Queue]
    at: float
    good_for: float = _STALE

    def fresh(self, now: float) -> Mapping[str, Queue]:
        """What was found, if that was lately."""
        return self.found if abs(now - self.at) < self.good_for else {}


@dataclass(slots=True)
class _Runners:
    """The runners that are, were, or should be there, and which of them live."""

    alive: Mapping[str, bool]
    at: float
    good_for: float = _STALE

    def fresh(self, now: float) -> Mapping[str, bool]:
        """They, if that was lately."""
        return self.alive if abs(now - self.at) < self.good_for else {}


_NO_QUEUES, _NO_RUNNERS = _Queues(None, {}, 0.0), _Runners({}, 0.0)


class MailmanWatch:
    """`watch` must run; `config` may be replaced. `valve.stalled` is turned; `on_change` is called when it was."""

    def __init__(self, config: MailmanConfig, valve: Valve, telemetry: Telemetry) -> None:
        self.config = config
        self.on_change: Callable[[], None] = lambda: None
        self.stalled = ""  # why Mailman is taken to stand still
        self._valve = valve
        self._telemetry = telemetry
        self._queues, self._runners = _NO_QUEUES, _NO_RUNNERS
        self._trouble: dict[str, str] = {}  # what can't be seen, and why
        self._looking = Apart[Mapping[str, Look]](), Apart[Mapping[str, bool]]()
        self._version = ""  # that Mailman said last; "" if it did not answer
        self._declared: frozenset[str] = frozenset()
        self._ask_again = 0.0
        self._tried = 0.0

    async def watch(self) -> None:
        """Look, for as long as the daemon runs."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again_and_again(self._watch_queues))
            group.create_task(self._again_and_again(self._watch_runners))

    async def _again_and_again(self, look: Callable[[], Awaitable[float]]) -> None:
        """`look` gives the seconds that it took."""
        while True:
            took = await look()
            await asyncio.sleep(self._pause(took))

    def _pause(self, took: float) -> float:
        return max(self.config.probe_interval, _SHARE * took)

    def _good_for(self, took: float) -> float:
        return max(_STALE, 2 * self._pause(took))

    # look

    async def _watch_queues(self) -> float:
        started = time.monotonic()
        if self.config.queue_dir:
            await self._look_at_queues(self.config.queue_dir)
        else:
            self._queues = _NO_QUEUES
            self._trouble.pop("queues", None)
        took = time.monotonic() - started
        self._judge(time.time())
        await self._trial()
        return took

    async def _look_at_queues(self, directory: Path) -> None:
        before, started = self._queues.found if self._queues.of == directory else {}, time.monotonic()
        try:
            looks = await self._looking[0].do(lambda: queues.look(directory, before))
        except OSError as error:  # a TimeoutError is one
            self._say("queues", str(error))
            return
        if looks is None:
            return  # still at the one before
        self._say("queues", "" if looks else f"{directory}: none of Mailman's queues is there")
        found = {name: seen(before.get(name), look) for name, look in looks.items()}
        for name, queue in found.items():
            self._telemetry.count("mailman_drained", queue.left, queue=name)
        self._queues = _Queues(directory, found, time.time(), self._good_for(time.monotonic() - started))

    async def _watch_runners(self) -> float:
        started = time.monotonic()
        await self._ask()
        if self.config.watched:
            await self._look_at_runners(self.config.pid_file)
        else:
            self._runners = _NO_RUNNERS
            self._trouble.pop("runners", None)
        return time.monotonic() - started

    async def _look_at_runners(self, pid_file: Path | None) -> None:
        started = time.monotonic()
        try:
            alive = await self._looking[1].do(lambda: runners.alive(pid_file))
        except OSError as error:
            self._say("runners", str(error))
            return
        if alive is None:
            return
        self._say("runners", "")
        self._runners = _Runners(self._told(alive), time.time(), self._good_for(time.monotonic() - started))

    def _told(self, alive: Mapping[str, bool]) -> dict[str, bool]:
        """Those that live, and as dead those that did or should. Nothing at all where no process was ever seen."""
        before = self._runners.alive
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

    async def _ask(self) -> None:
        """Ask Mailman itself."""
        url, secret, now = self.config.rest_url, self.config.rest_secret_file.octets, time.monotonic()
        if url is None:
            self._declared, self._ask_again, self._version = frozenset(), 0.0, ""
            self._trouble.pop("rest", None)
            return
        try:
            async with asyncio.timeout(self.config.connect_timeout):
                self._version = await rest.version(url, secret)
                if now >= self._ask_again or "rest" in self._trouble:
                    self._declared = await rest.declared(url, secret)
                    self._ask_again = now + _DECLARED_AGAIN
        except (OSError, ValueError) as error:  # a TimeoutError is an OSError
            cause = str(error) or f"no answer within {self.config.connect_timeout:g} s"
            self._version = ""
            self._say("rest", f"{url}: {cause}")
            return
        self._say("rest", "")

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
        before, found = self.stalled, self._flowing(now)
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

    def _flowing(self, now: float) -> dict[str, Queue]:
        """The queues as far as Mailman has runners for them: what it has none for is not its to process."""
        found = self._queues.fresh(now)
        return {name: queue for name, queue in found.items() if not self._declared or name in self._declared}

    # tell: any thread may ask

    def samples(self, now: float) -> Iterator[tuple[str, str, _Values | float]]:
        """Gauges: name, help, labelled values or the one."""
        watched = tuple(({"what": what}, float(sees)) for what, sees in self._watched(now).items())
        if watched:
            yield "mailman_watched", "1 if what shows how Mailman is could be seen at the last look", watched
        found, alive = self._queues.fresh(now), self._runners.fresh(now)
        if self.config.queue_dir and found:
            files = tuple(({"queue": name}, float(queue.look.files)) for name, queue in found.items())
            yield "mailman_queue_files", "Files in a queue of Mailman's", files
            ages = tuple(({"queue": name}, queue.age) for name, queue in found.items())
            yield "mailman_queue_oldest_seconds", "Age of the oldest file in a queue of Mailman's", ages
            if self.stalled or not undecided(self._flowing(now), self.config.stalled_after):
                still = float(bool(self.stalled))
                yield "mailman_stalled", "1 while Mailman takes mail and does nothing with it", still
        if alive:
            lives = tuple(({"runner": name}, float(there)) for name, there in alive.items())
            yield "mailman_runners", "1 if all processes of a runner of Mailman's are there", lives
        if self.config.rest_url:
            yield "mailman_rest_up", "1 if Mailman's REST interface answered last", float(bool(self._version))

    def _watched(self, now: float) -> dict[str, bool]:
        """Of what there is a key for: could it be seen? REST has a gauge of its own."""
        found = {}
        if self.config.queue_dir:
            found["queues"] = "queues" not in self._trouble and bool(self._queues.fresh(now))
        if self.config.pid_file:
            found["runners"] = "runners" not in self._trouble and bool(self._runners.fresh(now))
        return found

    def status(self, now: float) -> dict[str, object]:
        """The same for people, as JSON has it; {} if nothing is watched."""
        if not self.config.watched:
            return {}
        found = self._queues.fresh(now)
        return {
            "version": self._version,
            "stalled": self.stalled,
            "watched": self._watched(now),
            "queues": {
                name: {"files": queue.look.files, "oldest_seconds": round(queue.age, 1)}
                for name, queue in found.items()
            },
            "runners": dict(self._runners.fresh(now)),
            "trouble": dict(self._trouble),
        }
