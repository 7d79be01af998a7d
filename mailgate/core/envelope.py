"""The envelope of a message, and who handed it to us. RFC 5321 §2.3.1.

Addresses are text as `bytes.decode("utf-8", "surrogateescape")` gives it, so whatever octets a peer sent
can be sent on unchanged. They are never lower-cased: the local part belongs to the receiving side (§2.4).
"""

from __future__ import annotations

from typing import Literal, get_args

from mailgate.core.value import value

Door = Literal["lmtp", "smtp"]
# Who told us of the client: Exim, asking the verdict door; the X-Mailgate-Client header; our Exim's Received; the front
# of the SMTP door, by the PROXY protocol or XCLIENT; nobody.
Source = Literal["verdict", "header", "received", "proxy", "xclient", "unknown"]
SOURCES: tuple[Source, ...] = get_args(Source)


def address_octets(address: str) -> bytes:
    """The octets of an address as the peer sent them."""
    return address.encode("utf-8", "surrogateescape")


def address_text(octets: bytes) -> str:
    """The text of an address; `address_octets` undoes it for any octets."""
    return octets.decode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """`text` as it may stand in a log, a table or a header: no control character, no undecodable octet."""
    if text.isprintable():  # a lone surrogate is not
        return text
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in safe)


@value
class Envelope:
    """Reverse-path and recipients of one transaction.

    `sender` is the reverse-path without angle brackets, "" for the null reverse-path (RFC 5321 §4.5.5).
    `recipients` are the accepted ones in their order, duplicates included: each is owed a reply (RFC 2033 §4.2).
    `smtputf8` and `eight_bit` say what MAIL FROM declared (RFC 6531, RFC 6152).
    """

    sender: str
    recipients: tuple[str, ...]
    smtputf8: bool = False
    eight_bit: bool = False

    def only(self, recipients: tuple[str, ...]) -> Envelope:
        """The same envelope for some of the recipients."""
        return Envelope(self.sender, recipients, self.smtputf8, self.eight_bit)

    def once(self) -> Envelope:
        """The same envelope with each recipient once."""
        once = dict.fromkeys(self.recipients)
        return self if len(once) == len(self.recipients) else self.only(tuple(once))


@value
class Client:
    """The host that a message truly comes from, as far as it is known ("" where it is not): its IP address, its HELO
    argument, its verified host name, the user that it authenticated as, what it encrypted with, and who told us so.

    A client with a source and no address is a program on Exim's own host.
    """

    ip: str = ""
    helo: str = ""
    host: str = ""
    user: str = ""
    tls: str = ""
    source: Source = "unknown"


@value
class Peer:
    """Who handed the message over: the MTA in front of us, not the client that Exim spoke to.

    `address` is the peer's IP address, or "" on a unix socket; `helo` is its HELO/EHLO/LHLO argument. `client` is the
    stranger for whom the peer only passes octets on (PROXY, XCLIENT), None where the peer speaks for itself: of what
    comes from a stranger nothing is believed.
    """

    door: Door
    address: str
    helo: str
    client: Client | None = None
