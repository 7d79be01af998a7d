"""What the daemon tells of itself over HTTP: metrics, whether it lives, whether it would take mail, and all of it at
once for `mailgate status`.

Promises: every answer is computed from whoever owns the state when it is asked for, in the thread of who asks; what
can't be known is absent, or said in words, and never a zero.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import mailgate
from mailgate.blocking import Blocking
from mailgate.config import Config
from mailgate.core.pulse import Pulse
from mailgate.core.rates import Rates
from mailgate.edge.http import Answer, Page, as_json
from mailgate.edge.mailman import Mailman
from mailgate.edge.mailmanwatch import MailmanWatch
from mailgate.edge.networks import Networks, samples, status
from mailgate.edge.spool import Store
from mailgate.edge.telemetry import DOORS, Sample, Telemetry
from mailgate.ports import SpoolError, Valve
from mailgate.scanner import Scorers
from mailgate.verdict import VerdictDoor

_STUCK = 10.0  # seconds without a beat after which /healthz says no
_RATED = 60.0  # seconds of which `mailgate status` tells the rates
_NOTED = ("messages", "recipients", "replays", "unscored", "mailman_drained")
_TOP = 8  # reasons that `mailgate status` names
# The states of what is still there; delivered and dropped ones are history.
_IN_SPOOL = ("pending", "uncertain", "held", "failed", "corrupt")


class Door(Protocol):
    """Where mail comes in."""

    @property
    def listening(self) -> bool:
        """Would it answer a connection now?"""
        ...

    @property
    def connections(self) -> dict[str, int]:
        """How many are open, by the name that its metrics have for the door."""
        ...


@dataclass(slots=True)
class Pages:
    """`config` may be replaced. `doors` are those that should listen; `spool_trouble`: why the spool is not open."""

    config: Config
    telemetry: Telemetry
    upstream: Mailman
    watch: MailmanWatch
    spool: Store
    scorers: Scorers
    networks: Networks
    blocking: Blocking
    verdict: VerdictDoor
    valve: Valve
    pulse: Pulse
    doors: dict[str, Door] = field(default_factory=dict)
    spool_trouble: str = ""
    rates: Rates = field(default_factory=lambda: Rates(((time.monotonic(), {}),)))
    started: float = field(default_factory=time.time)

    def served(self) -> Mapping[str, Page]:
        """Every page by its path."""
        return {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/status": self._status,
            "/limits": self._limits,
            "/networks": self._networks,
        }

    def note(self) -> None:
        """Remember the counters as they are, for the rates. To be called every few seconds."""
        self.rates.note(time.monotonic(), self.telemetry.sums(_NOTED))

    # the pages

    def _metrics(self, accept: str) -> Answer:
        kind, content = self.telemetry.exposition(accept)
        return 200, kind, content

    def _healthz(self, _: str) -> Answer:
        silent = self.pulse.silent(time.monotonic())
        alive = silent < _STUCK
        tree = {"alive": alive, "loop_lag_seconds": self._lag(), "last_beat_seconds": round(silent, 2)}
        return as_json(200 if alive else 503, tree | self._who())

    def _readyz(self, _: str) -> Answer:
        tree = self._answers()
        return as_json(200 if tree["ready"] else 503, tree)

    def _limits(self, _: str) -> Answer:
        return as_json(200, {"offenders": self.verdict.offenders()})

    def _networks(self, _: str) -> Answer:
        told = status(self.networks.table, self.config.networks.policy, self.blocking.hits, time.time())
        return as_json(200, told | {"failed": self.networks.trouble})

    def _status(self, _: str) -> Answer:
        seconds, rates = self.rates.per_minute(time.monotonic(), self.telemetry.sums(_NOTED), _RATED)
        reasons = sorted(self.telemetry.sums(("reasons",)).items(), key=lambda one: -one[1])
        tree: dict[str, object] = {
            **self._answers(),
            **self._who(),
            "loop_lag_seconds": self._lag(),
            "per_minute": {"seconds": round(seconds, 1), **_grouped(rates)},
            "in_spool": self._in_spool(),
            "mailman_behind": self.watch.status(time.time()),
            "reasons": {key[1]: int(count) for key, count in reasons[:_TOP] if count},
            "errors": self.telemetry.errors(),
            "networks": self._lists(),
            "offenders": self.verdict.offenders(),
        }
        return as_json(200, tree)

    # what they say

    def _who(self) -> dict[str, object]:
        up = round(time.time() - self.started, 1)
        return {"hostname": self.config.hostname, "version": mailgate.__version__, "pid": os.getpid(), "up_seconds": up}

    def _lag(self) -> float:
        return round(self.pulse.worst(time.monotonic()), 4)

    def _answers(self) -> dict[str, object]:
        """Would a message be accepted now? And what that depends on."""
        doors = {name: door.listening for name, door in self.doors.items()}
        listening = bool(doors) and all(doors.values())
        spool = self._why_no_spool()
        feeding = self.upstream.up and not self.valve.shut
        return {
            "ready": listening and (feeding or not spool),
            "listening": listening,
            "doors": doors,
            "mailman": "up" if self.upstream.up else f"down: {self.upstream.reason}",
            "stalled": self.watch.stalled,
            "scorers": self.scorers.states,
            "spool": spool or "ok",
            "paused": self.valve.paused,
            "foreign": self.valve.foreign,
            "shut": self.valve.shut,
        }

    def _why_no_spool(self) -> str:
        """Why a message could not be spooled now; "" if it could."""
        try:
            return self.spool_trouble or self.spool.trouble or self.spool.space().refusal
        except SpoolError as error:
            return str(error)

    def _lists(self) -> str:
        files = self.networks.table.files if self.networks.table else ()
        broken = [one.name for one in files if one.broken]
        trouble = [f"failed: {self.networks.trouble}"] if self.networks.trouble else []
        return "; ".join(trouble + ([f"broken: {', '.join(broken)}"] if broken else [])) or "ok"

    def _in_spool(self) -> dict[str, object]:
        try:
            counts, space = self.spool.counts(), self.spool.space()
        except SpoolError:
            return {}  # the answer `spool` says why
        return {
            "messages": {state: counts.messages[state] for state in _IN_SPOOL},
            "bytes": counts.octets,
            "max_bytes": self.config.spool.max_bytes,
            "oldest_seconds": _age(counts.oldest),
            "free_bytes": space.free,
            "free_inodes": space.inodes,
        }

    # gauges

    def samples(self) -> Iterator[Sample]:
        """What is computed at a scrape: name, help, labelled values."""
        alive = {"mailman": self.upstream.up} | self.scorers.states
        up = tuple(({"upstream": name}, float(lives)) for name, lives in alive.items())
        yield "upstream_up", "1 if the upstream was reached last", up
        down = tuple(({"upstream": name}, float(not lives)) for name, lives in alive.items())
        yield "breaker_open", "1 while the upstream is left alone but for probes", down
        yield "connections", "Open connections", self._connections()
        yield "paused", "1 while an operator has paused deliveries", float(bool(self.valve.paused))
        yield "ready", "1 if a message would be accepted now", float(bool(self._answers()["ready"]))
        yield "clock_seconds", "The gate's clock, since the epoch", time.time()
        lag = self.pulse.worst(time.monotonic())
        yield "loop_lag_seconds", "How late the event loop was, at worst, within the last minute", lag
        yield from samples(self.networks.table, time.time())
        yield "networks_failed", "1 while no table of the lists can be made", float(bool(self.networks.trouble))
        yield from self.watch.samples(time.time())
        yield from self._spool_samples()

    def _connections(self) -> tuple[tuple[dict[str, str], float], ...]:
        doors = [door.connections for door in self.doors.values()]
        return tuple(({"door": name}, float(sum(one.get(name, 0) for one in doors))) for name in DOORS)

    def _spool_samples(self) -> Iterator[Sample]:
        yield "spool_writable", "1 if the spool would take a message now", float(not self._why_no_spool())
        try:
            counts, space = self.spool.counts(), self.spool.space()
        except SpoolError:
            return  # /readyz and the log say why; a gauge that can't be known is absent, not zero
        states = tuple(({"state": state}, float(counts.messages[state])) for state in _IN_SPOOL)
        yield "spool_messages", "Messages in the spool with a recipient in this state", states
        yield "spool_bytes", "Octets of the messages in the spool", counts.octets
        yield "spool_max_bytes", "Octets that the spool may hold: spool.max_bytes", self.config.spool.max_bytes
        yield "spool_oldest_seconds", "Age of the oldest message that waits to be replayed", _age(counts.oldest)
        yield "spool_free_bytes", "Octets that are free on the spool's disk", space.free
        yield "spool_min_free_bytes", "Octets that must stay free there: spool.min_free", space.floor
        if space.inodes >= 0:
            yield "spool_free_inodes", "Inodes that are free on the spool's disk", space.inodes
        yield "spool_foreign", "1 while the spool belongs to another gate", float(bool(self.valve.foreign))


def _age(oldest: float | None) -> float:
    return abs(time.time() - oldest) if oldest else 0.0  # to be from the future is as bad: see the clock


def _grouped(rates: Mapping[tuple[str, ...], float]) -> dict[str, dict[str, float]]:
    """Rates by counter, and in it by the value of its last label."""
    found: dict[str, dict[str, float]] = {name: {} for name in _NOTED}
    for (name, *labels), rate in rates.items():
        told = found[name]
        told[labels[-1]] = round(told.get(labels[-1], 0.0) + rate, 1)
    return found
