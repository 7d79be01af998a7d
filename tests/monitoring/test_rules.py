"""Every rule, tried by promtool on the stories of `stories.py`: the alert fires when it should, and not before.

Rules, runbook and metrics also have to name each other: an alert that no section explains, or that waits for a metric
that does not exist, helps nobody.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.rules import ALERTS, CONFIG, RECORDING, alerts, groups, recorded, recordings
from tests.monitoring.stories import STORIES, Story

PROMTOOL = "/usr/bin/promtool"
GATE = {"job": "mailgate", "instance": "gate"}
_LONG = 300  # minutes; what takes longer is looked at every five minutes

# What is recorded: the series of ten minutes, and the value of what is recorded after these.
_MESSAGES = 'mailgate_messages_total{@,door="lmtp",verdict="%s"}'
_STAGE = 'mailgate_stage_seconds_bucket{@,stage="spam",le="%s"}'
_COMMIT = 'mailgate_spool_commit_seconds_bucket{@,le="%s"}'
RECORDED: dict[str, tuple[dict[str, str], dict[str, str], float]] = {
    "instance:mailgate_messages:rate5m": (
        {_MESSAGES % "accept": "0+60x20"},
        {"door": "lmtp", "verdict": "accept"},
        1.0,
    ),
    "instance:mailgate_recipients:rate5m": (
        {'mailgate_recipients_total{@,outcome="held"}': "0+30x20"},
        {"outcome": "held"},
        0.5,
    ),
    "instance:mailgate_replays:rate5m": (
        {'mailgate_replays_total{@,outcome="delivered"}': "0+120x20"},
        {"outcome": "delivered"},
        2.0,
    ),
    "instance:mailgate_unscored:ratio_rate5m": (
        {
            'mailgate_unscored_total{@,reason="timeout"}': "0+1x20",
            'mailgate_unscored_total{@,reason="closed"}': "0+1x20",
            'mailgate_spam_scans_total{@,result="scored",server="a"}': "0+4x20",
            'mailgate_spam_scans_total{@,result="scored",server="b"}': "0+2x20",
            'mailgate_spam_scans_total{@,result="unscored",server="a"}': "0+9x20",
        },
        {},
        0.25,
    ),
    "instance:mailgate_unwanted:ratio_rate30m": (
        {_MESSAGES % "accept": "0+3x20", _MESSAGES % "hold": "0+1x20"},
        {"door": "lmtp", "verdict": "hold"},
        0.25,
    ),
    "instance:mailgate_origin_unknown:ratio_rate30m": (
        {
            'mailgate_origin_total{@,source="unknown"}': "0+1x20",
            'mailgate_origin_total{@,source="header"}': "0+3x20",
        },
        {},
        0.25,
    ),
    "instance:mailgate_deferred:ratio_rate5m": (
        {
            'mailgate_recipients_total{@,outcome="deferred"}': "0+1x20",
            'mailgate_recipients_total{@,outcome="delivered"}': "0+3x20",
        },
        {},
        0.25,
    ),
    "instance:mailgate_spool_waiting:sum": (
        {
            'mailgate_spool_messages{@,state="pending"}': "3x20",
            'mailgate_spool_messages{@,state="uncertain"}': "2x20",
            'mailgate_spool_messages{@,state="held"}': "9x20",
        },
        {},
        5.0,
    ),
    "instance:mailgate_spool_used:ratio": (
        {"mailgate_spool_bytes{@}": "25x20", "mailgate_spool_max_bytes{@}": "100x20"},
        {},
        0.25,
    ),
    "instance:mailgate_stage_seconds:p50_5m": (
        {_STAGE % "1": "0+10x20", _STAGE % "3": "0+20x20", _STAGE % "+Inf": "0+20x20"},
        {"stage": "spam"},
        1.0,
    ),
    "instance:mailgate_stage_seconds:p99_5m": (
        {_STAGE % "1": "0+98x20", _STAGE % "3": "0+100x20", _STAGE % "+Inf": "0+100x20"},
        {"stage": "spam"},
        2.0,
    ),
    "instance:mailgate_spool_commit_seconds:p99_5m": (
        {_COMMIT % "1": "0+98x20", _COMMIT % "3": "0+100x20", _COMMIT % "+Inf": "0+100x20"},
        {},
        2.0,
    ),
}


def _promtool(*arguments: str | Path) -> None:
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr[-6000:]}"


def _series(series: Mapping[str, str]) -> list[dict[str, str]]:
    labels = ",".join(f'{key}="{value}"' for key, value in GATE.items())
    return [{"series": name.replace("@", labels), "values": values} for name, values in series.items()]


def _expected(story: Story) -> list[dict[str, Any]]:
    labels = {**(GATE if story.gate else {}), **story.labels}
    return [{"exp_labels": {**labels, "severity": alerts()[story.alert]["labels"]["severity"]}}]


def _file(directory: Path, name: str, rules: list[Any], tests: list[dict[str, Any]], every: int = 1) -> Path:
    """A file for promtool, with these rules and no others, evaluated `every` so many minutes."""
    rule_file, test_file = directory / f"{name}.rules.yml", directory / f"{name}.test.yml"
    rule_file.write_text(yaml.safe_dump({"groups": [{"name": name, "rules": rules}]}))
    tree = {"rule_files": [str(rule_file)], "evaluation_interval": f"{every}m", "tests": tests}
    test_file.write_text(yaml.safe_dump(tree))
    return test_file


def _tried(directory: Path, number: int, story: Story) -> Path:
    """The test file of a story."""
    alert = alerts()[story.alert]
    # What is said is not compared here: the real Prometheus renders it, test_live.py.
    bare = {key: value for key, value in alert.items() if key != "annotations"}
    rules = [*(recordings()[one] for one in sorted(recorded(alert["expr"]))), bare]

    def at(minute: int, expected: list[dict[str, Any]]) -> dict[str, Any]:
        return {"eval_time": f"{minute}m", "alertname": story.alert, "exp_alerts": expected}

    early = [] if story.early is None else [at(story.early, [])]
    courses = [(story.bad, [*early, at(story.at, _expected(story))])] + [
        (well, [at(story.at, [])]) for well in story.well
    ]
    tests = [{"interval": "1m", "input_series": _series(series), "alert_rule_test": asked} for series, asked in courses]
    return _file(directory, f"{number:02}-{story.alert}", rules, tests, 5 if story.at > _LONG else 1)


def test_the_files_are_well_formed() -> None:
    """Prometheus would take them, from the scrape configuration on."""
    _promtool("check", "config", "--lint=all", "--lint-fatal", CONFIG / "prometheus.yml")


def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    """All in one run of promtool; a failure names the alert."""
    assert {story.alert for story in STORIES} == alerts().keys()
    assert all(story.well and story.bad for story in STORIES)
    assert all(story.early is not None or "for" not in alerts()[story.alert] for story in STORIES)
    _promtool("test", "rules", *(_tried(tmp_path, number, story) for number, story in enumerate(STORIES)))


def test_every_recording_rule_records_what_it_says(tmp_path: Path) -> None:
    """The value of each, after series of known rates."""
    assert RECORDED.keys() == recordings().keys()
    tests = []
    for name, (series, labels, value) in RECORDED.items():
        named = ",".join(f'{key}="{text}"' for key, text in sorted({**GATE, **labels}.items()))
        samples = [{"labels": f"{name}{{{named}}}", "value": value}]
        asked = {"expr": name, "eval_time": "10m", "exp_samples": samples}
        tests.append({"interval": "1m", "input_series": _series(series), "promql_expr_test": [asked]})
    _promtool("test", "rules", _file(tmp_path, "recording", list(recordings().values()), tests))


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.alert)
def test_what_an_alert_says_uses_labels_that_it_has(story: Story) -> None:
    """A label that is not there is an empty place in the page's text."""
    said = alerts()[story.alert]["annotations"]
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(said.values())))
    assert used <= {*(GATE if story.gate else ()), *story.labels}


@pytest.mark.parametrize("name", alerts())
def test_an_alert_has_what_a_person_needs(name: str) -> None:
    """A summary, a description, a severity, and the section of the runbook."""
    rule = alerts()[name]
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    said = rule["annotations"]
    assert said.keys() == {"summary", "description", "runbook_url"}
    assert 10 < len(said["summary"]) < 100
    assert 20 < len(said["description"]) < 250
    assert said["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_names_are_unique() -> None:
    """Of two rules of one name the tests would see one."""
    for file, key, found in ((ALERTS, "alert", alerts()), (RECORDING, "record", recordings())):
        assert sum(len(group["rules"]) for group in groups(file)) == len(found), key
