"""`mailgate networks list|check|reload`: what is listed, what that does, and whether the daemon knows of it."""

# ruff: noqa: PLC0415

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from mailgate.cli.daemon_page import asked
from mailgate.cli.options import ConfigFile, Json, last_table, read_config
from mailgate.cli.output import NOTHING, Column, ago, counted, fail, line, note, objects, say, stamp, table
from mailgate.config import Config
from mailgate.core import spam
from mailgate.core.located import Broken
from mailgate.core.network_lists import Bad, Entry
from mailgate.core.networks import NetworkSet, Span, networks, nobodys, span, within
from mailgate.core.origin import address

app = typer.Typer(no_args_is_help=True, help="The lists of abusive networks. The daemon may be running.")

_SETS = (
    Column("SET"),
    Column("NETWORKS", right=True),
    Column("CONTEXTS", rank=2),
    Column("ACTION"),
    Column("HITS", rank=1, right=True),
    Column("READ", rank=3),
    Column("FILE", rank=4, folds=True),
)
_FOUND = (
    Column("ADDRESS"),
    Column("SET"),
    Column("NETWORK"),
    Column("ACTION"),
    Column("CONTEXTS", rank=1),
    Column("EXPIRES", rank=3),
    Column("WHERE", rank=2, folds=True),
    Column("COMMENT", rank=4, folds=True),
)
_WAIT = 10.0  # seconds until the daemon must have a new table


@app.command("list")
def list_(as_json: Json = False, config: ConfigFile = None) -> None:
    """What is in force: each set with its networks, its action, and how often mail came from there.

    Without a running daemon, what it would read. HITS are counted since the daemon started. What can't be
    used of a file is said, and why.

    For example:
      mailgate networks list
      mailgate networks list --json | jq 'select(.hits == 0)'

    Exit status: 0 done, 1 failed, 2 usage, 3 nothing is listed.
    """
    read, _ = read_config(config)
    running = asked(read, "/networks")
    said = running or _would_be(read)
    files = {one["file"]: one for one in said["files"]}
    if as_json:
        objects({**one, "read": files.get(one["file"], {}).get("read")} for one in said["sets"])
    else:
        table(_SETS, (_row(one, files.get(one["file"], {}), running=bool(running)) for one in said["sets"]))
    _say_troubles(said)
    if not running:
        note("the daemon does not answer: this is what it would read")
    if not said["sets"]:
        raise fail("nothing is listed", NOTHING)


def _row(one: dict[str, Any], file: dict[str, Any], *, running: bool) -> tuple[str, ...]:
    contexts = one["contexts"]
    return (
        one["set"],
        str(one["networks"]),
        "all" if contexts is None else ", ".join(contexts) or "none",
        one["action"] or "-",
        str(one["hits"]) if running else "-",
        stamp(file["read"]) if file.get("read") else "-",
        one["file"],
    )


def _say_troubles(said: dict[str, Any]) -> None:
    _say_failure(said)
    for one in said["files"]:
        if one["broken"]:
            since = f"what was read {ago(one['read'], time.time())} is in force" if one["read"] else "nothing of it is"
            say(f"mailgate: {one['file']}: {one['broken']} ({since})")
        for problem in one["problems"]:
            say(f"mailgate: {one['file']}: {problem} (skipped)")
        if one["skipped"] > len(one["problems"]):
            say(f"mailgate: {one['file']}: {one['skipped'] - len(one['problems'])} more are skipped")


def _say_failure(said: dict[str, Any]) -> None:
    """That the daemon goes by an older table than the files are, if it says so."""
    if said.get("failed"):
        made = f"what it made {ago(said['made'], time.time())} is in force" if said["made"] else "nothing is in force"
        say(f"mailgate: the daemon could not take the files as they are ({made}): {said['failed']}")


def _would_be(config: Config) -> dict[str, Any]:
    from mailgate.core.network_table import Table
    from mailgate.edge.networks import making, sources_of, status

    now = time.time()
    made = making.made(sources_of(config), last_table(config), now)
    return status(Table(made), config.networks.policy, {}, now)


@app.command()
def check(
    addresses: Annotated[list[str], typer.Argument(metavar="IP…", help="Addresses of clients.")],
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """What would happen to mail from these addresses, and why: every set, file and line that lists them.

    The files are read as they are now, also the sets of other contexts; of one that can't be used counts what it
    listed before. That the daemon could not take them as they are is said. Where a context stands for a layer that
    sees connections before mail does (networks.drift_contexts), mail from there means that this layer does not do
    what the list says.

    For example:
      mailgate networks check 192.0.2.7
      mailgate networks check 192.0.2.7 2001:db8::7 --json

    Exit status: 0 all of them are listed, 1 failed, 2 usage, 3 one of them is not.
    """
    read, _ = read_config(config)
    wanted = dict.fromkeys(map(_address, addresses))
    _say_failure(asked(read, "/networks"))
    found: dict[str, list[Entry]] = {ip: [] for ip in wanted}
    for ip, entry in _listing(read, {ip: span(ip) for ip in wanted}):
        found[ip].append(entry)
    rows = [_as_object(read, ip, entry) for ip, entries in found.items() for entry in entries]
    if as_json:
        objects(rows)
    else:
        table(_FOUND, (_found_row(row) for row in rows))
        for ip, entries in found.items():
            line(f"{ip}: {_outcome(read, ip, entries)}")
    if not all(found.values()):
        raise fail(f"not listed: {', '.join(ip for ip, entries in found.items() if not entries)}", NOTHING)


def _address(text: str) -> str:
    if not (found := address(text)):
        raise typer.BadParameter(f"{text!r} is not an IP address")
    return found


def _listing(config: Config, wanted: dict[str, Span]) -> Iterator[tuple[str, Entry]]:
    """Each of these addresses with each entry that lists it."""
    from mailgate.edge.networks import files, making, sources_of

    def found(said: Iterable[NetworkSet | Entry | Bad]) -> list[tuple[str, Entry]]:
        entries = (one for one in said if isinstance(one, Entry))
        return [(ip, entry) for entry in entries for ip, one in wanted.items() if within(one, entry.span)]

    room = files.Room()
    for name in sources_of(config).versions():
        try:
            yield from found(room.read(name))
        except Broken as error:
            before = last_table(config)
            kept = list(making.kept(name, before))
            room.sets, room.entries = room.sets + len({one.of for one in kept}), room.entries + len(kept)
            known = "what it listed before is in force" if making.read_before(name, before) else "nothing of it is"
            say(f"mailgate: {name}: {error} ({known})")
            yield from found(kept)


def _as_object(config: Config, ip: str, entry: Entry) -> dict[str, Any]:
    expired = 0 < entry.expires <= time.time()
    spared = spam.trusted(config.spam.skip_networks, ip)
    policy = config.networks.policy
    return {
        "address": ip,
        "set": entry.of.name,
        "network": ", ".join(map(str, networks(entry.span))),
        "action": "none" if expired or spared else policy.action_of(entry.of),
        "spared": spared,
        "drift": [] if expired or spared else list(policy.drifted([entry.of])),
        "contexts": None if entry.of.contexts is None else list(entry.of.contexts),
        "expires": entry.expires or None,
        "expired": expired,
        "file": entry.of.file,
        "line": entry.line or None,
        "comment": entry.comment or entry.of.comment,
    }


def _found_row(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["address"],
        row["set"],
        row["network"],
        row["action"] or "-",
        "all" if row["contexts"] is None else ", ".join(row["contexts"]) or "none",
        "-" if row["expires"] is None else ("expired" if row["expired"] else stamp(row["expires"])),
        f"{row['file']}:{row['line']}" if row["line"] else row["file"],
        row["comment"] or "-",
    )


def _outcome(config: Config, ip: str, entries: list[Entry]) -> str:
    """In words, what becomes of mail from there."""
    policy, now = config.networks.policy, time.time()
    if spam.trusted(config.spam.skip_networks, ip):
        return "mail is taken: it is in spam.skip_networks, whatever lists it"
    of = [one.of for one in entries if not 0 < one.expires <= now]
    strongest = policy.strongest(of)
    said = f"mail: {strongest[0]}" if strongest else "mail is taken"
    if strongest and strongest[0] in {"reject", "defer"}:
        said += f" where Exim asks first, else policy.reject_after_acceptance: {config.policy.reject_after_acceptance}"
    if others := policy.others(of):
        said += f"; also listed for {', '.join(others)}"
    drifted = policy.drifted(of)
    return said + (f"; {', '.join(drifted)} should have stopped it (drift)" if drifted else "")


@app.command()
def reload(config: ConfigFile = None) -> None:
    """Read all files anew, now. The daemon also does so by itself, seconds after one has changed.

    A file that can't be used leaves in force what it listed before.

    For example:
      mailgate networks reload

    Exit status: 0 done, 1 a file can't be used, or the daemon did not take it, 2 usage.
    """
    from mailgate.edge.networks import making, sources_of, status

    read, _ = read_config(config)
    try:
        made = making.make(sources_of(read), read.networks_table)
    except OSError as error:
        raise fail(f"{read.networks_table}: {error.strerror}") from None
    said = status(made, read.networks.policy, {}, made.made)
    _say_troubles(said)
    count = sum(one["networks"] for one in said["sets"])
    line(f"{counted(count, 'network')} in {counted(len(said['sets']), 'set')}: {_taken(read, made.made)}")
    if any(one["broken"] for one in said["files"]):
        raise fail("not all of it can be used")


def _taken(config: Config, made: float) -> str:
    until = time.monotonic() + _WAIT
    while said := asked(config, "/networks"):
        if (said["made"] or 0) >= made:
            return "in force"
        if time.monotonic() > until:
            raise fail("the daemon has not taken it: see its log for networks.failed")
        time.sleep(0.1)
    return "the daemon does not answer; it begins with this"


def problems(config: Config) -> Iterator[str]:
    """For check-config: each file that can't be used; single entries that are skipped are only said."""
    from mailgate.edge.networks import files, sources_of

    sets: list[NetworkSet] = []
    room = files.Room()
    for name in sources_of(config).versions():
        try:
            for one in room.read(name):
                if isinstance(one, Bad):
                    say(f"mailgate: {name}: line {one.line}: {one.problem} (skipped)")
                elif not isinstance(one, Entry):
                    sets.append(one)
        except Broken as error:
            yield f"networks.files: {name}: {error}"
    names = {one.name for one in sets}
    for name in dict(config.networks.policy.actions):
        if name not in names:
            say(f"mailgate: networks.actions: {name}: no file has a set of this name")
    for context in nobodys(config.networks.contexts, sets):
        say(f"mailgate: networks.contexts: {context}: no set is for this context")
