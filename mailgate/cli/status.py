"""`mailgate status`: what the daemon says of itself, for a terminal."""

from __future__ import annotations

from typing import Any

import typer

from mailgate.cli.daemon_page import Silent, page
from mailgate.cli.options import ConfigFile, Json, read_config
from mailgate.cli.output import FAILED, Column, fail, line, objects, table


def status(as_json: Json = False, config: ConfigFile = None) -> None:
    """Say whether the daemon would take mail now, what is broken, and who is over a limit most often.

    For example:
      mailgate status
      mailgate status --json | jq .offenders

    Exit status: 0 it would take mail, 1 it would not, or does not answer, 2 usage.
    """
    read, _ = read_config(config)
    try:
        told, offenders = page(read, "/readyz"), page(read, "/limits")["offenders"]
        broken = [one["file"] for one in page(read, "/networks")["files"] if one["broken"]]
    except (Silent, KeyError) as error:
        raise fail(f"http.listen: {read.http.listen} does not answer: {error}") from None
    told["networks"] = f"broken: {', '.join(broken)}" if broken else "ok"
    if as_json:
        objects([{**told, "offenders": offenders}])
    else:
        for key, value in told.items():
            line(f"{key}: {_said(value)}")
        _tell(offenders)
    if not told["ready"]:
        raise typer.Exit(FAILED)


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {'up' if up else 'down'}" for key, up in value.items()) or "none"
    return str(value) or "no"


def _tell(offenders: list[dict[str, Any]]) -> None:
    if not offenders:
        return
    line("\nover a limit most often:")
    columns = (Column("LIMIT"), Column("WHO", folds=True), Column("PUT OFF", right=True), Column("USED", right=True))
    table(columns, ([one["limit"], one["key"], str(one["refused"]), f"{one['used']:.0%}"] for one in offenders))
