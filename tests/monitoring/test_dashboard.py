"""The dashboard as Grafana will read it: a stranger sees in its first row whether mail flows.

Its queries are tried on a real Prometheus in test_live.py.
"""

import json
from itertools import pairwise
from typing import Any

import pytest

from tests.monitoring.dashboard import dashboard, panels, queries
from tests.monitoring.rules import DASHBOARD

_WIDTH = 24  # columns of Grafana's grid
_DRAWN = {"stat", "timeseries", "heatmap"}


def _place(panel: dict[str, Any]) -> set[tuple[int, int]]:
    at = panel["gridPos"]
    return {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}


def test_grafana_can_read_it() -> None:
    """The members that its model asks for, every id once, no panel on another."""
    tree = dashboard()
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= tree.keys()
    assert [variable["name"] for variable in tree["templating"]["list"]] == ["datasource", "instance"]
    every = tree["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for panel in every:
        place = _place(panel)
        assert not taken & place, panel["title"]
        assert max(x for x, _ in place) < _WIDTH
        taken |= place


def test_the_first_row_says_whether_mail_flows() -> None:
    """Eight numbers, coloured, above everything else."""
    assert dashboard()["panels"][0]["type"] == "row"
    first = [panel for panel in panels() if panel["gridPos"]["y"] == 1]
    assert [panel["type"] for panel in first] == ["stat"] * 8
    assert all(panel["options"]["colorMode"] == "background" for panel in first)
    for panel in first:
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[0]["value"] is None
        assert all(low["value"] < high["value"] for low, high in pairwise(steps[1:]))


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    """What it shows, for whom has never seen it; by the data source and the gates that were chosen."""
    assert panel["type"] in _DRAWN
    assert len(panel["description"]) > 6
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
        assert 'instance=~"$instance"' in target["expr"] or "ALERTS" in target["expr"]
        assert "legendFormat" in target
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_text_is_plain_json() -> None:
    """Written as `json` writes it, so that a change made in Grafana can be compared."""
    assert json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n" == DASHBOARD.read_text()
    assert len(queries()) > 30
