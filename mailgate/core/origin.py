"""Whom a message truly comes from, of all who say something about it (DESIGN §2).

Duty: the best source there is: the X-Mailgate-Client header of our Exim's transport, else, where Exim does not sign it,
the Received field that our Exim put on top. (What Exim told the verdict door is better still: the story knows it, see
`joined`.) A stranger for whom a peer only passes octets on is the client himself, and can write neither of the two.
Whatever stands in a message, reading it ends with a Client: what can't be read is unknown ("").
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from functools import lru_cache

from mailgate.core import client_field, exim_received, headers
from mailgate.core.envelope import SOURCES, Client, Source
from mailgate.core.value import value

_NOBODY = Client()


@value
class Origin:
    """The client, and the id under which our Exim has the message; both may be unknown."""

    client: Client
    exim_id: str


def origin(head: bytes, stranger: Client | None = None, secret: bytes = b"") -> Origin:
    """Whom the message with this header block, as it came in, is from. `stranger` is whom its peer passes it on for.

    With a `secret` nothing counts but an X-Mailgate-Client header with the right `mac`: whoever reaches the door can
    write a Received field. A header that names another message than our Exim's Received does is not this message's.
    """
    if stranger is not None:
        return Origin(stranger, "")
    exim_id = headers.own_exim_id(head) or headers.exim_id(head)
    said = client_field.values(head, secret)
    client = _client(said, "header") if said else _NOBODY
    given = said.get("eid", "")
    same = given == exim_id if given and exim_id else not secret
    if same and client.source != "unknown":
        return Origin(client, exim_id or (given if headers.is_exim_id(given) else ""))
    return Origin(_NOBODY if secret else by_received(head), exim_id)


def by_received(head: bytes) -> Client:
    """Whom the Received field on top speaks of, if it is our Exim's. At SMTP time Exim has written nothing else."""
    values = exim_received.values(head)
    return _client(values, "received") if values else _NOBODY


def joined(told: Client, found: Client) -> Client:
    """The client that Exim told the verdict door of, with what else is found in the message of the same address; who is
    found in it, if Exim did not tell (the stock variant of its condition does not).
    """
    if told.source == "unknown":
        return found
    if told.ip != found.ip:
        return told
    return replace(
        told,
        helo=told.helo or found.helo,
        host=told.host or found.host,
        user=told.user or found.user,
        tls=told.tls or found.tls,
    )


def written(client: Client) -> str:
    """The client as text, in the form of the header, with what is known of it; `read` undoes it."""
    pairs = {"ip": client.ip, "host": client.host, "helo": client.helo, "user": client.user, "tls": client.tls}
    known = client.source if client.source != "unknown" else ""
    return client_field.written({**pairs, "source": known})


def read(text: str) -> Client:
    """The client that `written` wrote down."""
    values = client_field.read(text)
    return _with(values, source(values.get("source", "")))


def told(client: Client) -> dict[str, object]:
    """The client as fields of a log event, with what is known of it."""
    known = {"helo": client.helo, "host": client.host, "user": client.user, "tls": client.tls}
    return {"client": client.ip, "origin": client.source, **{key: value for key, value in known.items() if value}}


def source(word: str) -> Source:
    """The source of that name, "unknown" if it is none."""
    return word if word in SOURCES else "unknown"


def _client(values: dict[str, str], said_by: Source) -> Client:
    """The client that somebody speaks of; nobody, if there is no word of an address, or what is there is none.

    An `ip` that is said to be empty is our Exim's for a program on its own host.
    """
    client = _with(values, said_by)
    return client if client.ip or values.get("ip") == "" else _NOBODY


def _with(values: dict[str, str], said_by: Source) -> Client:
    return Client(
        ip=address(values.get("ip", "")),
        helo=values.get("helo", ""),
        host=values.get("host", ""),
        user=values.get("user", ""),
        tls=values.get("tls", ""),
        source=said_by,
    )


_ZONED = re.compile(r"([^%]*)(?:%[A-Za-z0-9_.:-]+)?")


@lru_cache(maxsize=1024)  # mail comes from the same hosts again and again
def address(text: str) -> str:
    """An IP address in its canonical form, an IPv4 one that is wrapped in IPv6 unwrapped; "" if it is none. The zone of
    one that is valid on a link only (RFC 4007 §11) is taken off: it names an interface of somebody else's.
    """
    found = _ZONED.fullmatch(text)
    if not found:
        return ""
    try:
        address = ipaddress.ip_address(found[1])
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
