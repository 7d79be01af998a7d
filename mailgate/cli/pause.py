"""`mailgate pause` and `mailgate resume`: whether anything goes to Mailman. Kept in the spool's file, which a running
daemon looks into each second, and which says it to one that is started later.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from mailgate.cli import options
from mailgate.cli.options import ConfigFile, opened, read_config
from mailgate.cli.output import NOTHING, USAGE, ago, fail, line, stamp
from mailgate.core.envelope import printable

if TYPE_CHECKING:
    from mailgate.edge.spool import Pause


def pause(
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever wonders. Required.", show_default=False)
    ],
    duration: Annotated[
        str,
        typer.Option("--for", metavar="TIME", help="Resume by itself after 2h, 30m, ….", show_default="until resume"),
    ] = "",
    config: ConfigFile = None,
) -> None:
    """Stop handing mail to Mailman: new mail is accepted into the spool, and what is there waits.

    A running daemon obeys within a second and finishes what it is just sending; the pause outlives a restart.
    While paused, pause again to change the reason or the time.

    For example:
      mailgate pause --reason 'Mailman upgrade' --for 2h
      mailgate pause --reason 'disk of the archive is full'

    Exit status: 0 paused, 1 failed, 2 usage.
    """
    from mailgate.edge.spool import control

    if not reason.strip():
        raise fail("--reason: say why", USAGE)
    now = time.time()
    until = options.until(duration, "--for", now) if duration else None
    with opened(read_config(config)[0]) as database:
        was = database.read(lambda connection: control.paused(connection, now))
        database.write(lambda connection: control.pause(connection, reason, until, now), "pausing")
    if was:
        line(f"was paused since {_said(was, now)}: replaced")
    end = f"until {stamp(until)} ({ago(until, now)})" if until is not None else "until mailgate resume"
    line(f"paused {end}: {printable(reason)}")


def resume(config: ConfigFile = None) -> None:
    """End the pause: what waits is replayed, oldest first, and new mail goes to Mailman again.

    For example:
      mailgate resume

    Exit status: 0 resumed, 1 failed, 2 usage, 3 was not paused.
    """
    from mailgate.edge.spool import control

    now = time.time()
    with opened(read_config(config)[0]) as database:
        was = database.write(lambda connection: control.resume(connection, now), "resuming")
    if not was:
        raise fail("not paused", NOTHING)
    line(f"resumed; was paused since {_said(was, now)}")


def _said(pause: Pause, now: float) -> str:
    until = f", until {stamp(pause.until)}" if pause.until is not None else ""
    return f"{stamp(pause.since)} ({ago(pause.since, now)}){until}: {printable(pause.reason)}"
