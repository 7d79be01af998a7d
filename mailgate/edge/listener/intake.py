"""The mail data of one message: read to its end in bulk, within the bounds of one message and of all under way.

Promise: the octets in flight that are counted here are given back if the message is refused or dropped; else they are
the caller's to give back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailgate.core.data import DataReceiver
from mailgate.core.reply import Reply

if TYPE_CHECKING:
    from mailgate.edge.listener.listener import Listener

_PIECE = 256 * 1024  # octets that are kept together


class Intake:
    """Feed what comes after the 354. When `done`: `pieces` are the message's octets, `size` how many, `rest` what was
    pipelined behind them, `bare_cr` where in the message the first bare CR was (-1 if there was none); or `refusal` is
    the reply that refuses it and the reason (but it is read to its end).
    """

    def __init__(self, listener: Listener) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self.done = False
        self.rest = b""
        self.bare_cr = -1
        self.refusal: tuple[Reply, str] | None = None
        self._listener = listener
        self._receiver = DataReceiver()
        self._limit, self._named = listener.config.relay.slack_size, listener.config.relay.max_message_size
        self._tail: list[bytes] = []
        self._tail_size = 0

    def feed(self, octets: bytes) -> bool:
        """Take octets as they come. True when the final dot was among them."""
        receiver = self._receiver
        settled = receiver.feed(octets)
        self.done, self.rest, self.bare_cr = receiver.done, receiver.rest, receiver.ends.bare_cr
        if settled:
            self._tail.append(settled)
            self._tail_size += len(settled)
        if self.size + self._tail_size > self._limit:
            self.refusal = Reply(552, "5.3.4", f"message larger than {self._named} octets"), "message-too-large"
        elif not self._listener.has_room:
            self.refusal = self.refusal or (Reply(452, "4.3.1", "too much mail in flight"), "too-much-in-flight")
        if self.refusal:
            self.drop()
        elif self._tail_size >= _PIECE or self.done:
            self._listener.in_flight += self._tail_size
            self.size += self._tail_size
            self.pieces.append(self._tail[0] if len(self._tail) == 1 else b"".join(self._tail))
            self._tail, self._tail_size = [], 0
        return self.done

    def drop(self) -> None:
        """Give up what has come."""
        self._listener.in_flight -= self.size
        self.size = self._tail_size = 0
        self.pieces, self._tail = [], []
