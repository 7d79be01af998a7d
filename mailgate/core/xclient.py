"""What XCLIENT says of the client that a peer only passes on (Postfix' XCLIENT_README). Pure.

How it fails: what is no XCLIENT is ValueError, with the words for the reply.
"""

from __future__ import annotations

import re

from mailgate.core.envelope import Client, printable
from mailgate.core.origin import address

ATTRIBUTES = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
_ATTRIBUTE = re.compile(r"([A-Za-z]{1,16})=([!-~]{0,512})")
_XTEXT = re.compile(r"(?:[^+]|\+[0-9A-Fa-f]{2})*")  # RFC 3461 §4
_UNKNOWN = {"[UNAVAILABLE]", "[TEMPUNAVAIL]"}


def attributes(arg: str) -> dict[str, str]:
    """The attributes of a command, by name; "" for what the peer doesn't know. Raises ValueError."""
    values = {}
    for word in arg.split():
        found = _ATTRIBUTE.fullmatch(word)
        if not found or not _XTEXT.fullmatch(found[2]):
            raise ValueError("no list of attributes")
        name, value = found[1].upper(), found[2]
        if name not in ATTRIBUTES:
            raise ValueError("an attribute that is not offered")
        unknown = value.upper() in _UNKNOWN
        octets = re.sub(r"\+(..)", lambda code: chr(int(code[1], 16)), value).encode("latin-1")
        values[name] = "" if unknown else printable(octets.decode("utf-8", "replace"))
        if name == "ADDR" and not unknown and not _address(values[name]):
            raise ValueError("no address")
    if not values:
        raise ValueError("no attributes")
    return values


def added(said: dict[str, str], more: dict[str, str]) -> dict[str, str]:
    """What was said of a client, and what a later command adds. Raises ValueError if that says something otherwise:
    it may be the client who speaks by then. For the same reason nobody is a user after the address was named.
    """
    settled = {"LOGIN": ""} | said if "ADDR" in said else said
    if any(settled[name] != value for name, value in more.items() if name in settled):
        raise ValueError("said otherwise before")
    return said | more


def client(values: dict[str, str]) -> Client:
    """The client with these attributes."""
    ip = _address(values.get("ADDR", ""))
    helo, host, user = (values.get(name, "") for name in ("HELO", "NAME", "LOGIN"))
    return Client(ip, helo, host, user, source="xclient" if ip else "unknown")


def _address(text: str) -> str:
    return address(text[5:] if text[:5].upper() == "IPV6:" else text)
