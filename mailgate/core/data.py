"""The mail data of DATA: transparency and line ends, both ways, piece by piece. RFC 5321 §2.3.8, §4.1.1.4, §4.5.2.

Duty: only CRLF.CRLF ends a message; one dot is taken from a line that CRLF (not a bare LF) precedes; then each bare
CR and each bare LF becomes CRLF, once, so no later hop can see another end than we did (SMTP smuggling). Works on
pieces as they arrive, so no step takes long, however large the message; never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_END = b"\r\n.\r\n"
_DOT = b"\r\n."
_BARE_CR = re.compile(rb"\r(?!\n)")


def with_crlf(octets: bytes) -> bytes:
    """The octets with each bare CR and each bare LF made CRLF. A CRLF must not be torn between two calls."""
    # With `in`, an exception is made up and dropped each time (bytes may contain a number, too).
    if octets.find(b"\r") < 0:
        return octets.replace(b"\n", b"\r\n")
    between = octets.replace(b"\r\n", b"")  # four times as fast as counting CR, LF and CRLF
    if between.find(b"\r") < 0 and between.find(b"\n") < 0:
        return octets
    return octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


class LineEnds:
    """Makes all line ends CRLF, as `with_crlf` does; `bare_cr` is where, in what it gave, the first bare CR was: -1 if
    there was none so far.
    """

    def __init__(self) -> None:
        self.bare_cr = -1
        self._given = 0

    def feed(self, octets: bytes) -> bytes:
        """The octets with their line ends. A CRLF must not be torn between two calls."""
        made = with_crlf(octets)
        if made is not octets and self.bare_cr < 0 and (found := _BARE_CR.search(octets)):
            self.bare_cr = self._given + len(with_crlf(octets[: found.start()]))
        self._given += len(made)
        return made


class DataReceiver:
    """Takes the octets after DATA's 354 and gives the message's octets, canonical, until its end.

    `feed` returns the canonical octets that are settled by now. When `done`, `rest` holds what came behind the
    final dot (pipelined commands, RFC 2920). `ends` knows where a bare CR was.
    """

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.ends = LineEnds()
        # The CRLF that ended the DATA command counts as the line end before the first line (RFC 5321 §4.1.1.4).
        self._held = b"\r\n"
        self._first = True

    def feed(self, octets: bytes) -> bytes:
        """The canonical octets that became certain with this piece."""
        raw = self._held + octets
        dot = raw.find(_DOT)
        end = raw.find(_END, dot) if dot >= 0 else -1
        if end >= 0:
            self.done = True
            self.rest = raw[end + 5 :]
            self._held = b""
            return self._canonical(raw[: end + 2], dot < end)
        # Up to four octets may turn out to belong to the final dot's sequence, or a CR to a CRLF: they wait.
        keep = next((n for n in (4, 3, 2, 1) if raw.endswith(_END[:n])), 0)
        self._held = raw[len(raw) - keep :]
        return self._canonical(raw[: len(raw) - keep], dot >= 0)

    def _canonical(self, raw: bytes, dotted: bool) -> bytes:  # noqa: FBT001
        # A piece is cut only where no CRLF. sequence is torn: `_held` begins with the CR if one may have begun.
        out = raw.replace(_DOT, b"\r\n") if dotted else raw
        if self._first and out:
            self._first = False
            out = out[2:]
        return self.ends.feed(out)


def stuffed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The canonical message's pieces with their dots doubled; the final dot is not included. RFC 5321 §4.5.2."""
    before = b"\r\n"
    for chunk in chunks:
        if not chunk:
            continue
        if chunk[:1] == b"." and before.endswith(b"\r\n"):
            yield b"."
        elif before.endswith(b"\r") and chunk[:2] == b"\n.":
            yield b"\n."  # the CRLF is torn between two pieces
            chunk = chunk[1:]  # noqa: PLW2901
        yield chunk.replace(b"\r\n.", b"\r\n..")
        before = (before + chunk[-2:])[-2:]
