"""The runbook has a section for each alert, and each section what somebody who was just woken needs, in one order."""

import re
import shlex
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from mailgate.edge.log import as_json
from tests.monitoring.rules import RUNBOOK, alerts

_HEADS = ("Means", "Users feel", "First look", "Do", "Over when")
# For each grep in a log, by its pattern: an event that it is to find, or to leave out with -v.
_MESSAGE: Mapping[str, object] = {"id": "01m8", "networks": ["bots"], "recipients": {"a@x.test": "deferred: 452"}}
_GREPPED = {
    '"event": "message': ("message.delivered", _MESSAGE),
    "message.failed|verdict.failed": ("verdict.failed", _MESSAGE),
    "mailman.unseen": ("mailman.unseen", {"what": "queues", "cause": "no"}),
    '"networks"': ("message.delivered", _MESSAGE),
    "message.deferred": ("message.deferred", _MESSAGE),
    "verdict.given": ("verdict.given", _MESSAGE),
    "networks.failed": ("networks.failed", {"cause": "no room"}),
}
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


def test_what_is_searched_for_in_the_log_has_the_logs_form() -> None:
    """Each grep of the page is run on a line of the log as the journal shows it, and on one that is something else."""
    found = re.findall(r"`journalctl -u mailgate[^`|]*\| (grep [^`]+)`", RUNBOOK.read_text())
    commands = [shlex.split(" ".join(one.split())) for one in found]
    assert {command[-1] for command in commands} == _GREPPED.keys()
    for command in commands:
        event, fields = _GREPPED[command[-1]]
        line, other = (
            f"Nov 28 16:00:00 lists mailgate[7]: {as_json(datetime.now(UTC), name, 'info', has)}\n"
            for name, has in ((event, fields), ("daemon.started", {"pid": 7}))
        )
        done = subprocess.run(command, input=line + other, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout == (other if "-v" in command else line), command
