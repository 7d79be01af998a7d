"""How verbs speak: rows as a table, as aligned text or as JSON, a progress bar, a question, words on stderr.

Promises: nothing from a mail reaches a terminal with a control character in it; a reader that goes away (`| head`)
ends a listing quietly and never stops a change half-way; progress, notes and questions go to stderr and only to a
terminal, so stdout holds nothing but what was asked for.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mailgate.core.envelope import printable
from mailgate.core.units import said_seconds

DONE, FAILED, USAGE, NOTHING = 0, 1, 2, 3
_MEASURED = 500  # rows that are looked at for the widths of the columns; more rows are never made into a table
_GAP = 2
_FOLDED = 30  # the width below which a folding column is not worth having
_STYLES = {"failed": "red", "corrupt": "bold red", "held": "yellow", "uncertain": "magenta", "delivered": "green"}


@dataclass(frozen=True, slots=True)
class Column:
    """`rank` 0 is always shown on a terminal; others are left out, the highest first, where it is too narrow.
    `folds`: may be broken over several lines.
    """

    title: str
    rank: int = 0
    right: bool = False
    folds: bool = False


def say(text: str) -> None:
    """A line on stderr, for a person."""
    typer.echo(printable(text), err=True)


def fail(text: str, status: int = FAILED) -> typer.Exit:
    """What to raise to end the verb with this exit status; the words are on stderr then."""
    say(f"mailgate: {text}")
    return typer.Exit(status)


def note(text: str) -> None:
    """Something by the way: said to a terminal only."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        say(text)


def line(text: str, *, vital: bool = False) -> None:
    """A line on stdout. When the reader has gone the verb ends, or goes on unheard if what it does is `vital`."""
    with _heard(vital=vital):
        sys.stdout.write(f"{text}\n")


def octets(pieces: Iterable[bytes]) -> None:
    """Octets on stdout just as they are; on a terminal, lines without control characters."""
    with _heard(vital=False):
        if sys.stdout.isatty():
            for text in b"".join(pieces).decode("utf-8", "surrogateescape").split("\r\n"):
                sys.stdout.write(printable(text.replace("\t", "    ")) + "\n")
            return
        sys.stdout.flush()
        for piece in pieces:
            sys.stdout.buffer.write(piece)


def finish() -> bool:
    """Send what is still buffered. False if some of what was to be said could not be written (a full disk)."""
    with contextlib.suppress(typer.Exit), _heard(vital=True):
        sys.stdout.flush()
    return not _unwritten


_unwritten: list[OSError] = []  # why words were lost that somebody waits for


@contextlib.contextmanager
def _heard(*, vital: bool) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        gone = isinstance(error, BrokenPipeError)
        if not gone:
            _unwritten.append(error)
            say(f"mailgate: standard output: {error.strerror or error}")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        if not vital:
            raise typer.Exit(DONE if gone else FAILED) from None


def objects(rows: Iterable[Mapping[str, object]], *, vital: bool = False) -> int:
    """JSON, an object a line, ASCII only: undecodable octets of an address are lone surrogates. How many there were."""
    count = 0
    for row in rows:
        line(json.dumps(row), vital=vital)
        count += 1
    return count


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> int:
    """Rows for people: a table on a terminal, aligned lines otherwise or where there are very many. How many."""
    rest = iter(rows)
    first = [tuple(map(printable, row)) for row in itertools.islice(rest, _MEASURED)]
    if not first:
        return 0
    beyond = next(rest, None)
    if beyond is None and sys.stdout.isatty():
        _as_table(columns, first)
        return len(first)
    widths = [max(map(cell_len, cells)) for cells in zip(*first, [c.title for c in columns], strict=True)]
    more = () if beyond is None else (tuple(map(printable, row)) for row in itertools.chain([beyond], rest))
    line(_aligned(columns, widths, [column.title for column in columns]))
    count = 0
    for row in itertools.chain(first, more):
        line(_aligned(columns, widths, row))
        count += 1
    return count


def _aligned(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str]) -> str:
    cells = []
    for column, width, cell in zip(columns, widths, row, strict=True):
        space = " " * (width - cell_len(cell))
        cells.append(space + cell if column.right else cell + space)
    return (" " * _GAP).join(cells).rstrip()


def _as_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    natural = [max(map(cell_len, cells)) for cells in zip(*rows, [c.title for c in columns], strict=True)]
    least = [min(n, _FOLDED) if column.folds else n for column, n in zip(columns, natural, strict=True)]
    shown = list(range(len(columns)))
    while sum(least[n] + _GAP for n in shown) > console.width:
        worst = max(shown, key=lambda n: columns[n].rank)
        if not columns[worst].rank:
            break
        shown.remove(worst)
    made = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for n in shown:
        column = columns[n]
        made.add_column(
            column.title, justify="right" if column.right else "left", no_wrap=not column.folds, overflow="fold"
        )
    for row in rows:
        made.add_row(*(Text(row[n], _STYLES.get(row[n], "")) for n in shown))
    console.print(made)


def stamp(when: float) -> str:
    """A time in ISO 8601, local."""
    return datetime.fromtimestamp(when).astimezone().isoformat(timespec="seconds")


def ago(when: float, now: float) -> str:
    """How far a time lies from now: "3m 5s ago", "in 12s"."""
    return f"in {said_seconds(when - now)}" if when > now else f"{said_seconds(now - when)} ago"


def counted(number: int, thing: str) -> str:
    """A number and its noun: "1 message", "12 messages"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


class Bar:
    """A progress bar while its block runs, on stderr and only if that is a terminal."""

    def __init__(self, doing: str, total: float | None) -> None:
        self.shown = sys.stderr.isatty()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn() if total is not None else TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[extra]}", markup=False),
            console=Console(stderr=True, highlight=False, markup=False, emoji=False),
            disable=not self.shown,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._progress.add_task(doing, total=total, extra="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, amount: float = 1, extra: str = "") -> None:
        """So much more is done; `extra` stands behind the bar."""
        self._progress.update(self._task, advance=amount, extra=extra)

    def reached(self, done: float, total: float) -> None:
        """So much of so much is done."""
        self._progress.update(self._task, completed=done, total=total)


def agreed(what: str, *, yes: bool) -> None:
    """Say what is going to happen and go on only with `--yes` or a "y" on a terminal."""
    say(what)
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise fail("nothing was changed: add --yes to do it", USAGE)
    if not typer.confirm("Do it?", err=True):
        raise fail("nothing was changed")
