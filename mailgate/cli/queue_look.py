"""The `queue` verbs that change nothing: list, show, export, stats. Declarations; what they do is beside.

What they do is imported when they are run: the database's library takes longer to load than `--help` to print.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mailgate.cli.options import ConfigFile, Json, opened, read_config
from mailgate.cli.output import USAGE, fail
from mailgate.cli.queue_options import Ids, Limit, ListGlob, NewerThan, OlderThan, SenderGlob, State, filters

app = typer.Typer(
    no_args_is_help=True,
    help="What is in the spool, and what to do with it. Works with the daemon running or not.",
    epilog="A message has a gate id; state is kept for each recipient: pending (is tried by itself), uncertain"
    " (pending, but Mailman may have it already), held (waits for release), failed (refused, or too old), corrupt"
    " (content damaged, set aside), and as history delivered and dropped.",
)


class By(StrEnum):
    """What `stats` counts together."""

    LIST = "list"
    DOMAIN = "domain"


class Form(StrEnum):
    """What `export` writes."""

    EML = "eml"
    MBOX = "mbox"
    MAILDIR = "maildir"


@app.command("list")
def list_(
    ids: Ids = None,
    *,
    recipient: ListGlob = None,
    sender: SenderGlob = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    state: State = None,
    limit: Limit = None,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """List what is in the spool, oldest first: a row a recipient (with --json an object a message).

    Without ids or --state what is history (delivered, dropped) is left out.
    A terminal that is too narrow for all columns gets the most important ones.

    For example:
      mailgate queue list --list 'announce@*' --older-than 1h
      mailgate queue list --state failed,corrupt
      mailgate queue list --json | jq -r .id

    Exit status: 0 listed, 1 failed, 2 usage, 3 nothing matched.
    """
    from mailgate.cli.queue_list import show_list

    chosen = filters(ids, recipient, sender, older_than, newer_than, state, limit)
    with opened(read_config(config)[0]) as database:
        show_list(database, chosen, as_json=as_json)


@app.command()
def show(
    gate_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="Gate id, or its beginning or end, or Exim's id or the Message-ID."),
    ],
    header: Annotated[bool, typer.Option("--header", help="The header block.")] = False,
    body: Annotated[bool, typer.Option("--body", help="The body.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The whole message.")] = False,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """Show all that is known of one message, or its content.

    Content is written octet for octet; only on a terminal are control characters made visible.

    For example:
      mailgate queue show 50jz4q
      mailgate queue show 1vMhGk-0004sm-35
      mailgate queue show 50jz4q --raw >message.eml

    Exit status: 0 shown, 1 failed, 2 usage or not one message, 3 no such message.
    """
    from mailgate.cli.queue_show import show, show_octets

    if as_json and (header or body or raw):
        raise fail("--json is for the facts, not for the content", USAGE)
    with opened(read_config(config)[0]) as database:
        if header or body or raw:
            show_octets(database, gate_id, header=header or raw, body=body or raw)
        else:
            show(database, gate_id, as_json=as_json)


@app.command()
def export(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A directory (eml, maildir) or a file (mbox).")],
    ids: Ids = None,
    *,
    form: Annotated[Form, typer.Option("--format", help="What to write.")] = Form.EML,
    recipient: ListGlob = None,
    sender: SenderGlob = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    state: State = None,
    limit: Limit = None,
    config: ConfigFile = None,
) -> None:
    """Write messages into files; the spool is left as it is. Without ids and filters: all that have content.

    eml: TARGET/ID.eml, octet for octet, and TARGET/ID.json with the envelope.
    mbox: the file TARGET (mboxrd, LF line ends) and TARGET.jsonl with the envelopes.
    maildir: TARGET, made or added to, and TARGET/mailgate.jsonl with the envelopes.
    Nothing that is there already is overwritten.

    For example:
      mailgate queue export /root/before-drop --list 'announce@*'
      mailgate queue export /root/held.mbox --format mbox --state held

    Exit status: 0 all written, 1 some were not, 2 usage, 3 nothing matched.
    """
    from mailgate.cli.queue_export import export

    chosen = filters(ids, recipient, sender, older_than, newer_than, state, limit)
    with opened(read_config(config)[0]) as database:
        raise typer.Exit(export(database, target, form.value, chosen))


@app.command()
def stats(
    by: Annotated[By, typer.Option("--by", help="What to count together.")] = By.LIST,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """How many recipients wait, by list and by age in minutes; then the totals of all states.

    A list is counted with its -bounces, -owner and other addresses. A column holds what is at most that old.

    For example:
      mailgate queue stats
      mailgate queue stats --by domain --json

    Exit status: 0 something waits, 1 failed, 2 usage, 3 nothing waits.
    """
    from mailgate.cli.queue_list import show_stats

    with opened(read_config(config)[0]) as database:
        show_stats(database, by.value, as_json=as_json)
