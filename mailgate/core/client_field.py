"""The X-Mailgate-Client header, in which our Exim's transport says whom a message comes from (DESIGN §7).

Duty: the client as Exim saw it, from a header of which the client chose parts (HELO, for one). Whatever stands in it,
reading it ends with values or none. A value that is said twice counts as said first, since what a stranger chose stands
behind what Exim knows. With a secret, only what carries the right `mac` was written by Exim.
"""

from __future__ import annotations

import hmac
import re

from mailgate.core import headers
from mailgate.core.envelope import printable

FIELD = b"x-mailgate-client"
_MOST = 4096  # octets of it that are read; a HELO has at most 512
# As ${quote:} of Exim writes it: bare, or in double quotes with \ before what is special.
_PAIR = re.compile(r'[\s;]*([A-Za-z][A-Za-z0-9-]*)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))(?=\s*(?:;|$))', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_CONTROLS = {"n": " ", "r": " ", "t": " "}  # ${quote:} writes \n for a line feed
_BARE = re.compile(r"[A-Za-z0-9._:-]*")
_MAC = b"; mac="


def values(head: bytes, secret: bytes = b"") -> dict[str, str]:
    """What the last X-Mailgate-Client field of a header block says; nothing if there is none, or it is not Exim's.

    With a `secret`, the field ends with `; mac=`, the HMAC-SHA1 of all before that, in hexadecimal: as Exim's
    ${hmac{sha1}{secret}{…}} makes it.
    """
    found = headers.last(head, FIELD)
    if not found:
        return {}
    if secret:
        found, _, mac = found.rpartition(_MAC)
        if not hmac.compare_digest(hmac.digest(secret, found, "sha1").hex().encode(), mac):
            return {}
    return read(found[:_MOST].decode("utf-8", "replace"))


def read(text: str) -> dict[str, str]:
    """The values of a text in the form of the header, by key in lower case."""
    found_values: dict[str, str] = {}
    end = 0
    while found := _PAIR.match(text, end):
        key, quoted, bare = found.groups()
        value = bare if quoted is None else _ESCAPED.sub(lambda one: _CONTROLS.get(one[1], one[1]), quoted)
        found_values.setdefault(key.lower(), printable(value))
        end = found.end()
    return found_values


def written(pairs: dict[str, str]) -> str:
    """Values as text in the form of the header, without those that are empty; `read` undoes it."""
    return "; ".join(f"{key}={_quoted(value)}" for key, value in pairs.items() if value)


def _quoted(value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
