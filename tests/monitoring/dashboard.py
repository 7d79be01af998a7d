"""`config/grafana/mailgate.json`, read: its panels, and what they ask Prometheus."""

import json
from functools import cache
from typing import Any

from tests.monitoring.rules import DASHBOARD


@cache
def dashboard() -> dict[str, Any]:
    """The whole model."""
    tree: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return tree


def panels() -> list[dict[str, Any]]:
    """All panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Every query of a panel with the panel's title, as Grafana would send it for all gates."""
    return [(panel["title"], _filled_in(target["expr"])) for panel in panels() for target in panel["targets"]]


def annotations() -> list[str]:
    """The queries for what is marked in all panels."""
    return [_filled_in(one["expr"]) for one in dashboard()["annotations"]["list"]]


def _filled_in(query: str) -> str:
    return query.replace("$__rate_interval", "1m").replace("$instance", ".*")
