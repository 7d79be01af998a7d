"""The table: medians with their range, and the ratio of each median to that of the yardstick in the same run."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from bench.runs import Run

_COLUMNS = (
    ("scenario", -9),
    ("relay", -11),
    ("msg/s", 7),
    ("min-max", 13),
    ("ratio", 6),
    ("CPU s/1000", 10),
    ("ratio", 6),
    ("p50 ms", 7),
    ("ratio", 6),
    ("p99 ms", 7),
    ("ratio", 6),
    ("max ms", 7),
    ("PSS MiB", 7),
    ("mail", -4),
)


@dataclass(frozen=True)
class Row:
    """All repetitions of one scenario with one relay."""

    scenario: str
    relay: str
    runs: tuple[Run, ...]
    warm_up: Run | None = None
    """A short run before them; it is in no number, but its mail counts."""

    def median(self, field: str) -> float | None:
        """The median of a field of `Run`; None when it was not measured."""
        values = [value for run in self.runs if (value := getattr(run, field)) is not None]
        return statistics.median(values) if values else None

    @property
    def all_runs(self) -> tuple[Run, ...]:
        """With the warm-up."""
        return (self.warm_up, *self.runs) if self.warm_up else self.runs

    @property
    def accepted(self) -> int:
        """Messages of all runs."""
        return sum(run.accepted for run in self.all_runs)

    @property
    def trouble(self) -> str:
        """What went wrong in any of them; empty when nothing did."""
        return "; ".join(run.trouble for run in self.all_runs if run.trouble)


def render(rows: Iterable[Row], yardstick: str) -> str:
    """Rows as lines of text; ratios are to the row of the relay `yardstick` with the same scenario."""
    rows = list(rows)
    measure = {row.scenario: row for row in rows if row.relay == yardstick}
    lines = [_line([name for name, _ in _COLUMNS])]
    lines += [_line(_cells(row, measure.get(row.scenario))) for row in rows]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    padded = [
        cell.ljust(-width) if width < 0 else cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _cells(row: Row, yardstick: Row | None) -> list[str]:
    rates = [run.per_second for run in row.runs]
    memory = max((run.pss_mib for run in row.runs if run.pss_mib is not None), default=None)
    worst = max((run.max_ms for run in row.runs if run.max_ms is not None), default=None)
    return [
        row.scenario,
        row.relay,
        _number(row.median("per_second"), 0),
        f"{min(rates):.0f}-{max(rates):.0f}",
        _ratio(row, yardstick, "per_second"),
        _number(row.median("cpu_per_1000"), 3),
        _ratio(row, yardstick, "cpu_per_1000"),
        _number(row.median("p50_ms"), 2),
        _ratio(row, yardstick, "p50_ms"),
        _number(row.median("p99_ms"), 2),
        _ratio(row, yardstick, "p99_ms"),
        _number(worst, 1),
        _number(memory, 0),
        row.trouble or f"{row.accepted} ok",
    ]


def _ratio(row: Row, yardstick: Row | None, field: str) -> str:
    if yardstick is None or yardstick is row:
        return ""
    mine, its = row.median(field), yardstick.median(field)
    return f"{mine / its:.2f}x" if mine is not None and its else ""


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
