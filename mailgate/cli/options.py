"""What every verb takes, and the spool's file opened for one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailgate import config as configuration
from mailgate.cli.output import FAILED, fail, say
from mailgate.config import Config, ConfigError
from mailgate.core import units

if TYPE_CHECKING:
    from mailgate.core.network_table import Table
    from mailgate.edge.spool import Database

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="The configuration file.", show_default="/etc/mailgate/mailgate.toml"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line; times in seconds since 1970.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
_LONGEST = 36525 * 86400.0  # seconds that a verb may have something last
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Show exactly what would be done, and change nothing.")]


def not_blank(option: typer.CallbackParam, text: str | None) -> str | None:
    """What is given has to say something: blank it would narrow nothing, and the verb would take all the rest."""
    if text is not None and not text.strip():
        raise typer.BadParameter("is empty: is a variable not set?", param_hint=option.opts[0])
    return text


def none_blank(option: typer.CallbackParam, texts: list[str] | None) -> list[str]:
    """The same for an option that may be repeated."""
    return [text for text in texts or () if not_blank(option, text)]


def seconds(text: str, option: str) -> float:
    """The duration given with `option`; else a usage error that says how one is written."""
    try:
        return units.seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def until(text: str, option: str, now: float) -> float:
    """The time (seconds since 1970) that a duration given with `option` ends at. Else a usage error."""
    found = seconds(text, option)
    if not 0 < found <= _LONGEST:
        raise typer.BadParameter(f"{text!r} is no time at all, or longer than a hundred years", param_hint=option)
    return now + found


def moment(text: str, option: str, now: float) -> float:
    """The time (seconds since 1970) given with `option`: a duration, so long ago, or a date with or without a time of
    day, local unless it names its zone. Else a usage error that says how one is written.
    """
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text).timestamp()
    with contextlib.suppress(ValueError):
        return now - units.seconds(text)
    words = f"{text!r} is not a time: write it as in 90m, 2d, 2026-11-22 or 2026-11-22T03:10"
    raise typer.BadParameter(words, param_hint=option)


def read_config(file: Path | None) -> tuple[Config, Path]:
    """The configuration and its file, or exit 1 with a line for each problem."""
    found = configuration.find(file)
    try:
        return configuration.load(found), found
    except ConfigError as error:
        for problem in error.problems:
            say(f"mailgate: {problem}" if problem.startswith(str(found)) else f"mailgate: {found}: {problem}")
        raise typer.Exit(FAILED) from None


@contextlib.contextmanager
def opened(config: Config) -> Iterator[Database]:
    """The spool's file, open beside a daemon that may be using it. Raises SpoolError with words."""
    from mailgate.edge.spool import Database  # noqa: PLC0415  half a second that --help need not cost

    database = Database(config.spool.path, config.hostname, serve=False)
    try:
        yield database
    finally:
        database.close()


def last_table(config: Config) -> Table | None:
    """The networks that were in force last, None if there is no such table; exit 1 where it can't be read."""
    from mailgate.edge.networks import making  # noqa: PLC0415  as above

    try:
        return making.last(config.networks_table)
    except OSError as error:
        raise fail(f"{config.networks_table}: {error.strerror}") from None
