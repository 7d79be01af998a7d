"""What is known of a message when it is judged. A check that could not be made is a fact too."""

from __future__ import annotations

from dataclasses import dataclass

from mailgate.core import headers
from mailgate.core.message import Message


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """`hops`: Received fields; `bounded`: the header ends within what may be looked through."""

    hops: int
    bounded: bool


def of_message(message: Message) -> MessageFacts:
    """The facts that the octets themselves tell."""
    return MessageFacts(hops=headers.hops(message.head) if message.bounded else 0, bounded=message.bounded)
