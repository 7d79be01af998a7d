"""Events without the local parts of addresses, for logs that more people read than may know who writes to whom.

Promise: wherever in an event an address stands, its local part is not there any more, and with it what VERP wrote into
it. Ids and Message-IDs stay: they are what a message is found by.
"""

from __future__ import annotations

from collections.abc import Mapping

_KEPT = frozenset({"id", "exim_id", "message_id", "verdict_id", "ids"})
_ENDS = ' \t\r\n<>()[],;:"'  # of what can't be a part of a local part that is not quoted (RFC 5321 §4.1.2)


def redacted(fields: Mapping[str, object]) -> dict[str, object]:
    """The same fields, each address as "*@example.org"."""
    hidden = {key: value if key in _KEPT else _hidden(value) for key, value in fields.items()}
    for key in ("user", "sender"):  # which may have no domain
        if name := fields.get(key):
            hidden[key] = "*" + "".join(str(name).rpartition("@")[1:]) if "@" in str(name) else "*"
    return hidden


def _hidden(value: object) -> object:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return [_hidden(one) for one in value]
    if isinstance(value, Mapping):
        return _apart(value)
    return value


def _apart(mapping: Mapping[str, object]) -> dict[str, object]:
    """Two recipients are two, even if they are not told apart any more."""
    found: dict[str, object] = {}
    for key, value in mapping.items():
        name, number = _text(str(key)), 1
        while name in found:
            number += 1
            name = f"*{number}@{_text(str(key)).rpartition('@')[2]}"
        found[name] = _hidden(value)
    return found


def _text(text: str) -> str:
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
