"""The lines of `mailgate status`, from what the daemon says on its page /status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from mailgate.cli.output import ago
from mailgate.core.envelope import printable
from mailgate.core.units import said_octets, said_seconds

_WIDTH = 12  # columns of the names
_ERRORS = 3  # that are shown
_WELL, _ILL, _ODD = "green", "bold red", "yellow"


@dataclass(frozen=True, slots=True)
class Line:
    """A name, what is to be said, and a colour where something is to be seen at once."""

    name: str
    said: str = ""
    style: str = ""

    def __str__(self) -> str:
        return printable(f"{self.name + ':':{_WIDTH}}{self.said}" if self.name else self.said)

    def coloured(self) -> Text:
        """The same for a terminal: one line of it, cut where it is too long."""
        text = Text(str(self), no_wrap=True, overflow="ellipsis")
        text.stylize("bold", 0, len(self.name))
        if self.style:
            text.stylize(self.style, _WIDTH if self.name else 0)
        return text


def lines_of(tree: Mapping[str, Any], now: float) -> list[Line]:
    """What the daemon says, the most important first; or that it says nothing."""
    if "trouble" in tree:
        return [Line("ready", f"no: {tree['trouble']}", _ILL)]
    return [
        _ready(tree),
        Line(
            "daemon",
            f"{tree['hostname']}, version {tree['version']}, pid {tree['pid']}, up {said_seconds(tree['up_seconds'])}",
        ),
        Line("lag", f"{1000 * tree['loop_lag_seconds']:.0f} ms at worst", _ODD if tree["loop_lag_seconds"] > 1 else ""),
        *_rates(tree["per_minute"]),
        *_mailman(tree),
        *_scorers(tree["scorers"]),
        *_spool(tree),
        Line("networks", tree["networks"], "" if tree["networks"] == "ok" else _ODD),
        Line("paused", tree["paused"] or "no", _ODD if tree["paused"] else ""),
        *([Line("foreign", tree["foreign"], _ILL)] if tree["foreign"] else []),
        Line("reasons", _counts(tree["reasons"])),
        *_errors(tree["errors"], now),
    ]


def _ready(tree: Mapping[str, Any]) -> Line:
    if tree["ready"]:
        return Line("ready", "yes", _WELL)
    shut = [name for name, listens in tree["doors"].items() if not listens]
    if shut:
        return Line("ready", f"no: does not listen at: {', '.join(shut)}", _ILL)
    return Line("ready", f"no: neither Mailman nor the spool takes mail: {tree['spool']}", _ILL)


def _rates(rates: Mapping[str, Any]) -> list[Line]:
    seconds = said_seconds(rates["seconds"])
    found = []
    for name, key in (("mail", "messages"), ("recipients", "recipients"), ("replayed", "replays"), ("unscored",) * 2):
        told = rates[key]
        if told or name == "mail":
            each = f" ({_counts(told)})" if told else ""
            style = _ODD if name == "unscored" else ""
            found.append(Line(name, f"{sum(told.values()):g} a minute{each}, last {seconds}", style))
    return found


def _mailman(tree: Mapping[str, Any]) -> list[Line]:
    behind = tree["mailman_behind"]
    version = f", {behind['version']}" if behind.get("version") else ""
    up = tree["mailman"] == "up"
    found = [Line("mailman", f"{tree['mailman']}{version}", _WELL if up else _ILL)]
    if tree["stalled"]:
        kept = "; mail is kept in the spool" if "stands still" in tree["shut"] else ""
        found.append(Line("stalled", tree["stalled"] + kept, _ILL))
    if queues := behind.get("queues"):
        full = {name: one for name, one in queues.items() if one["files"]}
        said = (f"{name} {one['files']} ({said_seconds(one['oldest_seconds'])})" for name, one in full.items())
        found.append(Line("queues", ", ".join(said) or "empty", _ODD if {"shunt", "bad"} & full.keys() else ""))
        if drained := tree["per_minute"]["mailman_drained"]:
            found.append(Line("drained", f"a minute: {_counts(drained)}"))
    if runners := behind.get("runners"):
        dead = sorted(name for name, lives in runners.items() if not lives)
        missing = f"; dead: {', '.join(dead)}" if dead else ""
        found.append(Line("runners", f"{len(runners) - len(dead)} alive{missing}", _ILL if dead else ""))
    unseen = {what: "none of Mailman's were seen" for what, sees in behind.get("watched", {}).items() if not sees}
    unseen |= behind.get("trouble", {})
    return found + [Line("unseen", f"{what}: {why}", _ODD) for what, why in unseen.items()]


def _scorers(scorers: Mapping[str, bool]) -> list[Line]:
    said = ", ".join(f"{name} {'up' if lives else 'down'}" for name, lives in scorers.items())
    return [Line("scorers", said or "none", "" if all(scorers.values()) else _ILL)]


def _spool(tree: Mapping[str, Any]) -> list[Line]:
    inside = tree["in_spool"]
    style = "" if tree["spool"] == "ok" else _ILL
    if not inside:
        return [Line("spool", tree["spool"], style)]
    waits = ", ".join(f"{count} {state}" for state, count in inside["messages"].items() if count)
    oldest = f", the oldest for {said_seconds(inside['oldest_seconds'])}" if inside["oldest_seconds"] else ""
    size = f"{said_octets(inside['bytes'])} of {said_octets(inside['max_bytes'])}"
    free = f"{said_octets(inside['free_bytes'])} free on its disk"
    bad = inside["messages"]["failed"] + inside["messages"]["corrupt"]
    found = [Line("spool", f"{waits or 'empty'}{oldest}; {size}; {free}", _ODD if bad else "")]
    return [Line("spool", tree["spool"], style), *found] if style else found


def _errors(errors: list[Mapping[str, Any]], now: float) -> list[Line]:
    found: list[Line] = []
    for one in errors[:_ERRORS]:
        times = f"{one['times']} times, last " if one["times"] > 1 else ""
        cause = f": {one['cause']}" if one["cause"] else ""
        indent = " " * _WIDTH if found else ""
        said = f"{indent}{one['event']} {times}{ago(one['last'], now)}{cause}"
        found.append(Line("" if found else "errors", said, _ODD))
    return found or [Line("errors", "none")]


def _counts(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count:g}" for name, count in counts.items()) or "none"
