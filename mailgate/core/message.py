"""A message as octets: a header block and pieces of a body, never parsed further, never re-serialised.

Pieces keep a 40 MiB message from being copied as a whole; no step over one takes long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from mailgate.core.value import value

MAX_HEADER = 1024 * 1024  # octets; Exim's header_maxsize is the same
MAX_HEADER_LINES = 50_000  # each may have to be looked at
LARGE_HEADER = 64 * 1024  # octets from which on looking through it is a thread's work, not the loop's: up to 0.3 s
PIECE = 1024 * 1024  # octets of a body that are handled at a time


@value
class Message:
    """`head` is the header block up to and with the empty line, `body` the rest in pieces, both with CRLF line ends.

    `bounded` is False when no empty line was found in the first MAX_HEADER octets (then `head` is only the beginning
    of the header) or there are more than MAX_HEADER_LINES before it: too much to be looked through. `repaired` is True
    when a bare CR in the head became a line end.
    """

    head: bytes
    body: tuple[bytes, ...]
    bounded: bool = True
    repaired: bool = False

    @property
    def exims_head(self) -> bytes:
        """The head, where what our Exim wrote into it can be told from what others did; else b"".

        Exim makes line ends of the bare CRs in the header of a message, but not of those in HELO, which it writes into
        its Received: behind a repaired one a stranger may have written any field, an empty line even.
        """
        return b"" if self.repaired else self.head

    @property
    def chunks(self) -> tuple[bytes, ...]:
        """The whole message in pieces."""
        return (self.head, *self.body)

    @property
    def size(self) -> int:
        """Octets of the whole, as RFC 1870 counts them (with CRLF, before dots are doubled)."""
        return len(self.head) + sum(map(len, self.body))


def message(chunks: Iterable[bytes], bare_cr: int = -1) -> Message:
    """The message whose canonical octets these pieces are. RFC 5322 §2.1: the first empty line ends the header.

    `bare_cr` is where the first bare CR was that became a line end; -1 if there was none.
    """
    found = _message(iter(chunks))
    return replace(found, repaired=True) if 0 <= bare_cr < len(found.head) else found


def _message(pieces: Iterator[bytes]) -> Message:
    head = b""
    for piece in pieces:
        head = head + piece if head else piece
        if head.startswith(b"\r\n"):
            return Message(b"\r\n", _body(head[2:], pieces))
        end = head.find(b"\r\n\r\n")
        if 0 <= end <= MAX_HEADER:
            few = head.count(b"\n", 0, end) < MAX_HEADER_LINES
            return Message(head[: end + 4], _body(head[end + 4 :], pieces), bounded=few)
        if len(head) > MAX_HEADER + 4:
            return Message(head, tuple(pieces), bounded=False)
    return Message(head, (), bounded=head.count(b"\n") <= MAX_HEADER_LINES)


def _body(first: bytes, rest: Iterator[bytes]) -> tuple[bytes, ...]:
    return tuple(filter(None, (first, *rest)))


def in_pieces(chunks: Iterable[bytes], size: int = PIECE) -> Iterator[bytes]:
    """The same octets in pieces of `size` (the last may be smaller)."""
    held: list[bytes] = []
    have = 0
    for chunk in chunks:
        view = chunk
        while have + len(view) >= size:
            held.append(view[: size - have])
            view = view[size - have :]
            yield b"".join(held)
            held, have = [], 0
        if view:
            held.append(view)
            have += len(view)
    if held:
        yield b"".join(held)
