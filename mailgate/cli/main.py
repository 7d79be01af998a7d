"""The verbs' root: `serve` and `check-config`, and the groups of other modules."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from typer.core import TyperOption

import mailgate
from mailgate import config as configuration
from mailgate.cli import (
    explain,
    networks,
    networks_change,
    networks_export,
    pause,
    queue_change,
    queue_look,
    spool,
    status,
    trace,
    unscored,
)
from mailgate.cli.options import ConfigFile, read_config
from mailgate.cli.output import FAILED, finish, say
from mailgate.config.remarks import remarks
from mailgate.ports import SpoolError

app = typer.Typer(
    name="mailgate",
    help="The mail gate between Exim 4 and GNU Mailman 3: a relay that loses nothing.",
    epilog="Each command finds its configuration by --config FILE, else MAILGATE_CONFIG, else"
    " /etc/mailgate/mailgate.toml. Exit status: 0 done, 1 failed, 2 usage, 3 nothing matched.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mailgate {mailgate.__version__}")
        raise typer.Exit


@app.callback()
def root(
    *, version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it.")] = False
) -> None:
    """The root of all verbs."""


@app.command()
def serve(config: ConfigFile = None) -> None:
    """Run the daemon in the foreground (systemd starts it so).

    SIGTERM answers what is in flight and ends. SIGHUP reads the configuration again; what needs a restart is said.
    """
    from mailgate import daemon  # noqa: PLC0415  no other verb needs the doors

    read, file = read_config(config)
    try:
        daemon.serve(read, file)
    except daemon.StartError as error:
        say(f"mailgate: {error}")
        raise typer.Exit(1) from None


@app.command("check-config")
def check_config(config: ConfigFile = None) -> None:
    """Say whether `serve` could run with this configuration: every problem with its key, exit 1 if there is one."""
    read, file = read_config(config)
    for remark in remarks(file):
        say(f"mailgate: {remark}")
    problems = [*configuration.surroundings(read), *networks.problems(read)]
    for problem in problems:
        say(f"mailgate: {file}: {problem}")
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{file}: ok")


app.command()(explain.explain)
queue_change.add_to(queue_look.app)
app.add_typer(queue_look.app, name="queue")
app.command()(status.status)
app.command()(trace.trace)
app.command()(pause.pause)
app.command()(pause.resume)
app.add_typer(spool.app, name="spool")
app.add_typer(unscored.app, name="unscored")
networks_change.add_to(networks.app)
networks_export.add_to(networks.app)
app.add_typer(networks.app, name="networks")


def _command() -> Callable[[], object]:
    """The verbs as click has them, without two habits of typer's: it makes one line of all examples, and speaks of an
    environment variable in each usage error.
    """
    command = typer.main.get_command(app)
    commands = [command]
    while commands:
        one = commands.pop()
        commands += getattr(one, "commands", {}).values()
        one.help = (one.help or "").replace("\n\nFor example:", "\n\n\bFor example:")  # \b: as the lines are
        for parameter in one.params:
            if isinstance(parameter, TyperOption):
                parameter.show_envvar = False
    return command


def main() -> None:
    """The entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the locale can't write is still no reason to end
    status: str | int | None = 0
    try:
        _command()()
    except SystemExit as end:  # click's
        status = end.code
    except SpoolError as error:
        say(f"mailgate: {error}")
        status = FAILED
    finally:
        heard = finish()
    sys.exit(status if heard else status or FAILED)
