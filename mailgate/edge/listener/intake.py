"""The mail data of one message: read to its end in bulk, within the bounds of one message and of all under way.

Promise: the octets in flight that are counted here are given back if the message is refused or the session ends; else
they are the caller's to give back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mailgate.core.data import DataReceiver
from mailgate.core.reply import Reply
from mailgate.edge.listener.wire import Wire

if TYPE_CHECKING:
    from mailgate.edge.listener.listener import Listener

_PIECE = 256 * 1024  # octets that are kept together


async def receive(
    wire: Wire, listener: Listener, heard: Callable[[], None]
) -> tuple[list[bytes], tuple[Reply, str] | None]:
    """The message's octets in pieces, or the reply that refuses it and the reason: but read to its end in any case.

    `heard` is called whenever something has come. Ends by cancellation with the session.
    """
    receiver = DataReceiver()
    limit = listener.config.relay.max_message_size
    refusal: tuple[Reply, str] | None = None
    pieces: list[bytes] = []
    tail = bytearray()
    size = 0
    try:
        while not receiver.done:
            tail += receiver.feed(await wire.some())
            heard()
            if size + len(tail) > limit:
                refusal = Reply(552, "5.3.4", f"message larger than {limit} octets"), "message-too-large"
            elif not listener.has_room:
                refusal = refusal or (Reply(452, "4.3.1", "too much mail in flight"), "too-much-in-flight")
            if refusal:
                listener.in_flight -= size
                size = 0
                pieces.clear()
                tail.clear()
            elif len(tail) >= _PIECE or receiver.done:
                listener.in_flight += len(tail)
                size += len(tail)
                pieces.append(bytes(tail))
                tail.clear()
    except BaseException:
        listener.in_flight -= size
        raise
    wire.unread(receiver.rest)
    return pieces, refusal
