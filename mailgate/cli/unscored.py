"""`mailgate unscored list`: the declaration; what it does is beside, and imported when it is run."""

# ruff: noqa: PLC0415

from __future__ import annotations

import time
from typing import Annotated

import typer

from mailgate.cli.options import ConfigFile, Json, moment, not_blank, opened, read_config
from mailgate.cli.queue_options import ListGlob

app = typer.Typer(
    no_args_is_help=True,
    help="The ledger of posts that have no spam score because no scorer gave one. The daemon may be running or not.",
)

Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        callback=not_blank,
        metavar="WHEN",
        help="Received since: 90m or 2d ago, 2026-11-22, 2026-11-22T03:10.",
        show_default=False,
    ),
]
Until = Annotated[
    str | None,
    typer.Option("--until", callback=not_blank, metavar="WHEN", help="Received before.", show_default=False),
]
Everything = Annotated[
    bool,
    typer.Option("--all", help="Also what did not go on unscored: it waits, was scored in the spool, or was dropped."),
]
OnlyOutages = Annotated[bool, typer.Option("--outages", help="Only the outages: when, how many posts, and why.")]


@app.callback()
def group() -> None:
    """Keep `list` a verb of its own."""


@app.command("list")
def list_(
    since: Since = None,
    until: Until = None,
    recipient: ListGlob = None,
    everything: Everything = False,
    only_outages: OnlyOutages = False,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """List the posts that went to Mailman without a spam score because no scorer gave one, outage by outage.

    A row is a recipient (with --json an object is a post). Its state is delivered, or uncertain: the connection
    or the gate broke off, Mailman may have it. With --all it may also be scored (in the spool, before it went
    on) or a state of the queue. Mail that policy does not have scored is not listed.
    An outage lasts until posts are scored again, and for a minute none is unscored.

    For example:
      mailgate unscored list --since 2d
      mailgate unscored list --since 2026-11-22T03:00 --list 'announce@*'
      mailgate unscored list --outages
      mailgate unscored list --json | jq -r '.outage + " " + .message_id'

    Exit status: 0 listed, 1 failed, 2 usage, 3 nothing matched.
    """
    from mailgate.cli.unscored_list import show_outages, show_posts
    from mailgate.edge.spool.outages import Choice

    now = time.time()
    choice = Choice(
        since=moment(since, "--since", now) if since else None,
        until=moment(until, "--until", now) if until else None,
        recipient=recipient or "",
        everything=everything,
    )
    with opened(read_config(config)[0]) as database:
        if only_outages:
            show_outages(database, choice, as_json=as_json)
        else:
            show_posts(database, choice, now, as_json=as_json)
