"""`mailgate networks add|remove`: mailgate's own file of networks, for what can't wait for the site's list."""

# ruff: noqa: PLC0415

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from mailgate.cli.options import ConfigFile, Yes, read_config, until
from mailgate.cli.output import NOTHING, USAGE, agreed, counted, fail, line, say, stamp
from mailgate.config import Config
from mailgate.core.located import Broken
from mailgate.core.networks import Span, said, span, touches

_Networks = Annotated[
    list[str], typer.Argument(metavar="NETWORK…", help="As 192.0.2.0/24, 2001:db8::7 or 192.0.2.1-192.0.2.9.")
]
_LARGE = {4: 2**16, 6: 2**96}  # addresses: a /16, a /32


def add(
    given: _Networks,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever wonders. Required.", show_default=False)
    ],
    duration: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long: 2d, 12h, ….", show_default="until removed")
    ] = "",
    yes: Yes = False,
    config: ConfigFile = None,
) -> None:
    """List networks in mailgate's own file; a running daemon acts on it within seconds.

    A network that is in the file already gets the new reason and time. The file (networks.own_file) is plain text.

    For example:
      mailgate networks add 192.0.2.0/24 --for 2d --reason 'subscription bombing, T1234'

    Exit status: 0 listed, 1 failed, 2 usage.
    """
    from mailgate.edge.networks import own

    if not reason.strip() or not reason.isprintable():
        raise fail("--reason: say why, in one line", USAGE)
    read, _ = read_config(config)
    now = time.time()
    expires = int(until(duration, "--for", now)) if duration else 0
    spans = [_span(text) for text in given]
    if large := [text for text, one in zip(given, spans, strict=True) if one.last - one.first >= _LARGE[one.family]]:
        agreed(f"add: {', '.join(large)} is very large", yes=yes)
    try:
        change = own.add(read.networks.own_file, spans, reason.strip(), expires, now)
    except (OSError, Broken) as error:
        raise _failed(read, error) from None
    for text in change.gone:
        say(f"was: {text}")
    line(f"{read.networks.own_file}: lists {_said(spans)}{f' until {stamp(expires)}' if expires else ''}")
    for spared in read.spam.skip_networks:
        if any(touches(one, spared) for one in spans):
            say(f"mailgate: mail from {spared} is taken all the same: it is in spam.skip_networks")


def remove(given: _Networks, config: ConfigFile = None) -> None:
    """Take networks out of mailgate's own file: just these, not what lies in them.

    Networks of other files stay: `mailgate networks check` says where they are listed.

    For example:
      mailgate networks remove 192.0.2.0/24

    Exit status: 0 removed, 1 failed, 2 usage, 3 one of them is not in it.
    """
    from mailgate.edge.networks import own

    read, _ = read_config(config)
    spans = [_span(text) for text in given]
    try:
        change = own.remove(read.networks.own_file, spans, time.time())
    except (OSError, Broken) as error:
        raise _failed(read, error) from None
    for text in change.gone:
        line(f"removed: {text}")
    if change.expired:
        say(f"{counted(change.expired, 'line')} had expired, and went as well")
    if change.missing:
        raise fail(f"{read.networks.own_file} does not list {_said(change.missing)}", NOTHING)


def _span(text: str) -> Span:
    try:
        return span(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _said(spans: Sequence[Span]) -> str:
    return ", ".join(map(said, spans))


def _failed(config: Config, error: Exception) -> typer.Exit:
    return fail(f"{config.networks.own_file}: {error.strerror if isinstance(error, OSError) else error}")


def add_to(app: typer.Typer) -> None:
    """Put the verbs into their group."""
    app.command()(add)
    app.command()(remove)
