"""The `queue` verbs that change something: replay, hold, release, drop. Declarations; what they do is beside."""

# ruff: noqa: PLC0415

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailgate.cli.options import ConfigFile, DryRun, Json, Yes, opened, read_config, seconds
from mailgate.cli.queue_options import (
    All,
    Filters,
    Ids,
    Limit,
    ListGlob,
    Manner,
    NewerThan,
    OlderThan,
    SenderGlob,
    State,
    filters,
    must_be_meant,
    rate,
)

if TYPE_CHECKING:
    from mailgate.cli.queue_act import Act

Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Kept as the last reply, for `show`.", show_default=False)
]
Wait = Annotated[
    bool | None,
    typer.Option(
        "--wait/--no-wait",
        help="Stay until the daemon has tried all of it; without it only where there is a terminal.",
        show_default=False,
    ),
]
Patience = Annotated[
    str,
    typer.Option(
        "--for",
        metavar="TIME",
        help="Go on for so long, also while Mailman is not reached. Without it, that ends it.",
        show_default=False,
    ),
]
Pace = Annotated[
    str, typer.Option("--rate", metavar="N/s", help="At most so many messages a second.", show_default=False)
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="A line also for each that was delivered.")]


def replay(
    ids: Ids = None,
    *,
    recipient: ListGlob = None,
    sender: SenderGlob = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    state: State = None,
    limit: Limit = None,
    everything: All = False,
    wait: Wait = None,
    patience: Patience = "",
    pace: Pace = "",
    verbose: Verbose = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """Try again now what waits, and say what became of it.

    With the daemon running, what matches is made due and the daemon delivers it; without it, this command does.
    Without ids or --state it is for what is pending or uncertain; name what failed to have it tried as well.
    What is held is for `release`. Nothing happens while deliveries are paused.

    For example:
      mailgate queue replay --all
      mailgate queue replay --list 'announce@*' --rate 20/s
      mailgate queue replay --state failed --newer-than 1d --dry-run

    Exit status: 0 all delivered (or made due, with --no-wait), 1 not all, 2 usage, 3 nothing matched.
    """
    from mailgate.cli.queue_replay import replay

    chosen = filters(ids, recipient, sender, older_than, newer_than, state, limit)
    must_be_meant(chosen, everything=everything)
    stays = wait if wait is not None else sys.stdout.isatty() or bool(patience)
    manner = Manner(
        wait=stays,
        patience=seconds(patience, "--for") if patience else 0.0,
        rate=rate(pace) if pace else 0.0,
        dry=dry_run,
        as_json=as_json,
        every=verbose,
    )
    raise typer.Exit(replay(read_config(config)[0], chosen, manner))


def hold(
    ids: Ids = None,
    *,
    recipient: ListGlob = None,
    sender: SenderGlob = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    state: State = None,
    limit: Limit = None,
    everything: All = False,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """Keep messages from being tried, until they are released.

    Held messages are kept for as long as it takes. What is being tried this moment is left alone, and said.

    For example:
      mailgate queue hold --list 'announce@*' --reason 'moderators asked'
      mailgate queue hold --sender '*@spammer.example' --dry-run

    Exit status: 0 done, 1 some could not be held, 2 usage, 3 nothing matched.
    """
    from mailgate.cli.queue_act import HOLD

    chosen = filters(ids, recipient, sender, older_than, newer_than, state, limit)
    _act(HOLD, chosen, everything, config, yes=True, dry_run=dry_run, as_json=as_json, reason=reason)


def release(
    ids: Ids = None,
    *,
    recipient: ListGlob = None,
    sender: SenderGlob = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    state: State = None,
    limit: Limit = None,
    everything: All = False,
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """Let held messages go: they are due at once, and their lifetime begins anew.

    Failed ones are released only if ids or --state name them. More than one message needs a yes:
    what has gone out to a list can't be called back.

    For example:
      mailgate queue release 50jz4q
      mailgate queue release --list 'announce@*' --yes

    Exit status: 0 done, 1 some could not be released, 2 usage, 3 nothing matched.
    """
    from mailgate.cli.queue_act import RELEASE

    chosen = filters(ids, recipient, sender, older_than, newer_than, state, limit)
    _act(RELEASE, chosen, everything, config, yes=yes, dry_run=dry_run, as_json=as_json, reason=reason)


def drop(
    ids: Ids = None,
    *,
    recipient: ListGlob = None,
    sender: SenderGlob = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    state: State = None,
    limit: Limit = None,
    everything: All = False,
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """Throw messages away for good: nobody gets them, and nobody is told.

    Only the recipients that match are dropped; the content goes with the last one of a message.
    It says what it is about to do and wants a yes; `mailgate queue export` first keeps a copy.

    For example:
      mailgate queue drop --sender '*@spammer.example' --dry-run
      mailgate queue drop 50jz4q --yes --reason 'spam run of Tuesday'

    Exit status: 0 done, 1 some could not be dropped, 2 usage, 3 nothing matched.
    """
    from mailgate.cli.queue_act import DROP

    chosen = filters(ids, recipient, sender, older_than, newer_than, state, limit)
    _act(DROP, chosen, everything, config, yes=yes, dry_run=dry_run, as_json=as_json, reason=reason)


def _act(
    what: Act,
    chosen: Filters,
    everything: bool,
    config: Path | None,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    reason: str,
) -> None:
    from mailgate.cli.queue_act import How, act

    must_be_meant(chosen, everything=everything)
    with opened(read_config(config)[0]) as database:
        raise typer.Exit(act(database, what, chosen, How(yes, dry_run, as_json, reason)))


def add_to(app: typer.Typer) -> None:
    """Put these verbs into the group."""
    for verb in (replay, hold, release, drop):
        app.command()(verb)
