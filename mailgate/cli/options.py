"""What every verb takes, and the spool's file opened for one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailgate import config as configuration
from mailgate.cli.output import FAILED, say
from mailgate.config import Config, ConfigError
from mailgate.core import units

if TYPE_CHECKING:
    from mailgate.edge.spool import Database

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="The configuration file.", show_default="/etc/mailgate/mailgate.toml"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line; times in seconds since 1970.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Show exactly what would be done, and change nothing.")]


def seconds(text: str, option: str) -> float:
    """The duration given with `option`; else a usage error that says how one is written."""
    try:
        return units.seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


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
