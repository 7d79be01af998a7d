"""One relay, one scenario, one repetition: send, look for the mail at the other end, and say what it cost.

A run is good only when every message got its 250 and is at the other end (or kept) exactly once, and nothing else is.
Whatever is not so is put in words in `Run.trouble`; slowness is never trouble.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from bench.load import Load, Sink, send
from bench.meter import watching_memory
from bench.process import wait_until
from bench.relays import Relay

_QUIET_SECONDS = 20.0
"""Mail that is missing when nothing has arrived for so long is lost."""


@dataclass(frozen=True)
class Scenario:
    """What is sent: the mail's size, how many sessions, how many messages on one connection (0: all)."""

    size: str
    sessions: int
    per_connection: int = 0

    def __str__(self) -> str:
        """As the tables have it: `4k/10`, or `4k/10x1` with a connection for each message."""
        return f"{self.size}/{self.sessions}" + (f"x{self.per_connection}" if self.per_connection else "")


@dataclass(frozen=True)
class Effort:
    """How a scenario is sent: for how long, and whether MAIL, RCPT and DATA are pipelined where offered."""

    seconds: float
    pipelining: bool


@dataclass(frozen=True)
class Run:
    """What one repetition measured. None: not measured."""

    accepted: int
    """Messages that got their 250; in a replay, messages that arrived."""
    per_second: float
    """The same a second, up to the last reply; in a replay, from the first arrival to the last."""
    arriving_per_second: float
    """The same a second up to the last arrival at the sink: for a queue, how fast it gets rid of its mail."""
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    cpu_per_1000: float | None
    """CPU seconds of the relay for a thousand messages, up to the last arrival."""
    pss_mib: float | None
    """The most memory seen, shared pages divided among their users."""
    trouble: str
    """What became of the mail that should not have; empty: all is well."""


@dataclass(frozen=True)
class Count:
    """What has been found at the other end of a relay so far."""

    distinct: int
    excess: int = 0
    """Arrivals that should not be: repeated, or without a number of ours."""
    last_arrival: float = 0.0


def measure(relay: Relay, scenario: Scenario, mail: Path, effort: Effort) -> Run:
    """One repetition."""
    before = _count(relay)
    cpu_before = relay.meter.cpu_seconds() if relay.meter else 0.0
    began = time.monotonic()
    with watching_memory(relay.meter) as memory:
        load = send(
            relay.protocol,
            relay.port,
            mail,
            sessions=scenario.sessions,
            per_connection=scenario.per_connection,
            seconds=effort.seconds,
            pipelining=effort.pipelining,
        )
    after = _wait_for_mail(relay, before.distinct + load.ok)
    cpu = relay.meter.cpu_seconds() - cpu_before if relay.meter else None
    return Run(
        accepted=load.ok,
        per_second=load.ok / load.seconds,
        arriving_per_second=load.ok / max(load.seconds, after.last_arrival - began),
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        max_ms=load.max_ms,
        cpu_per_1000=_per_1000(cpu, load.ok),
        pss_mib=max(memory, default=None),
        trouble=trouble(load, before, after),
    )


def measure_replay(relay: Relay, spooled: int) -> Run:
    """Put a sink where `relay` found nobody, and time how it gets rid of the `spooled` messages."""
    assert relay.meter
    cpu_before = relay.meter.cpu_seconds()
    with Sink("lmtp", relay.upstream) as sink, watching_memory(relay.meter) as memory:
        _wait_for_mail(replace(relay, sink=sink), spooled)
        arrivals = sink.arrivals()
    cpu = relay.meter.cpu_seconds() - cpu_before
    took = arrivals.last_arrival - arrivals.first_arrival
    rate = arrivals.distinct / took if took else 0.0
    problems = {
        "lost": spooled - arrivals.distinct,
        "doubled": arrivals.duplicates,
        "not ours": arrivals.unnumbered,
    }
    return Run(
        accepted=arrivals.distinct,
        per_second=rate,
        arriving_per_second=rate,
        p50_ms=None,
        p99_ms=None,
        max_ms=None,
        cpu_per_1000=_per_1000(cpu, arrivals.distinct),
        pss_mib=max(memory),
        trouble=_in_words(problems),
    )


def trouble(load: Load, before: Count, after: Count) -> str:
    """What went wrong with the mail of one run, in words; empty when nothing did."""
    arrived = after.distinct - before.distinct
    problems = {
        "lost": load.ok - arrived,
        "without a 250": arrived - load.ok,
        "doubled": after.excess - before.excess,
        "refused": load.refused,
        "cut off": load.broken,
        "unanswered": load.unfinished,
        **{repr(reply): count for reply, count in load.replies.items()},
    }
    return _in_words(problems) if load.ok else f"nothing accepted {_in_words(problems)}"


def _in_words(problems: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in problems.items() if count > 0)


def _per_1000(cpu: float | None, messages: int) -> float | None:
    return None if cpu is None else 1000 * cpu / max(1, messages)


def _count(relay: Relay) -> Count:
    if relay.sink is None:
        return Count(relay.kept())
    arrivals = relay.sink.arrivals()
    return Count(arrivals.distinct, arrivals.duplicates + arrivals.unnumbered, arrivals.last_arrival)


def _wait_for_mail(relay: Relay, wanted: int) -> Count:
    """The count when `wanted` messages are there, or when no more seem to come."""
    count = _count(relay)
    while (seen := count.distinct) < wanted and wait_until(lambda: _count(relay).distinct > seen, _QUIET_SECONDS):
        count = _count(relay)
    return count
