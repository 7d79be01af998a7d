"""`mailgate spool backup|verify|adopt`: looking after the file itself."""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailgate.cli.options import ConfigFile, DryRun, Json, Yes, opened, read_config
from mailgate.cli.output import DONE, NOTHING, Bar, agreed, counted, fail, line, objects, say
from mailgate.core.envelope import printable
from mailgate.core.units import said_octets

if TYPE_CHECKING:
    from mailgate.edge.spool.upkeep import Finding

app = typer.Typer(
    no_args_is_help=True, help="Look after the spool's file: copy, check, take over. The daemon may be running."
)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; it must not be there yet.")],
    config: ConfigFile = None,
) -> None:
    """Copy the spool into one file, consistent even while mail comes in. It is there whole or not at all.

    The copy is marked as one: no gate replays it before `mailgate spool adopt`. To put it back, stop the
    daemon and copy it to the place of the spool's file (spool.url), without -wal and -shm files beside it.

    For example:
      mailgate spool backup /var/backups/mailgate-$(date +%F).db

    Exit status: 0 written, 1 failed, 2 usage.
    """
    from mailgate.edge.spool import upkeep

    if os.path.lexists(target):
        raise fail(f"{target}: is there already")
    with opened(read_config(config)[0]) as database, Bar("copying", None) as bar:
        upkeep.backup(database, target, bar.reached)
    line(f"{target}: {said_octets(target.stat().st_size)}")


@app.command()
def verify(as_json: Json = False, config: ConfigFile = None) -> None:
    """Read everything in the spool and compare it with the checksums it was stored with: a line for each finding.

    Damaged messages are set aside (state corrupt: never sent, kept for you to look at); what was set aside
    and is whole after all is put on hold.

    For example:
      mailgate spool verify

    Exit status: 0 all is well, 1 something was found, or failed, 2 usage.
    """
    from mailgate.edge.spool import upkeep

    with opened(read_config(config)[0]) as database, Bar("verifying", None) as bar:
        count = _report(upkeep.verify(database, bar.reached), as_json=as_json)
    if count:
        raise fail(f"{counted(count, 'finding')}")
    say("all is well")


def _report(findings: Iterator[Finding], *, as_json: bool) -> int:
    count = 0
    for one in findings:
        count += 1
        if as_json:
            objects([{"id": one.id, "problem": one.problem, "done": one.done}], vital=True)
        else:
            done = f" ({one.done})" if one.done else ""
            line(printable(f"{one.id or 'the file'}: {one.problem}{done}"), vital=True)
    return count


@app.command()
def adopt(
    yes: Yes = False,
    dry_run: DryRun = False,
    untouched: Annotated[
        bool,
        typer.Option(
            "--untouched",
            help="The other gate is known to have delivered nothing since the copy was made: don't mark anything"
            " as uncertain.",
        ),
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Make a spool that came from elsewhere (a backup, another host) this gate's own, so that it is replayed.

    The gate it comes from may have delivered since what is in it: unless --untouched says otherwise, all that
    waits is marked as uncertain. Make sure that the other gate never runs on the same messages again.

    For example:
      mailgate spool adopt --dry-run
      mailgate spool adopt --yes

    Exit status: 0 adopted, 1 failed, 2 usage, 3 it is this gate's own already.
    """
    from mailgate.edge.spool import control, query, upkeep

    with opened(read_config(config)[0]) as database:
        foreign = database.read(lambda connection: control.foreign(connection, database.owner_mark))
        if not foreign:
            raise fail("the spool is this gate's own already", NOTHING)
        say(foreign)
        counts = database.read(query.counts)
        waiting = sum(counts.recipients[state] for state in ("pending", "uncertain", "held", "failed"))
        doubt = "" if untouched else ", each marked as uncertain (may have been delivered)"
        words = f"adopt: {counted(waiting, 'recipient')} will be this gate's{doubt}"
        if dry_run:
            say(words)
            say("nothing was changed (--dry-run)")
            raise typer.Exit(DONE)
        agreed(words, yes=yes)
        marked = upkeep.adopt(database, uncertain=not untouched)
    line(f"adopted; {counted(marked, 'recipient')} newly marked as uncertain")
