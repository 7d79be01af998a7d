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
    """Every query with the title of what asks it, as Grafana would send it for all gates: variables filled in."""
    asked = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    asked += [(one["name"], one["expr"]) for one in dashboard()["annotations"]["list"]]
    return [(title, text.replace("$__rate_interval", "1m").replace("$instance", ".*")) for title, text in asked]
