"""What `mailgate status` makes of what the daemon says: the example in the docs is one of it."""

from pathlib import Path
from typing import Any

import pytest

from mailgate.cli.status_lines import lines_of

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
NOW = 1_795_348_800.0
STALLED = "nothing leaves the queue out: 212 files, the oldest since 18m 3s"
RUNNERS = (
    "archive",
    "bounces",
    "command",
    "digest",
    "in",
    "lmtp",
    "pipeline",
    "rest",
    "retry",
    "task",
    "virgin",
    "nntp",
)
WELL: dict[str, Any] = {
    "ready": True,
    "doors": {"relay": True, "verdict": True},
    "mailman": "up",
    "stalled": "",
    "scorers": {"127.0.0.1:783": True},
    "spool": "ok",
    "networks": "ok",
    "paused": "",
    "foreign": "",
    "shut": "",
    "hostname": "lists.example.org",
    "version": "0.1.0",
    "pid": 4242,
    "up_seconds": 76 * 3600.0,
    "loop_lag_seconds": 0.002,
    "per_minute": {
        "seconds": 60.0,
        "messages": {"accept": 39.0, "reject": 2.0},
        "recipients": {"delivered": 42.0, "rejected": 2.0},
        "replays": {},
        "unscored": {},
        "mailman_drained": {"in": 40.0, "pipeline": 40.0, "archive": 38.0},
    },
    "in_spool": {
        "messages": {"pending": 0, "uncertain": 0, "held": 1, "failed": 0, "corrupt": 0},
        "bytes": 11_469,
        "max_bytes": 20 * 2**30,
        "oldest_seconds": 0.0,
        "free_bytes": int(43.1 * 2**30),
        "free_inodes": 1_000_000,
    },
    "mailman_behind": {
        "version": "GNU Mailman 3.3.10 (Tom Sawyer)",
        "queues": {
            "in": {"files": 0, "oldest_seconds": 0.0},
            "out": {"files": 212, "oldest_seconds": 1083.0},
            "shunt": {"files": 2, "oldest_seconds": 98 * 3600.0},
        },
        "runners": dict.fromkeys(RUNNERS, True) | {"out": False},
        "watched": {"queues": True, "runners": True},
        "trouble": {},
    },
    "reasons": {"spam-tag": 120, "network-reject": 31, "spam-reject": 12},
    "errors": [
        {
            "event": "mailman.stalled",
            "times": 1,
            "last": NOW - 181,
            "cause": "nothing leaves the queue out: 212 files, the oldest since 15m 2s",
        },
        {
            "event": "mailman.runners.down",
            "times": 1,
            "last": NOW - 1085,
            "cause": "not all processes are there: out",
        },
    ],
    "offenders": [],
}


def said(tree: dict[str, Any]) -> dict[str, str]:
    """The lines by their names."""
    return {one.name: one.said for one in lines_of(tree, NOW)}


def test_the_example_in_the_docs() -> None:
    lines = "\n".join(str(one) for one in lines_of(WELL | {"stalled": STALLED}, NOW))
    assert lines in PAGE


@pytest.mark.parametrize(
    ("differs", "name", "words"),
    [
        ({"ready": False, "doors": {"relay": False, "verdict": True}}, "ready", "no: does not listen at: relay"),
        (
            {"ready": False, "spool": "spool.min_free: 1 B are free"},
            "ready",
            "no: neither Mailman nor the spool takes mail: spool.min_free: 1 B are free",
        ),
        ({"mailman": "down: refused", "mailman_behind": {}}, "mailman", "down: refused"),
        (
            {"mailman_behind": WELL["mailman_behind"] | {"watched": {"queues": True, "runners": False}}},
            "unseen",
            "runners: none of Mailman's were seen",
        ),
        (
            {"stalled": STALLED, "shut": f"Mailman stands still: {STALLED}"},
            "stalled",
            f"{STALLED}; mail is kept in the spool",
        ),
        ({"scorers": {"a": True, "b": False}}, "scorers", "a up, b down"),
        ({"scorers": {}}, "scorers", "none"),
        ({"in_spool": {}, "spool": "the spool is not open"}, "spool", "the spool is not open"),
        ({"networks": "broken: /etc/abuse.yaml"}, "networks", "broken: /etc/abuse.yaml"),
        ({"paused": "an upgrade"}, "paused", "an upgrade"),
        ({"foreign": "a copy"}, "foreign", "a copy"),
        ({"errors": []}, "errors", "none"),
        (
            {"errors": [{"event": "upstream.down", "times": 3, "last": NOW - 5, "cause": "refused\x1b[2J"}]},
            "errors",
            "upstream.down 3 times, last 5s ago: refused\x1b[2J",
        ),
    ],
)
def test_what_is_not_well(differs: dict[str, Any], name: str, words: str) -> None:
    assert said(WELL | differs)[name] == words
    assert all("\x1b" not in str(one) for one in lines_of(WELL | differs, NOW))


def test_nobody_answers() -> None:
    (only,) = lines_of({"ready": False, "trouble": "http.listen: x does not answer"}, NOW)
    assert str(only) == "ready:      no: http.listen: x does not answer"


def test_it_fits_a_screen() -> None:
    rates = {name: {"delivered": 1.0} for name in ("messages", "recipients", "replays", "unscored", "mailman_drained")}
    worst = {
        "stalled": STALLED,
        "foreign": "a copy",
        "spool": "full",
        "per_minute": {"seconds": 60.0, **rates},
        "mailman_behind": WELL["mailman_behind"] | {"trouble": {"rest": "refused"}},
        "errors": WELL["errors"] * 3,
    }
    assert len(lines_of(WELL | worst, NOW)) < 24
