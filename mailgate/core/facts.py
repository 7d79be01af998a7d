"""What is known of a message when it is judged. A check that could not be made is a fact too."""

from __future__ import annotations

from mailgate.core import auth, headers, networks, scan
from mailgate.core.auth import Authenticated
from mailgate.core.limits import Limit
from mailgate.core.message import Message
from mailgate.core.networks import NetworkSet
from mailgate.core.scan import Scan
from mailgate.core.value import value


@value
class MessageFacts:
    """`hops`: Received fields; `bounded`: the header ends within what may be looked through; `recipients`: whom it is
    for; `scan`: what became of the spam scan, None while it has not been thought of; `listed`: the sets of networks
    that the client is in; `limit`: the rate that its client is over; `auth`: who vouches for it, None where that is not
    checked.
    """

    hops: int
    bounded: bool
    recipients: tuple[str, ...] = ()
    scan: Scan | None = None
    listed: tuple[NetworkSet, ...] = ()
    limit: Limit | None = None
    auth: Authenticated | None = None


def of_message(
    message: Message,
    recipients: tuple[str, ...],
    scan: Scan | None = None,
    listed: tuple[NetworkSet, ...] = (),
    auth: Authenticated | None = None,
) -> MessageFacts:
    """The facts that the octets and the envelope themselves tell; that it is not scanned, where that is known; where
    its client is listed; who vouches for it, where that has been found out before.
    """
    hops = headers.hops(message.head) if message.bounded else 0
    return MessageFacts(hops, message.bounded, recipients, scan, listed, auth=auth)


def told(facts: MessageFacts) -> dict[str, object]:
    """What was found out of a message, as fields of a log event."""
    return scan.told(facts.scan) | networks.told(facts.listed) | auth.told(facts.auth)
