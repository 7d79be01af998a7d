"""`mailgate status`: what the daemon says of itself, on one screen of a terminal.

How it fails: exit status 1 when the daemon would not take mail, or does not answer; with `--watch` that is shown, and
it is asked again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live

from mailgate.cli.daemon_page import Silent, page
from mailgate.cli.options import ConfigFile, Json, read_config, seconds
from mailgate.cli.output import FAILED, Column, fail, line, objects, table
from mailgate.cli.status_lines import Line, lines_of
from mailgate.config import Config

_OFFENDERS = (Column("LIMIT"), Column("WHO", folds=True), Column("PUT OFF", right=True), Column("USED", right=True))
_SHORTEST = 0.2  # seconds between two looks


def status(
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")] = False,
    every: Annotated[str, typer.Option("--every", metavar="DURATION", help="How often --watch looks.")] = "2s",
    config: ConfigFile = None,
) -> None:
    """Say how the daemon is: would it take mail now, how much comes, what waits, what is down, what went wrong.

    Rates are those of the last minute; reasons and errors are counted since the daemon started.

    For example:
      mailgate status
      mailgate status --watch --every 5s
      mailgate status --json | jq .in_spool

    Exit status: 0 it would take mail, 1 it would not, or does not answer, 2 usage.
    """
    pause = seconds(every, "--every")
    if pause < _SHORTEST:
        raise typer.BadParameter(f"{every!r} is too short: {_SHORTEST:g}s is the shortest", param_hint="--every")
    read = read_config(config)[0]
    if watch:
        _watch(read, pause, as_json=as_json)
        return
    try:
        tree = page(read, "/status")
    except Silent as error:
        raise fail(_silent(read, error)) from None
    if as_json:
        objects([tree])
    else:
        _print(lines_of(tree, time.time()))
        _offenders(tree["offenders"])
    if not tree["ready"]:
        raise typer.Exit(FAILED)


def _silent(config: Config, error: Silent) -> str:
    return f"http.listen: {config.http.listen} does not answer: {error}"


def _watch(config: Config, pause: float, *, as_json: bool) -> None:
    with _screen(as_json=as_json) as screen:
        while True:
            try:
                tree = page(config, "/status")
            except Silent as error:
                tree = {"ready": False, "trouble": _silent(config, error)}
            screen(tree)
            time.sleep(pause)


@contextmanager
def _screen(*, as_json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What shows a tree: on a terminal in the place of the one before, else behind it."""

    def show(tree: dict[str, Any]) -> None:
        if live:
            live.update(Group(*(one.coloured() for one in lines_of(tree, time.time()))), refresh=True)
        elif as_json:
            objects([tree])
        else:
            _print([*lines_of(tree, time.time()), Line("")])
        sys.stdout.flush()

    with ExitStack() as stack, suppress(KeyboardInterrupt):  # it was watched for as long as it was wanted
        live = None
        if sys.stdout.isatty() and not as_json:
            live = stack.enter_context(Live(console=Console(highlight=False), screen=True, auto_refresh=False))
        yield show


def _print(lines: list[Line]) -> None:
    if sys.stdout.isatty():
        console = Console(highlight=False)
        for one in lines:
            console.print(one.coloured())
        return
    for one in lines:
        line(str(one))


def _offenders(offenders: list[dict[str, Any]]) -> None:
    if not offenders:
        return
    line("\nover a limit most often:")
    table(_OFFENDERS, ([one["limit"], one["key"], str(one["refused"]), f"{one['used']:.0%}"] for one in offenders))
