"""The domains of a message's authors: what DMARC protects. RFC 5322 §3.6.2, RFC 9989 §5.3.1.

Duty: whatever stands in the From fields, the domains that a reader may be shown as the author's. What is malformed is
read as most programs read it (an address in angle brackets before one without), so that nobody hides an author behind
syntax; time is linear and bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailgate.core import headers
from mailgate.core.domains import ascii_form

_MOST = 32 * 1024  # octets in all From fields that are read
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|\\.|[^"\\()<>,;:@]+|.', re.DOTALL)
_IN_COMMENT = re.compile(r"\\.|[()]|[^\\()]+|.", re.DOTALL)
_AROUND_DOTS = re.compile(r"\s*\.\s*")


def domains(head: bytes) -> tuple[str, ...] | None:
    """The different domains of all mailboxes in all From fields, in their order, without addresses that have none; None
    where there is too much to read.
    """
    values = headers.each(head, b"from")
    if sum(map(len, values)) > _MOST:
        return None
    found = (
        domain
        for value in values
        for address in _addresses(_pieces(value.replace(b"\r\n", b"").decode("utf-8", "replace")))
        if (domain := _domain(address))
    )
    return tuple(dict.fromkeys(found))


def _pieces(text: str) -> Iterator[str]:
    """Quoted strings, specials and the text between them; a comment is a blank. What does not end is no comment."""
    at, comments = 0, True
    while at < len(text):
        if text[at] == "(" and comments:
            if end := _comment_end(text, at):
                yield " "
                at = end
                continue
            comments = False
        piece = _PIECE.match(text, at)
        assert piece is not None
        yield piece[0]
        at = piece.end()


def _comment_end(text: str, at: int) -> int:
    """Where the comment that begins there ends; 0 if it does not. Comments nest, RFC 5322 §3.2.2."""
    depth = 0
    for part in _IN_COMMENT.finditer(text, at):
        depth += {"(": 1, ")": -1}.get(part[0], 0)
        if not depth:
            return part.end()
    return 0


def _addresses(pieces: Iterator[str]) -> Iterator[list[str]]:
    """The addresses, each in its pieces: what stands in angle brackets, else the mailbox as it is."""
    bare: list[str] = []
    angle: list[str] | None = None
    bracketed = False  # whether the mailbox has had its address in brackets
    for piece in pieces:
        if piece == "<":
            angle, bracketed = [], True
        elif angle is not None and piece == ">":
            yield angle
            angle = None
        elif angle is not None and (piece not in {",", ";"} or _is_route(angle)):
            angle.append(piece)
        elif piece in {",", ";"}:
            if angle is not None:
                yield angle
            elif not bracketed:
                yield bare
            bare, angle, bracketed = [], None, False
        elif piece == ":":
            bare = []  # the name of a group
        else:
            bare.append(piece)
    if angle is not None:
        yield angle
    elif not bracketed:
        yield bare


def _is_route(angle: list[str]) -> bool:
    """<@relay.example,@other.example:mailbox@example.org>, RFC 5322 §4.4."""
    return next((piece for piece in angle if piece.strip()), "") == "@"


def _domain(address: list[str]) -> str:
    """The domain of an address, "" if it has none."""
    if "@" not in address:
        return ""
    behind = address[len(address) - address[::-1].index("@") :]
    words = _AROUND_DOTS.sub(".", "".join(behind)).split()
    return ascii_form(words[0]) if words else ""
