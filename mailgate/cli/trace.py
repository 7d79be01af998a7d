"""`mailgate trace`: the declaration; what it does is beside, and imported when it is run."""

# ruff: noqa: PLC0415

from __future__ import annotations

import time
from typing import Annotated

import typer

from mailgate.cli.options import ConfigFile, Json, moment, not_blank, opened, read_config
from mailgate.cli.unscored import Since

What = Annotated[
    str,
    typer.Argument(
        callback=not_blank,
        metavar="WHAT",
        help="Gate id, Exim's id, Message-ID; the address of a sender, a recipient or a list; @DOMAIN of senders; the"
        " client's IP address.",
    ),
]
Limit = Annotated[
    int,
    typer.Option("--limit", metavar="NUMBER", min=1, help="So many messages, those to which something happened last."),
]


def trace(what: What, since: Since = None, limit: Limit = 20, as_json: Json = False, config: ConfigFile = None) -> None:
    """Tell the whole story of a message, or of each that an address has to do with: where it came from, what was found
    out, the verdict with its reasons, each attempt to deliver it (with the dialogue, where that failed), what became of
    it in the spool, and what operators did to it. Also of what was rejected.

    What happened is kept for history.keep (14 days). It is written within two seconds, beside the mail; the daemon may
    be running or not, and a copy of the spool tells the same. With --since, messages to which something has happened
    since then.

    For example:
      mailgate trace 1vMhGk-0004sm-35
      mailgate trace 01m8112ytat08xvr1g --json
      mailgate trace announce@lists.test --since 2h
      mailgate trace @example.org --since 2026-11-22T03:00 --limit 100

    Exit status: 0 told, 1 failed, 2 usage, 3 nothing is known of it.
    """
    from mailgate.cli.trace_tell import tell
    from mailgate.edge.spool import tracing

    now = time.time()
    with opened(read_config(config)[0]) as database:
        found = tracing.find(database, what, moment(since, "--since", now) if since else 0.0, limit)
    tell(found, what, now, as_json=as_json)
