"""Replies, ours and the next hop's, as values. RFC 5321 §4.2, RFC 2034 (enhanced codes), RFC 3463.

`ReplyParser` is fed octets from a peer that may be broken: it is bounded, and garbage is an exception that says so.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mailgate.core.value import value

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)")
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
MAX_LINE = 8192  # octets; RFC 5321 §4.5.3.1.5 says 512, servers say more
MAX_LINES = 128  # of one reply; an LHLO answer has a dozen
MAX_REPLIES = 2048  # that wait to be taken; the most that is ever asked for at once is one for each of 1000 recipients
_FEW = 1024  # octets of replies that are remembered as they came
MAX_TEXT = 400  # characters of a peer's text that we pass on or keep


class Garbage(Exception):
    """The peer sent what is not a reply. The connection can't be trusted any further."""


@value
class Reply:
    """A reply: three digits, the enhanced status code without which RFC 2034 allows none ("" if a peer gave none),
    and the text behind it.
    """

    code: int
    enhanced: str
    text: str

    @property
    def positive(self) -> bool:
        """2yz: done."""
        return 200 <= self.code < 300

    @property
    def permanent(self) -> bool:
        """5yz: the same would be refused again."""
        return self.code >= 500

    def __str__(self) -> str:
        if self.enhanced and self.text:
            return f"{self.code} {self.enhanced} {self.text}"
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


@lru_cache(maxsize=256)
def parse(code: int, text: str) -> Reply:
    """The reply with its enhanced code, if the text begins with one of the same class, taken apart."""
    found = _ENHANCED.match(text)
    if found and found[1][0] == str(code)[0]:
        return Reply(code, found[1], text[found.end() :])
    return Reply(code, "", text)


def clean(octets: bytes) -> str:
    """A peer's text as we may repeat it in a reply of our own: printable ASCII, bounded."""
    text = octets.decode("ascii", "backslashreplace")
    return "".join(c if " " <= c <= "~" else " " for c in text)[:MAX_TEXT].strip()


@lru_cache(maxsize=256)
def _read(line: bytes) -> tuple[int, bool, str]:
    """Code, whether more lines follow, and text of a reply line. Raises Garbage."""
    found = _LINE.fullmatch(line)
    if not found or len(line) > MAX_LINE:
        raise Garbage(f"not a reply: {clean(line[:80])!r}")
    return int(found[1]), found[2] == b"-", clean(found[3] or b"")


class ReplyParser:
    """Octets in, replies out. Feed what arrives; take from `replies` in order.

    Raises Garbage from `feed` when a line is no reply, is too long, a reply has too many lines, or too many replies
    wait. What came before the garbage is still in `replies`.
    """

    def __init__(self) -> None:
        self.replies: list[tuple[Reply, tuple[str, ...]]] = []
        self._rest = b""
        self._lines: list[str] = []
        self._code = 0

    @property
    def idle(self) -> bool:
        """True when nothing is left over: no reply waits, none has begun."""
        return not self.replies and self.whole

    @property
    def whole(self) -> bool:
        """True when no reply has begun."""
        return not (self._rest or self._lines)

    def feed(self, octets: bytes) -> None:
        """Take octets as they arrive."""
        if len(octets) <= _FEW and not self._rest and not self._lines:
            known = _familiar(octets)
            if known and len(self.replies) + len(known) <= MAX_REPLIES:
                self.replies.extend(known)
                return
        self.read(octets)

    def read(self, octets: bytes) -> None:
        """Take them without looking whether such octets have come before."""
        lines = (self._rest + octets if self._rest else octets).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._line(line.removesuffix(b"\r"))
        if len(self._rest) > MAX_LINE + 1:  # the CR of the longest line may be among them
            raise Garbage("a reply line without end")

    def _line(self, line: bytes) -> None:
        code, more, text = _read(line)
        if self._lines and code != self._code:
            raise Garbage(f"a reply that is {self._code} and {code} at once")
        self._code = code
        self._lines.append(text)
        if len(self._lines) > MAX_LINES:
            raise Garbage("a reply of too many lines")
        if not more:
            lines, self._lines = tuple(self._lines), []
            if len(self.replies) >= MAX_REPLIES:
                raise Garbage("more replies than anybody asked for")
            self.replies.append((parse(code, " ".join(lines)[:MAX_TEXT]), lines))


@lru_cache(maxsize=256)  # a server says the same few things over and over
def _familiar(octets: bytes) -> tuple[tuple[Reply, tuple[str, ...]], ...]:
    """The replies that these octets are, if they are whole ones; else ()."""
    parser = ReplyParser()
    try:
        parser.read(octets)
    except Garbage:
        return ()
    return tuple(parser.replies) if parser.whole else ()
