"""The files of `config/prometheus` and `docs/runbook.md`, read: what the tests of this folder compare and try."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config" / "prometheus"
RECORDING, ALERTS = CONFIG / "mailgate.recording.yml", CONFIG / "mailgate.alerts.yml"
DASHBOARD = ROOT / "config" / "grafana" / "mailgate.json"
RUNBOOK = ROOT / "docs" / "runbook.md"

Rule = dict[str, Any]
_METRIC = re.compile(r"(?<![:\w])((?:mailgate|process)_\w+)")
_PARTS = re.compile(r"_(?:total|bucket|count|sum)\Z")


def groups(file: Path) -> list[dict[str, Any]]:
    """The groups of a rule file."""
    found: list[dict[str, Any]] = yaml.safe_load(file.read_text())["groups"]
    return found


@cache
def alerts() -> dict[str, Rule]:
    """Every alert by its name."""
    return {rule["alert"]: rule for group in groups(ALERTS) for rule in group["rules"]}


@cache
def recordings() -> dict[str, Rule]:
    """Every recording rule by the name of what it records."""
    return {rule["record"]: rule for group in groups(RECORDING) for rule in group["rules"]}


def recorded(expression: str) -> set[str]:
    """The recording rules whose results an expression uses."""
    return {name for name in recordings() if name in expression}


def metrics(expression: str) -> set[str]:
    """The metrics that an expression asks for, as their families are called in /metrics."""
    return {_PARTS.sub("", name) for name in _METRIC.findall(expression)}
