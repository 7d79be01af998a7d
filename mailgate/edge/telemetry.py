"""Metrics for Prometheus, and events for the log: what the stories count and say. Names: DESIGN's contract.

Neither waits nor fails. What is a state (spool, breaker, pause) is computed at the scrape from its owner, so it is
true even if an event was missed; see `Telemetry.at_scrape`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import mailgate
from mailgate.core.scan import UnscoredReason
from mailgate.edge.log import EventLog

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_OCTETS = tuple(4**n * 1024 for n in range(9))
_POINTS = (-5, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 50)

_COUNTERS = {
    "messages": ("Messages at a door, by the verdict on them", ("door", "verdict")),
    "recipients": ("Recipients, by what their reply said", ("outcome",)),
    "reasons": ("Reasons of verdicts and refusals", ("reason",)),
    "spam_scans": ("Messages at a scorer, each server's tries for itself", ("result", "server")),
    "unscored": ("Messages that no scorer scored", ("reason",)),
    "origin": ("Messages, by where the address of their client was found", ("source",)),
    "replays": ("Recipients replayed from the spool, by the outcome", ("outcome",)),
}
_HISTOGRAMS = {
    "stage_seconds": ("Time a message spent in a stage", ("stage",), _SECONDS),
    "message_bytes": ("Size of messages", (), _OCTETS),
    "spam_score": ("Scores of messages", (), _POINTS),
    "spool_commit_seconds": ("Time of a commit of the spool, shared by the messages in it", (), _SECONDS),
}
_GAUGES = {
    "connections": ("Open connections", ("door",)),
    "loop_lag_seconds": ("How late the event loop was when last looked at", ()),
}

# Labels that exist from the first scrape on, so that a rate over them has a beginning.
_FROM_THE_START: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("recipients", "outcome", ("delivered", "spooled", "held", "deferred", "rejected", "discarded")),
    ("unscored", "reason", get_args(UnscoredReason)),
    ("origin", "source", ("header", "unknown")),
    ("replays", "outcome", ("delivered", "refused", "deferred", "uncertain", "unreached", "held", "failed", "dropped")),
)

Sample = tuple[str, str, tuple[tuple[dict[str, str], float], ...]]


class _AtScrape(Collector):
    """Gauges that their owners compute when Prometheus asks."""

    def __init__(self, ask: Callable[[], Iterable[Sample]]) -> None:
        self._ask = ask

    def collect(self) -> Iterable[Metric]:
        for name, what, values in self._ask():
            family = GaugeMetricFamily(f"mailgate_{name}", what, labels=sorted(values[0][0]) if values else ())
            for labels, value in values:
                family.add_metric([labels[key] for key in sorted(labels)], value)
            yield family

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is asked before the parts that answer are there


class Telemetry:
    """The one place where something is counted or said."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._registry = CollectorRegistry()
        self._metrics: dict[str, Any] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        for name, (what, labels) in _COUNTERS.items():
            self._metrics[name] = Counter(f"mailgate_{name}", what, labels, registry=self._registry)
        for name, (what, labels, buckets) in _HISTOGRAMS.items():
            self._metrics[name] = Histogram(f"mailgate_{name}", what, labels, buckets=buckets, registry=self._registry)
        for name, (what, labels) in _GAUGES.items():
            self._metrics[name] = Gauge(f"mailgate_{name}", what, labels, registry=self._registry)
        info = Gauge("mailgate_build_info", "Version of this mailgate", ("version",), registry=self._registry)
        info.labels(mailgate.__version__).set(1)
        for name, label, values in _FROM_THE_START:
            for value in values:
                self._child(name, {label: value})

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._child(name, labels).inc(amount)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._child(name, labels).set(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add to a histogram."""
        self._child(name, labels).observe(value)

    def event(self, name: str, fields: Mapping[str, object], *, level: str = "info") -> None:
        """Say it in the log."""
        self._log.event(name, fields, level)

    def at_scrape(self, ask: Callable[[], Iterable[Sample]]) -> None:
        """Have `ask` called at each scrape (in the thread of the scrape) for gauges: name, help, labelled values."""
        self._registry.register(_AtScrape(ask))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _child(self, name: str, labels: dict[str, str]) -> Any:
        key = (name, *labels.values())
        child = self._children.get(key)
        if child is None:
            metric = self._metrics[name]
            child = self._children[key] = metric.labels(**labels) if labels else metric
        return child
