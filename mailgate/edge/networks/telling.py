"""What is in force, for Prometheus and for `mailgate networks list`. Pure; any thread may ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mailgate.core.network_table import Table
from mailgate.core.networks import NetworkPolicy
from mailgate.edge.networks.files import Sources

if TYPE_CHECKING:
    from mailgate.config import Config  # the process that makes a table needs none, and is begun at each change

_Values = tuple[tuple[dict[str, str], float], ...]


def sources_of(config: Config) -> Sources:
    """The files that the configuration names."""
    return Sources(config.networks.files, config.networks.own_file)


def samples(table: Table | None, now: float) -> Iterator[tuple[str, str, _Values]]:
    """Gauges: name, help, labelled values."""
    if table is None:
        return
    entries: Counter[str] = Counter()
    for one, count in zip(table.sets, table.living(now), strict=True):
        entries[one.name] += count
    yield (
        "networks",
        "Networks in a set that have not expired",
        tuple(({"set": name}, float(count)) for name, count in entries.items()),
    )
    files = table.files
    ages = tuple(({"file": one.name}, max(now - one.read, 0.0)) for one in files if one.read)
    yield "network_list_age_seconds", "Since what is in force of a file was read", ages
    broken = tuple(({"file": one.name}, float(bool(one.broken))) for one in files)
    yield "network_list_broken", "1 while a file can't be used, and what it listed before is in force", broken
    bad = tuple(({"file": one.name}, float(one.bad)) for one in files)
    yield "network_list_skipped", "Entries of a file that can't be read and are skipped", bad


def status(table: Table | None, policy: NetworkPolicy, hits: Mapping[str, int], now: float) -> dict[str, Any]:
    """The same for people, as JSON has it."""
    if table is None:
        return {"made": None, "files": [], "sets": []}
    return {
        "made": table.made,
        "files": [
            {
                "file": one.name,
                "version": one.version,
                "read": one.read or None,
                "broken": one.broken,
                "skipped": one.bad,
                "problems": list(one.problems),
            }
            for one in table.files
        ],
        "sets": [
            {
                "set": one.name,
                "networks": living,
                "contexts": None if one.contexts is None else list(one.contexts),
                "action": policy.action_of(one),
                "hits": hits.get(one.name, 0),
                "file": one.file,
                "comment": one.comment,
            }
            for one, living in zip(table.sets, table.living(now), strict=True)
        ],
    }
