"""The copy of a message that Exim shows to a scanner, made the message again: octet by octet what Exim sends later.

Exim puts up to three lines in front of the header (`From …`, and X-Envelope-From and X-Envelope-To where there is a
sender and a recipient) and gives all lines LF for their end. Duty: these lines are taken off, and no other, whatever
the message begins with; each line end becomes CRLF as at the relay door. Else a good DKIM signature would not verify.
Works on pieces as they arrive; never raises.
"""

from __future__ import annotations

import re

from mailgate.core.data import LineEnds
from mailgate.core.envelope import Envelope, address_octets, address_text

MAX_WRAPPING = 512 * 1024  # octets that are looked at; X-Envelope-To names all recipients in one line
_FIRST = b"From "
_ANY = re.compile(rb"From [^\n]*\n(?:X-Envelope-From: <([^\n]*)>\n)?(?:X-Envelope-To: ([^\n]*)\n)?")


class Unwrapper:
    """Takes the copy in pieces and gives the message's octets, canonical. `envelope` is who it is from and for, if the
    question said so; else it is read from the wrapping. `ends` knows where a bare CR was.
    """

    def __init__(self, envelope: Envelope | None = None) -> None:
        self.envelope = envelope
        self.ends = LineEnds()
        self._held = b""
        self._unwrapped = False
        self._cr = b""

    def feed(self, octets: bytes, *, last: bool = False) -> bytes:
        """The octets of the message that became certain with this piece; with the last one, all that are left."""
        if not self._unwrapped:
            self._held += octets
            if len(self._held) < MAX_WRAPPING and not last:
                return b""
            octets, self._held, self._unwrapped = self._unwrap(self._held), b"", True
        octets = self._cr + octets
        self._cr = b"\r" if octets.endswith(b"\r") and not last else b""  # the LF of a CRLF may come yet
        return self.ends.feed(octets[: len(octets) - len(self._cr)])

    def _unwrap(self, octets: bytes) -> bytes:
        if self.envelope is not None:
            return _without(octets, self.envelope)
        found = _ANY.match(octets)
        if not found:
            return octets
        sender, recipients = found[1] or b"", found[2] or b""
        if recipients:
            self.envelope = Envelope(address_text(sender), tuple(map(address_text, recipients.split(b", "))))
        return octets[found.end() :]


def _without(octets: bytes, envelope: Envelope) -> bytes:
    """The copy without the lines that Exim writes for this envelope."""
    first, end, rest = octets.partition(b"\n")
    if not (first.startswith(_FIRST) and end):
        return octets
    if envelope.sender:
        rest = rest.removeprefix(b"X-Envelope-From: <%s>\n" % address_octets(envelope.sender))
    if envelope.recipients:
        everybody = b", ".join(map(address_octets, envelope.recipients))
        rest = rest.removeprefix(b"X-Envelope-To: %s\n" % everybody)
    return rest
