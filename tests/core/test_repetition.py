"""The same failure is said some times, then counted; what a message came to is always said."""

import pytest

from mailgate.core.repetition import BURST, WINDOW, Repetition


def said(repetition: Repetition, times: int, name: str = "peer.refused", now: float = 0.0, **fields: object) -> int:
    """How often it was said, of so many times."""
    return sum(repetition.admit(name, "warning", fields, now) for _ in range(times))


def test_it_is_said_some_times_and_then_counted() -> None:
    repetition = Repetition()
    assert said(repetition, 312, cause="too many", peer="192.0.2.7") == BURST
    assert repetition.due(WINDOW - 1) == []
    [again] = repetition.due(WINDOW)
    assert (again.name, again.level) == ("peer.refused", "warning")
    assert again.fields == {
        "cause": "too many",
        "peer": "192.0.2.7",
        "times": 312,
        "repeated": "said 312 times in 60 s",
    }


def test_while_it_goes_on_it_is_said_once_a_minute() -> None:
    repetition = Repetition()
    said(repetition, BURST + 1)
    assert len(repetition.due(WINDOW)) == 1
    assert said(repetition, 5, now=WINDOW + 1) == 0
    assert [again.fields["times"] for again in repetition.due(2 * WINDOW)] == [5]
    assert repetition.counting
    assert repetition.due(3 * WINDOW) == []
    assert not repetition.counting
    assert said(repetition, 3, now=3 * WINDOW) == 3


def test_what_is_seldom_is_not_counted() -> None:
    repetition = Repetition()
    assert said(repetition, BURST) == BURST
    assert repetition.due(WINDOW) == []


def test_failures_are_told_apart_by_their_cause_not_by_its_numbers() -> None:
    repetition = Repetition()
    causes = [f"127.0.0.1:{port}: 12{port} octets too many" for port in range(100)]
    assert sum(said(repetition, 1, cause=cause) for cause in causes) == BURST
    assert said(repetition, 1, cause="connection lost") == 1
    assert said(repetition, 1, cause=causes[0], server="another") == 1


def test_bugs_are_told_apart_by_where_they_end() -> None:
    repetition = Repetition()
    traces = [
        "Traceback:\n  line 1\nValueError: a\n",
        "Traceback:\n  line 2\nValueError: a\n",
        "Traceback:\nKeyError: b\n",
    ]
    assert [said(repetition, BURST, "session.failed", trace=trace) for trace in traces] == [BURST, 0, BURST]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("message.spooled", {"id": "x", "recipients": {"a@x": "451"}}),
        ("message.failed", {"id": "x", "trace": "bug"}),
        ("verdict.given", {"id": "x"}),
        ("replay.deferred", {"id": "x", "recipients": {"a@x": "451"}}),
        ("spool.expired", {"id": "x", "recipients": 3}),
        ("upstream.down", {"cause": "gone"}),
        ("ledger.lost", {"entries": 1}),
        ("daemon.stopped", {}),
    ],
)
def test_what_is_always_said(name: str, fields: dict[str, object]) -> None:
    assert all(Repetition().admit(name, "warning", fields, 0.0) for _ in range(3 * BURST))


@pytest.mark.parametrize("name", ["spam.unscored", "spool.full", "spool.failed"])
def test_what_a_messages_own_event_says_too(name: str) -> None:
    repetition = Repetition()
    assert sum(said(repetition, 1, name, id=f"m{n}", cause="the same") for n in range(30)) == BURST


def test_it_is_bounded() -> None:
    repetition = Repetition()
    letters = [f"{a}{b}{c}" for a in "abcdefgh" for b in "abcdefgh" for c in "abcdefgh"]
    assert sum(said(repetition, 1, cause=cause) for cause in letters) == 200 + BURST
