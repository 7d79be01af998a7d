"""Metrics for Prometheus, and events for the log: what the stories count and say. Names: DESIGN's contract.

Neither waits nor fails. What is a state (spool, breaker, pause) is computed at the scrape from its owner, so it is
true even if an event was missed; see `Telemetry.at_scrape`. Counters and histograms are plain numbers that only
become the library's metrics at a scrape: its own take a lock and a handful of calls for each count, several a message.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate, product
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

import mailgate
from mailgate.core import story
from mailgate.core.auth import RESULTS, Answer
from mailgate.core.envelope import SOURCES
from mailgate.core.limits import LIMITS
from mailgate.core.record import Miss
from mailgate.core.scan import UnscoredReason
from mailgate.core.story import Told
from mailgate.core.verdict import Action
from mailgate.edge.log import EventLog

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_OCTETS = tuple(4**n * 1024 for n in range(9))
# With bounds below zero there is no _sum (it could fall), nor _count: le="+Inf" is the count. OpenMetrics, Histogram.
_POINTS = (-5, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 50)

_COUNTERS = {
    "messages": ("Messages at a door, by the verdict on them", ("door", "verdict")),
    "recipients": ("Recipients, by what their reply said", ("outcome",)),
    "reasons": ("Reasons of verdicts and refusals", ("reason",)),
    "spam_scans": ("Messages at a scorer, each server's tries for itself", ("result", "server")),
    "unscored": ("Messages that no scorer scored", ("reason",)),
    "origin": ("Messages, by where the address of their client was found", ("source",)),
    "limited": ("Messages put off at the verdict door because of a rate, by the limit", ("limit",)),
    "auth_results": ("Results of the checks of senders", ("method", "result")),
    "network_hits": ("Messages from networks in a set that is acted on", ("set",)),
    "network_drift": ("Messages from networks that the layer of a context should have stopped", ("context",)),
    "verdicts_joined": ("Messages that Exim may have asked about before, by what was found of it", ("result",)),
    "dns_lookups": ("Questions of the checks of senders, by who knew", ("source",)),
    "dns_queries": ("Questions that were put to a name server, by the answer", ("answer",)),
    "mailman_drained": ("Files that were seen to leave a queue of Mailman's", ("queue",)),
    "replays": ("Recipients replayed from the spool, by the outcome", ("outcome",)),
    "history_lost": ("Events of messages that the history lacks", ()),
}
_HISTOGRAMS = {
    "stage_seconds": ("Time a message spent in a stage", ("stage",), _SECONDS),
    "dns_seconds": ("Time until a name server had answered, or was not waited for any longer", (), _SECONDS),
    "message_bytes": ("Size of messages", (), _OCTETS),
    "spam_score": ("Scores of messages", (), _POINTS),
    "spool_commit_seconds": ("Time of a commit of the spool, shared by the messages in it", (), _SECONDS),
}
# Labels that exist from the first scrape on, so that a rate over them has a beginning.
DOORS = ("lmtp", "smtp", "verdict")
_VERDICTS = (*(action.word for action in Action), "failed")
_FROM_THE_START: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("reasons", "reason", ("too-many-connections", "too-much-in-flight")),  # those that an alert counts
    ("recipients", "outcome", ("delivered", "spooled", "held", "deferred", "rejected", "discarded")),
    ("unscored", "reason", get_args(UnscoredReason)),
    ("origin", "source", SOURCES),
    ("limited", "limit", LIMITS),
    ("verdicts_joined", "result", ("joined", *Miss)),
    ("dns_lookups", "source", ("asked", "cache", "shared")),
    ("dns_queries", "answer", tuple(answer for answer in get_args(Answer) if answer != "too-many")),
    ("replays", "outcome", ("delivered", "refused", "deferred", "uncertain", "unreached", "held", "failed", "dropped")),
)

Sample = tuple[str, str, tuple[tuple[dict[str, str], float], ...] | float]  # a float: of a gauge without labels


class _AtScrape(Collector):
    """Gauges that their owners compute when Prometheus asks."""

    def __init__(self, ask: Callable[[], Iterable[Sample]]) -> None:
        self._ask = ask

    def collect(self) -> Iterable[Metric]:
        for name, what, values in self._ask():
            labelled = values if isinstance(values, tuple) else (({}, values),)
            family = GaugeMetricFamily(f"mailgate_{name}", what, labels=sorted(labelled[0][0]) if labelled else ())
            for labels, value in labelled:
                family.add_metric([labels[key] for key in sorted(labels)], value)
            yield family

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is asked before the parts that answer are there


_Key = tuple[str, ...]  # a metric's name and the values of its labels, as declared above


class _Tally(Collector):
    """Counters and histograms as numbers. One thread counts under one key; the thread of a scrape reads them."""

    def __init__(self) -> None:
        self.sums: dict[_Key, float] = {}
        self.buckets: dict[_Key, list[int]] = {}  # how many in each bucket alone; the last one has no bound
        self.exemplars: dict[tuple[_Key, int], tuple[str, float]] = {}  # of each bucket the last gate id, and its value
        for name, (_, labels, *_) in (_HISTOGRAMS | _COUNTERS).items():
            if not labels:
                self.begin((name,), {})
        for name, label, values in _FROM_THE_START:
            for value in values:
                self.begin((name, value), {label: value})
        for method, results in RESULTS.items():
            for result in results:
                self.begin(("auth_results", method, result), {"method": method, "result": result})
        for door, verdict in product(DOORS, _VERDICTS):
            self.begin(("messages", door, verdict), {"door": door, "verdict": verdict})

    def begin(self, key: _Key, labels: Mapping[str, str]) -> None:
        """Have `key` from now on. Raises ValueError for labels that are not the declared ones, in their order."""
        name = key[0]
        declared = (_HISTOGRAMS if name in _HISTOGRAMS else _COUNTERS)[name][1]
        if tuple(labels) != declared:
            raise ValueError(f"{name} is counted by {declared}, not by {tuple(labels)}")
        if name in _HISTOGRAMS:
            self.buckets[key] = [0] * (len(_HISTOGRAMS[name][2]) + 1)
        self.sums[key] = 0.0

    def collect(self) -> Iterable[Metric]:
        sums, buckets, exemplars = self.sums.copy(), self.buckets.copy(), self.exemplars.copy()
        for name, (what, labels) in _COUNTERS.items():
            counter = CounterMetricFamily(f"mailgate_{name}", what, labels=labels)
            for key, value in sums.items():
                if key[0] == name:
                    counter.add_metric(key[1:], value)
            yield counter
        for name, (what, labels, bounds) in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"mailgate_{name}", what, labels=labels)
            ends = [*(str(float(bound)) for bound in bounds), "+Inf"]
            for key, counts in buckets.items():
                if key[0] == name:
                    marks = [exemplars.get((key, n)) for n in range(len(ends))]
                    histogram.add_metric(key[1:], _buckets(ends, counts, marks), sums[key])
            yield histogram

    def describe(self) -> Iterable[Metric]:
        return self.collect()


def _buckets(
    ends: Iterable[str], counts: Iterable[int], marks: Iterable[tuple[str, float] | None]
) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    """The buckets of a histogram as the library wants them."""
    return [
        (end, count, Exemplar({"gate_id": mark[0]}, mark[1])) if mark else (end, count)
        for end, count, mark in zip(ends, accumulate(counts), marks, strict=True)
    ]


class Telemetry:
    """The one place where something is counted or said. `keep` gets each event of a message: name, fields, level."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.keep: Callable[[str, Told, str], None] = _nowhere
        self._registry = CollectorRegistry()
        self._tally = _Tally()
        self._registry.register(self._tally)
        self._errors: dict[str, tuple[float, int, str]] = {}  # by event: when the last was, how many, its cause
        ProcessCollector(registry=self._registry)
        info = Gauge("mailgate_build_info", "Version of this mailgate", ("version",), registry=self._registry)
        info.labels(mailgate.__version__).set(1)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        key = (name, *labels.values())
        try:
            self._tally.sums[key] += amount
        except KeyError:
            self._tally.begin(key, labels)
            self._tally.sums[key] += amount

    def observe(self, name: str, value: float, exemplar: str = "", **labels: str) -> None:
        """Add to a histogram. `exemplar`: the gate id of the message that took so long."""
        tally, key = self._tally, (name, *labels.values())
        if key not in tally.sums:
            tally.begin(key, labels)
        tally.sums[key] += value
        bucket = bisect_left(_HISTOGRAMS[name][2], value)
        tally.buckets[key][bucket] += 1
        if exemplar:
            tally.exemplars[key, bucket] = exemplar, value

    def event(self, name: str, fields: Mapping[str, object], *, level: str = "info") -> None:
        """Say it in the log, and keep it if it is of a message."""
        if level == "error":
            _, times, _ = self._errors.pop(name, (0.0, 0, ""))  # the latest last
            self._errors[name] = time.time(), times + 1, _cause(fields)
        if (told := story.of_message(fields)) is not None:  # to ask whether it is empty would make its fields
            self.keep(name, told, level)
            fields = told
        self._log.event(name, fields, level)

    def at_scrape(self, ask: Callable[[], Iterable[Sample]]) -> None:
        """Have `ask` called at each scrape (in the thread of the scrape) for gauges: name, help, labelled values."""
        self._registry.register(_AtScrape(ask))

    def sums(self, names: Iterable[str]) -> dict[tuple[str, ...], float]:
        """These counters as they are: by their name and the values of their labels. Any thread may ask."""
        return {key: value for key, value in self._tally.sums.copy().items() if key[0] in names}

    def errors(self) -> list[dict[str, object]]:
        """What was said with the level "error", each event once, the latest first. Any thread may ask."""
        found = [
            {"event": name, "times": times, "last": last, "cause": cause}
            for name, (last, times, cause) in self._errors.copy().items()
        ]
        return found[::-1]

    def exposition(self, accept: str = "") -> tuple[str, bytes]:
        """The content type and all metrics, in OpenMetrics or Prometheus' text format, as who asks accepts it."""
        encode, kind = choose_encoder(accept)
        return kind, encode(self._registry)


def _cause(fields: Mapping[str, object]) -> str:
    """What an event says of its reason, in a line: for a traceback that is the last one."""
    lines = str(fields.get("cause") or fields.get("trace") or fields.get("problems") or "").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _nowhere(_name: str, _fields: Told, _level: str) -> None:
    """Keep nothing."""
