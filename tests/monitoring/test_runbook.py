"""The runbook has a section for each alert, and each section what somebody who was just woken needs, in one order."""

import re

import pytest

from tests.monitoring.rules import RUNBOOK, alerts

_HEADS = ("Means", "Users feel", "First look", "Do", "Over when")
_SECTIONS = dict(re.findall(r"(?ms)^### (\w+)\n+(.*?)(?=^##|\Z)", RUNBOOK.read_text()))


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    """The link in an alert leads somewhere, and nothing is told of alerts that are no more."""
    assert _SECTIONS.keys() == alerts().keys()
    assert len(re.findall(r"(?m)^### ", RUNBOOK.read_text())) == len(_SECTIONS)


@pytest.mark.parametrize("name", _SECTIONS)
def test_a_section_says_what_to_do(name: str) -> None:
    """What it means, what users feel, the first look, what to do, when it is over; other sections by their names."""
    text = _SECTIONS[name]
    assert tuple(re.findall(r"(?m)^\* \*\*([\w ]+):\*\* ", text)) == _HEADS
    for other in re.findall(r"\bMailgate[A-Z]\w+", text):
        assert other in alerts(), other


@pytest.mark.parametrize("name", _SECTIONS)
def test_the_first_look_is_something_to_type_or_to_look_at(name: str) -> None:
    """A command, a file, a metric, or a named place."""
    look = re.split(r"(?m)^\* \*\*[\w ]+:\*\* ", _SECTIONS[name])[_HEADS.index("First look") + 1]
    assert re.search(r"`[^`]+`|Prometheus' page|dashboard|log", look)
