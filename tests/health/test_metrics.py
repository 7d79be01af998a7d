"""docs/metrics.md, the code and a gate that runs tell of the same metrics, with the same labels."""

import io
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from mailgate.core.auth import RESULTS, Answer
from mailgate.core.envelope import SOURCES, Door
from mailgate.core.limits import LIMITS
from mailgate.core.mailman_queues import QUEUES, RUNNERS
from mailgate.core.networks import NetworkAction
from mailgate.core.outcome import Result
from mailgate.core.record import Miss
from mailgate.core.scan import UNSCORED_REASONS
from mailgate.core.verdict import Action
from mailgate.edge.log import EventLog
from mailgate.edge.telemetry import _COUNTERS, _HISTOGRAMS, Telemetry
from tests.health.test_queues import put, runner
from tests.monitoring.rules import alerts
from tests.spam.desk import LIST, Desk, open_desk
from tests.stack.waiting import wait_until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text()
_ROW = re.compile(r"^\| (`[a-z_`, ]+`) \| (counter|gauge|histogram) \| ([a-z_`, ]*)\| (.+) \| (.*)\|$", re.MULTILINE)
_VALUES = re.compile(r"^\| ((?:`[a-z_]+`(?:, )?)+)(?: of `mailgate_([a-z_]+)`)? \| (.+) \|$", re.MULTILINE)
_YIELD = re.compile(r'yield "([a-z_]+)", "')

Shape = tuple[str, frozenset[str]]  # the type of a metric and its labels


def names(cell: str) -> list[str]:
    """What stands in code."""
    return re.findall(r"`([^`]+)`", cell)


def documented() -> dict[str, Shape]:
    """Every metric of the page."""
    return {
        name: (row[2], frozenset(names(row[3]))) for row in _ROW.finditer(PAGE) for name in names(row[1])
    }  # fmt: skip


def labels() -> dict[tuple[str, str], set[str]]:
    """The values that a label may have by the page, by the metric ("": any) and the label."""
    rows = _VALUES.finditer(PAGE[PAGE.index("## What labels may hold") :])
    return {(row[2] or "", label): set(names(row[3])) for row in rows for label in names(row[1])}


def shapes(text: str) -> dict[str, Shape]:
    """The metrics in an exposition, with the labels of their samples."""
    found = {}
    for family in text_format(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        seen = frozenset(chain.from_iterable(sample.labels for sample in family.samples)) - {"le"}
        found[name] = (family.type, seen)
    return found


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    """A gate that has everything: a verdict door, lists of networks, a scorer, and a Mailman to watch."""
    with open_desk(stopped=True) as desk, runner("--runner=in:0:1"):
        home = desk.pair.directory
        (home / "queue").mkdir(mode=0o755)
        put(home / "queue" / "in", 1.5)
        (home / "bad.txt").write_text("nonsense\n192.0.2.0/24\n")
        (home / "rest.secret").write_text("a:b")
        for file in home.rglob("*"):
            if file.parent in {home, home / "queue"} and file.is_file():
                file.chmod(0o644)
        host, port = desk.gate.verdict
        mailman = {
            "queue_dir": f"{home}/queue",
            "rest_url": "http://127.0.0.1:1",
            "rest_secret_file": f"{home}/rest.secret",
        }
        desk.configure(
            {
                "verdict": {"listen": [f"{host}:{port}"]},
                "networks": {"files": [f"{home}/bad.txt"], "own_file": f"{home}/own.txt"},
                "mailman": {"probe_interval": "0.1s", **mailman},
            }
        )
        desk.scores(0.5)
        desk.gate.start()
        desk.send()
        wait_until(lambda: desk.gate.metric("mailgate_mailman_runners", runner="in"), "the runner is seen")
        stalled = "mailgate_mailman_stalled"
        wait_until(lambda: stalled in desk.gate.metrics(), "it is known that Mailman stands still")
        wait_until(lambda: desk.gate.metric("mailgate_networks", set="bad"), "the list is read")
        yield desk


def test_what_a_gate_says_is_what_the_page_says(desk: Desk) -> None:
    said, told = shapes(desk.gate.page("/metrics")[1]), documented()
    assert said.keys() == told.keys()
    silent = {name for name, (_, has) in said.items() if not has}  # of these nothing was counted yet
    assert {name: said[name] for name in said if name not in silent} == {
        name: told[name] for name in told if name not in silent
    }
    assert {name: kind for name, (kind, _) in said.items()} == {name: kind for name, (kind, _) in told.items()}


def test_what_the_code_declares_is_what_the_page_says() -> None:
    code = {f"mailgate_{name}_total": ("counter", frozenset(of)) for name, (_, of) in _COUNTERS.items()}
    code |= {f"mailgate_{name}": ("histogram", frozenset(of)) for name, (_, of, _) in _HISTOGRAMS.items()}
    told = {name: shape for name, shape in documented().items() if name.startswith("mailgate_")}
    assert {name: told.get(name) for name in code} == code
    text = "".join(file.read_text() for file in (ROOT / "mailgate").rglob("*.py"))
    at_scrape = {f"mailgate_{name}" for name in _YIELD.findall(text)}
    assert told.keys() == code.keys() | at_scrape | {"mailgate_build_info"}


def test_every_metric_has_a_meaning() -> None:
    for row in _ROW.finditer(PAGE):
        assert len(row[4]) >= 8, row[1]
    assert len(documented()) == PAGE[: PAGE.index("## What labels may hold")].count("\n| `") + 1  # a row has two


def test_what_labels_may_hold() -> None:
    values = labels()
    verdicts = {action.name.lower() for action in Action}
    assert values["", "door"] == {*get_args(Door), "verdict"}
    assert values["", "verdict"] == verdicts | {"failed"}
    assert values["", "source"] == set(SOURCES)
    assert values["", "limit"] == set(LIMITS)
    assert values["", "method"] == RESULTS.keys()
    assert values["auth_results_total", "result"] == set(chain.from_iterable(RESULTS.values()))
    assert values["", "answer"] == set(get_args(Answer)) - {"too-many"}
    assert values["", "queue"] == set(QUEUES)
    assert values["", "runner"] == set(RUNNERS)
    assert values["unscored_total", "reason"] == set(UNSCORED_REASONS)
    assert values["verdicts_joined_total", "result"] == {"joined", *Miss}
    assert values["replays_total", "outcome"] == {*Result, "held", "failed", "dropped"}
    reasons = values["reasons_total", "reason"]
    assert {f"network-{action}" for action in get_args(NetworkAction)} <= reasons
    assert {f"limit-{limit}" for limit in LIMITS} <= reasons


def test_reasons_of_the_code_are_on_the_page() -> None:
    """Hyphenated constants where reasons are given."""
    told = labels()["reasons_total", "reason"]
    files = ["core/rules.py", *(f"edge/{door}/{file}" for door in ("listener", "verdictport") for file in ("*.py",))]
    text = "".join(file.read_text() for name in files for file in (ROOT / "mailgate").glob(name))
    found = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', text)) - {"message-id"}
    assert len(found) > 10
    assert not found - told


def test_a_gate_uses_only_the_values_of_the_page(desk: Desk) -> None:
    desk.send("postmaster@lists.test")
    desk.fake.refuse()
    desk.send(LIST)
    desk.fake.accept()
    desk.pair.wait_drained()
    closed = labels()
    seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for family in text_format(desk.gate.page("/metrics")[1]):
        for sample in family.samples:
            name = sample.name.removeprefix("mailgate_").removesuffix("_bucket")
            for label, value in sample.labels.items():
                key = (name, label) if (name, label) in closed else ("", label)
                seen[key].add(value)
    free = {"le", "upstream", "server", "set", "context", "file", "version"}
    for key, values in seen.items():
        if key[1] not in free:
            assert values <= closed[key], key
    assert seen["", "door"] == closed["", "door"]
    assert seen["", "verdict"] == closed["", "verdict"]
    assert {"total", "spam", "upstream", "spool"} <= seen["", "stage"]


def test_open_metrics_where_it_is_asked_for(desk: Desk) -> None:
    event = desk.event(desk.send())
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    kind, text = desk.gate.ask("/metrics", accept)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    families = {family.name: family for family in open_metrics(text)}  # type: ignore[no-untyped-call]
    marked = {
        (sample.labels["stage"], sample.exemplar.labels["gate_id"])
        for sample in families["mailgate_stage_seconds"].samples
        if sample.exemplar
    }
    assert {("total", event["id"]), ("upstream", event["id"]), ("spam", event["id"])} <= marked
    kind, text = desk.gate.ask("/metrics", "")
    assert kind.startswith("text/plain; version=0.0.4")
    assert shapes(text).keys() == documented().keys()


def test_gauges_are_true_after_a_restart(desk: Desk) -> None:
    desk.fake.refuse()
    desk.send()
    desk.send()
    before = {name: value for name, value in desk.gate.metrics().items() if name.startswith("mailgate_spool_messages")}
    assert before['mailgate_spool_messages{state="pending"}'] == 2
    desk.gate.restart()
    after = desk.gate.metrics()
    assert {name: after[name] for name in before} == before
    assert after["mailgate_spool_bytes"] > 300
    assert after["mailgate_spool_oldest_seconds"] > 0
    assert after["mailgate_ready"] == after["mailgate_spool_writable"] == 1
    assert after['mailgate_messages_total{door="lmtp",verdict="accept"}'] == 0
    desk.fake.accept()
    desk.pair.wait_drained()
    assert desk.gate.metric("mailgate_spool_bytes") == desk.gate.metric("mailgate_spool_oldest_seconds") == 0


def test_what_an_alert_counts_has_a_beginning() -> None:
    """A counter that appears with its first burst has no increase: Prometheus would not see it."""
    telemetry = Telemetry(EventLog(stream=io.StringIO()))
    begun = {sample.rstrip().rpartition(" ")[0] for sample in telemetry.exposition()[1].decode().splitlines()}
    for reason in re.findall(r"[a-z-]+", re.findall(r'reason=~"([^"]+)"', alerts()["MailgateTurningAway"]["expr"])[0]):
        assert f'mailgate_reasons_total{{reason="{reason}"}}' in begun
