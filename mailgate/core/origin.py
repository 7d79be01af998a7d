"""Whom a message truly comes from: the X-Mailgate-Client header that our Exim's transport puts last (DESIGN §7).

Duty: the client as Exim saw it, from a header of which the client chose parts (HELO, for one). Whatever stands in it,
reading it ends with a Client: what can't be read is unknown (""). A value that is said twice counts as said first,
since what a stranger chose stands behind what Exim knows.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from mailgate.core import headers
from mailgate.core.envelope import Client, printable

FIELD = b"x-mailgate-client"
_MOST = 4096  # octets of it that are read; a HELO has at most 512
# As ${quote:} of Exim writes it: bare, or in double quotes with \ before what is special.
_PAIR = re.compile(r'[\s;]*([A-Za-z][A-Za-z0-9-]*)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))(?=\s*(?:;|$))', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_CONTROLS = {"n": " ", "r": " ", "t": " "}  # ${quote:} writes \n for a line feed
_BARE = re.compile(r"[A-Za-z0-9._:-]*")


@dataclass(frozen=True, slots=True)
class Origin:
    """The client, and the id under which our Exim has the message; both may be unknown."""

    client: Client
    exim_id: str


def origin(head: bytes) -> Origin:
    """What the last X-Mailgate-Client field of a header block says; all unknown if there is none."""
    values = _values(headers.last(head, FIELD)[:_MOST].decode("utf-8", "replace"))
    exim_id = values.get("eid", "")
    return Origin(_client(values), exim_id if headers.is_exim_id(exim_id) else "")


def written(client: Client) -> str:
    """The client as text, in the form of the header, with what is known of it; `read` undoes it."""
    values = {"ip": client.ip, "host": client.host, "helo": client.helo, "user": client.user}
    return "; ".join(f"{key}={_quoted(value)}" for key, value in values.items() if value)


def read(text: str) -> Client:
    """The client that `written` wrote down."""
    return _client(_values(text))


def _values(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    end = 0
    while found := _PAIR.match(text, end):
        key, quoted, bare = found.groups()
        value = bare if quoted is None else _ESCAPED.sub(lambda one: _CONTROLS.get(one[1], one[1]), quoted)
        values.setdefault(key.lower(), printable(value))
        end = found.end()
    return values


def _client(values: dict[str, str]) -> Client:
    return Client(
        ip=address(values.get("ip", "")),
        helo=values.get("helo", ""),
        host=values.get("host", ""),
        user=values.get("user", ""),
    )


@lru_cache(maxsize=1024)  # mail comes from the same hosts again and again
def address(text: str) -> str:
    """An IP address in its canonical form, an IPv4 one that is wrapped in IPv6 unwrapped; "" if it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _quoted(value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
