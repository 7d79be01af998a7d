"""The lines on stderr: for machines, for people, for journald; redacted; and the same failure counted."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from mailgate.core.repetition import BURST
from mailgate.core.story import Told
from mailgate.edge import log as module
from mailgate.edge.log import EventLog
from mailgate.edge.telemetry import Telemetry
from tests.stack.waiting import wait_until

_Event = tuple[str, dict[str, object], str]
FINAL: dict[str, object] = {
    "id": "01m81nrqn3f3m3qevz",
    "exim_id": "1xV0Ys-0004sm-35",
    "message_id": "<1@example.org>",
    "helo": "",
    "sender": "ann@example.org",
    "sender_domain": "example.org",
    "lists": ["dev@lists.test"],
    "recipients": {"dev@lists.test": "spooled: 450 4.2.0 Not now", "b@lists.test": "delivered: 250 Ok"},
    "reasons": ["spam-tag", "network-tag"],
    "score": 3.2,
    "dialogue": ["RCPT TO:<dev@lists.test> -> 450 4.2.0 Not now", "RSET -> 250 Ok"],
    "seconds": {"upstream": 0.01, "total": 0.2},
}


def written(*events: _Event, **options: Any) -> list[str]:
    """The lines of these events."""
    stream = io.StringIO()
    log = EventLog(options.pop("form", "json"), stream=stream, **options)
    for name, fields, level in events:
        log.event(name, fields, level)
    log.close()
    return stream.getvalue().splitlines()


def test_for_machines() -> None:
    [line] = written(("message.spooled", FINAL, "warning"))
    read = json.loads(line)
    assert abs(datetime.fromisoformat(read.pop("time")) - datetime.now(UTC)).total_seconds() < 60
    assert read == {"level": "warning", "event": "message.spooled", **FINAL}


def test_who_tells_of_a_message_does_not_make_the_fields() -> None:
    made: list[str] = []

    def make() -> dict[str, object]:
        made.append("made")
        return {"id": "one"}

    told = Told(make)
    kept: list[Told] = []
    telemetry = Telemetry(EventLog("json", "warning", stream=io.StringIO()))
    telemetry.keep = lambda _name, fields, _level: kept.append(fields)
    telemetry.event("message.delivered", told)
    assert kept == [told]
    assert made == []


def test_for_people() -> None:
    lines = written(("message.spooled", FINAL, "warning"), form="text")
    stamp = datetime.strptime(lines[0][:23], "%Y-%m-%d %H:%M:%S.%f").astimezone()  # local, as on the operator's wall
    assert abs(stamp - datetime.now(UTC)).total_seconds() < 60
    assert lines[0][24:] == (
        "warning message.spooled 01m81nrqn3f3m3qevz 1xV0Ys-0004sm-35 message_id=<1@example.org> sender=ann@example.org"
        " recipients={dev@lists.test: spooled: 450 4.2.0 Not now, b@lists.test: delivered: 250 Ok}"
        " reasons=spam-tag,network-tag score=3.2 seconds={upstream: 0.01, total: 0.2}"
    )
    assert lines[1:] == ["    RCPT TO:<dev@lists.test> -> 450 4.2.0 Not now", "    RSET -> 250 Ok"]


def test_a_trace_is_read_as_lines_without_control_characters() -> None:
    lines = written(("task.failed", {"task": "a b", "trace": 'File "x"\nValueError: \x1b[2J\n'}, "error"), form="text")
    assert lines[0].endswith('error   task.failed task="a b"')
    assert lines[1:] == ['    File "x"', r"    ValueError: \x1b[2J"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_the_journal_gets_the_priority_of_each_line(form: str) -> None:
    events: list[_Event] = [("a.b", {"trace": "x\ny"}, level) for level in ("error", "warning", "info")]
    lines = written(*events, form=form, journal=True)
    assert [line[:3] for line in lines] == [p for p in ("<3>", "<4>", "<6>") for _ in range(3 if form == "text" else 1)]


@pytest.mark.parametrize("form", ["json", "text"])
def test_local_parts_are_hidden(form: str) -> None:
    whole = "\n".join(written(("message.spooled", FINAL, "warning"), form=form, redact=True))
    assert "ann" not in whole
    assert "dev@" not in whole
    assert whole.count("*@lists.test") >= 2
    assert "<1@example.org>" in whole


def test_the_same_failure_is_counted_and_a_message_is_not() -> None:
    refused: list[_Event] = [("peer.refused", {"peer": "192.0.2.7", "cause": "too many"}, "warning")] * 300
    spooled: list[_Event] = [("message.spooled", {"id": f"m{n}", "recipients": {}}, "warning") for n in range(300)]
    events = [json.loads(line) for line in written(*refused, *spooled)]
    assert sum(event["event"] == "message.spooled" for event in events) == 300
    told = [event for event in events if event["event"] == "peer.refused"]
    assert len(told) == BURST + 1
    assert (told[-1]["times"], told[-1]["cause"]) == (300, "too many")
    assert told[-1]["repeated"].startswith("said 300 times in ")


def test_the_count_comes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 0.1)
    monkeypatch.setattr(module, "_TICK", 0.02)
    stream = io.StringIO()
    log = EventLog(stream=stream)
    for _ in range(BURST + 5):
        log.event("upstream.trouble", {"cause": "no reply"}, "warning")
    wait_until(lambda: '"times": 15' in stream.getvalue(), "the count is said")
    log.close()
