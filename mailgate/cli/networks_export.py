"""`mailgate networks export`: the lists for Exim, the firewall and web servers, once or kept current."""

# ruff: noqa: PLC0415

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailgate.cli.options import ConfigFile, last_table, read_config
from mailgate.cli.output import NOTHING, USAGE, counted, fail, line, say
from mailgate.config import Config
from mailgate.core import network_exports
from mailgate.core.networks import NetworkSet, nobodys

if TYPE_CHECKING:
    from mailgate.core.network_table import ListFile, Table

_LOOK = 1.0  # seconds between two looks at the files
_MODE = 0o644


def export(
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help=", ".join(network_exports.FORMATS), show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write it there, whole or not at all.")
    ] = None,
    contexts: Annotated[
        list[str] | None,
        typer.Option("--context", metavar="NAME", help="All sets for this context.", show_default="what mail rejects"),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the set in the file.")] = "blocked_nets",
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and write it anew when it changes.")] = False,
    config: ConfigFile = None,
) -> None:
    """The lists in the words of another program: what mailgate itself rejects, or what is for --context.

    Networks of spam.skip_networks are left out, so are those that have expired. A file that can't be used
    counts as it was before; where that is not known, nothing is written. Nor is anything for a --context that no
    set names, where sets name any. With --watch the file is written each time that it would differ, until it is
    stopped.

    For example:
      mailgate networks export --format exim --output /etc/exim4/blocked_nets --watch
      mailgate networks export --format nftables --context ferm | nft -f -

    Exit status: 0 written, 1 failed, 2 usage, 3 no set is for a --context.
    """
    if form not in network_exports.FORMATS:
        raise fail(f"--format: one of {', '.join(network_exports.FORMATS)}", USAGE)
    if watch and output is None:
        raise fail("--watch: wants --output FILE", USAGE)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,30}", name):
        raise fail("--name: a letter, then letters, digits and _", USAGE)
    if network_exports.is_taken(form, name):
        raise fail(f"--name: {name}: a word of {form}'s own", USAGE)
    read, _ = read_config(config)
    export = _Export(read, form, name, frozenset(contexts or ()))
    export.begin()
    if output is None:
        line(export.text().rstrip("\n"))
        return
    try:
        export.write(output)
        while watch:
            time.sleep(_LOOK)
            export.write(output)
    except OSError as error:
        raise fail(f"{output}: {error.strerror}") from None
    except KeyboardInterrupt:
        return


class _Export:
    def __init__(self, config: Config, form: str, name: str, contexts: frozenset[str]) -> None:
        self._config = config
        self._form = form
        self._name = name
        self._contexts = contexts
        self._wanted = _for_contexts(contexts) if contexts else _rejected(config)
        self._versions: dict[str, str] = {}
        self._table: Table | None = None
        self._until: tuple[Table | None, float] = None, 0.0  # what was written last, and for how long that is true

    def begin(self) -> None:
        """See whether there is anything to go by; else it fails, before a good file is replaced by less."""
        table = self._current()
        unknown = [one.name for one in table.files if one.broken and not one.read]
        if unknown:
            raise fail(f"nothing is written: what these listed before is not known: {', '.join(unknown)}")
        if missing := nobodys(self._contexts, table.sets):
            raise fail(f"nothing is written: no set is for --context {', '.join(missing)}", NOTHING)

    def text(self) -> str:
        """What is to be in the file now."""
        found = network_exports.spans(self._current(), self._wanted, self._config.spam.skip_networks, time.time())
        return network_exports.text(self._form, found, self._name)

    def write(self, file: Path) -> None:
        """Write it, if it is not what the file holds."""
        from mailgate.edge.networks.writing import write

        table, now = self._current(), time.time()
        if table is self._until[0] and now < self._until[1] and file.exists():
            return
        self._until = table, min((at for at in table.expiries if at > now), default=float("inf"))
        text = self.text()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write(file, text.encode(), _MODE)
            line(f"{file}: {counted(text.count(chr(10)), 'line')}", vital=True)

    def _current(self) -> Table:
        """The table of the files as they are, made anew when one of them has changed and is left alone again."""
        from mailgate.core.network_table import Table
        from mailgate.edge.networks import making, sources_of

        sources = sources_of(self._config)
        versions = sources.versions()
        settled, self._versions = versions == self._versions or self._table is None, versions
        known = {one.name: one.version for one in self._table.files} if self._table else None
        if self._table is None or (settled and versions != known):
            before = self._table or last_table(self._config)
            self._table = Table(making.made(sources, before, time.time()))
            for one in self._table.files:
                if one.broken:
                    say(f"mailgate: {one.name}: {one.broken} ({_counts(one)})")
        return self._table


def _counts(one: ListFile) -> str:
    return "it counts as it was before" if one.read else "nothing of it counts"


def _for_contexts(contexts: frozenset[str]) -> Callable[[NetworkSet], bool]:
    return lambda one: one.is_for(contexts)


def _rejected(config: Config) -> Callable[[NetworkSet], bool]:
    return lambda one: config.networks.policy.action_of(one) == "reject"


def add_to(app: typer.Typer) -> None:
    """Put the verb into its group."""
    app.command()(export)
