"""What is known of a message when it is judged. A check that could not be made is a fact too."""

from __future__ import annotations

from dataclasses import dataclass

from mailgate.core import headers
from mailgate.core.message import Message
from mailgate.core.scan import Scan


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """`hops`: Received fields; `bounded`: the header ends within what may be looked through; `recipients`: whom it is
    for; `scan`: what became of the spam scan, None while it has not been thought of.
    """

    hops: int
    bounded: bool
    recipients: tuple[str, ...] = ()
    scan: Scan | None = None


def of_message(message: Message, recipients: tuple[str, ...], scan: Scan | None = None) -> MessageFacts:
    """The facts that the octets and the envelope themselves tell; and that it is not scanned, where that is known."""
    hops = headers.hops(message.head) if message.bounded else 0
    return MessageFacts(hops, message.bounded, recipients, scan)
