"""Events without the local parts of addresses, for logs that more people read than may know who writes to whom.

Promise: wherever in an event an address stands, its local part is not there any more, and with it what VERP wrote into
it; an address without a domain ("postmaster") is gone as a whole. Ids and Message-IDs stay: they are what a message is
found by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_KEPT = frozenset({"id", "exim_id", "message_id", "verdict_id", "ids"})
_PEOPLE = frozenset({"user", "sender", "recipients", "lists", "uncertain_before"})  # addresses that may have no domain
_BARE = re.compile(r"(MAIL FROM:|RCPT TO:)?<([^<>@]+)>", re.IGNORECASE)
_ENDS = ' \t\r\n<>()[],;:"'  # of what can't be a part of a local part that is not quoted (RFC 5321 §4.1.2)


def redacted(fields: Mapping[str, object]) -> dict[str, object]:
    """The same fields, each address as "*@example.org"."""
    bare = frozenset(name.lower() for key in _PEOPLE for name in _names(fields.get(key)) if "@" not in name)
    hidden = {
        key: value if key in _KEPT else _people(value, bare) if key in _PEOPLE else _hidden(value, bare)
        for key, value in fields.items()
    }
    for key in ("user", "sender"):  # the one address that it is, whatever stands in it
        if name := fields.get(key):
            hidden[key] = _address(str(name))
    return hidden


def _names(people: object) -> Iterable[str]:
    return (people,) if isinstance(people, str) else map(str, people) if isinstance(people, Iterable) else ()


def _address(name: str) -> str:
    return "*" + "".join(name.rpartition("@")[1:]) if "@" in name else "*"


def _people(people: object, bare: frozenset[str]) -> object:
    """Names of recipients or lists, or what is said of each."""
    if isinstance(people, Mapping):
        return _apart({key: _text(key, bare) if "@" in key else "*" for key in map(str, people)}, people, bare)
    if isinstance(people, list | tuple):
        return [_text(name, bare) if "@" in name else "*" for name in map(str, people)]
    return _hidden(people, bare)


def _hidden(value: object, bare: frozenset[str]) -> object:
    if isinstance(value, str):
        return _text(value, bare)
    if isinstance(value, list | tuple):
        return [_hidden(one, bare) for one in value]
    if isinstance(value, Mapping):
        return _apart({key: _text(key, bare) for key in map(str, value)}, value, bare)
    return value


def _apart(names: Mapping[str, str], mapping: Mapping[str, object], bare: frozenset[str]) -> dict[str, object]:
    """Its values under their hidden `names`. Two recipients are two, even if they are not told apart any more."""
    found: dict[str, object] = {}
    for key, value in mapping.items():
        name, number = names[str(key)], 1
        _, at, domain = name.rpartition("@")
        while name in found:
            number += 1
            name = f"*{number}{at}{domain if at else ''}"
        found[name] = _hidden(value, bare)
    return found


def _text(text: str, bare: frozenset[str]) -> str:
    """A text without the local parts in it, and without what of `bare` stands in it as an address."""
    if "<" in text:
        text = _BARE.sub(
            lambda found: f"{found[1] or ''}<*>" if found[1] or found[2].lower() in bare else found[0], text
        )
    *pieces, last = text.split("@")
    return "@".join([*map(_without_local_part, pieces), last])


def _without_local_part(before: str) -> str:
    """What stands before an @, but for the local part at its end."""
    if before.endswith('"'):
        start = before.rfind('"', 0, -1)
        while start > 0 and before[start - 1] == "\\":
            start = before.rfind('"', 0, start)
        return before[: max(start, 0)] + "*"
    return before[: 1 + max(map(before.rfind, _ENDS))] + "*"
