"""Header fields of a message as whole lines of octets: what is cut from what arrives, and what is put in front.

Duty (promise 4): whole forged lines are cut, ours are put in front, every other octet is as received. A field is its
line and the folded lines behind it (RFC 5322 §2.2.3); a name is compared without case, and with blanks before the
colon (obsolete syntax, §4.5) or folded there it is still that name, since some reader behind us will take it so.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache

from mailgate.core.envelope import Envelope, Peer, printable

MAX_HOPS = 100  # RFC 5321 §6.3: a loop limit of at least 100 Received fields
_FORGED = frozenset(
    b"x-spam-" + name for name in (b"score", b"report", b"checker-version", b"status", b"level", b"flag")
)
_OURS = b"x-mailgate-"
_RESULTS = b"authentication-results"
# 16 characters up to Exim 4.96, 23 from 4.97 on.
_EXIM_ID = r"[0-9A-Za-z]{6}-(?:[0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})"
_ID_IN_RECEIVED = re.compile(rb"\bid (%s)\b" % _EXIM_ID.encode())
_ID_ON_ITS_LINE = re.compile(rb"\n[ \t]+id (%s)(?=[\r\n;])" % _EXIM_ID.encode())
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_SUSPECT = (b"\nx-spam-", b"\nx-mailgate-", b"\nauthentication-results")
_BLANKS = (b" ", b"\t")
_FIELD = re.compile(rb"[^\n]+(?:\n[ \t][^\n]*)*\n?|\n")
_COMMENT_PARTS = re.compile(rb"\\.|[()]|[^\\()]+", re.DOTALL)
_TOKEN = re.compile(rb'(?:"((?:[^"\\]++|\\.)*+)"|([^\s;()"]+))', re.DOTALL)
_HELO = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_RECIPIENT = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,128}@[A-Za-z0-9.-]{1,255}")


def hops(head: bytes) -> int:
    """How many Received fields there are."""
    low = _lines(head)
    if low.find(b"\nreceived ") >= 0 or low.find(b"\nreceived\t") >= 0:  # obsolete syntax
        return len(_RECEIVED.findall(head))
    return low.count(b"\nreceived:")


def first(head: bytes, name: bytes) -> bytes:
    """The unfolded value of the first field of that name, b"" if there is none."""
    found = _first(head, name)
    return _unfolded(found) if found else b""


def first_as_is(head: bytes, name: bytes) -> bytes:
    """The value of the first field of that name with its line ends, b"" if there is none."""
    found = _first(head, name)
    return found[1] if found else b""


def last(head: bytes, name: bytes) -> bytes:
    """The same of the last field of that name."""
    low, begin = _lines(head), b"\n" + name
    at = len(low)
    while (at := low.rfind(begin, 0, at)) >= 0:
        if found := _named(name).match(head, at):
            return _unfolded(found)
    return b""


def each(head: bytes, name: bytes) -> list[bytes]:
    """The unfolded values of all fields of that name, in their order."""
    low, begin, at, found = _lines(head), b"\n" + name, -1, []
    while (at := low.find(begin, at + 1)) >= 0:
        if one := _named(name).match(head, at):
            found.append(_unfolded(one))
    return found


def replaced(head: bytes, name: bytes, by: bytes) -> bytes:
    """The header block with the whole fields `by` in the place of the first field of that name."""
    found = _first(head, name)
    return head[: found.start()] + by + head[found.end() + 1 :] if found else head


def _first(head: bytes, name: bytes) -> re.Match[bytes] | None:
    low, begin, at = _lines(head), b"\n" + name, -1
    while (at := low.find(begin, at + 1)) >= 0:
        if found := _named(name).match(head, at):
            return found
    return None


def _unfolded(found: re.Match[bytes]) -> bytes:
    return found[1].replace(b"\r\n", b"").strip()


@lru_cache(maxsize=16)
def _named(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"%s[ \t]*(?:\r\n[ \t]+)*:([^\n]*(?:\n[ \t][^\n]*)*)" % re.escape(name), re.IGNORECASE)


@lru_cache(maxsize=4)  # a message is looked through for one name after the other
def _lines(head: bytes) -> bytes:
    """The header block in lower case, each line behind a LF: to look for names in, at a tenth of a pattern's cost."""
    return b"\n" + head.lower()


def exim_id(head: bytes) -> str:
    """The message id that the Exim in front of us gave it: in the topmost Received, "" if there is none.

    The last one counts: Exim writes HELO and reverse-path, which a stranger chose, in front of its own id.
    """
    value = first(head, b"received")
    at = len(value)
    while (at := value.rfind(b"id ", 0, at)) >= 0:
        if found := _ID_IN_RECEIVED.match(value, at):
            return found[1].decode("ascii")
    return ""


@lru_cache(maxsize=4)  # several ask for it, one after the other
def own_exim_id(head: bytes) -> str:
    """The same where nobody but that Exim can have written it: at the beginning of a line of its topmost Received, as
    its own received_header_text has it. What a stranger chose (HELO, reverse-path, recipient) holds no line end.
    """
    topmost = _first(head, b"received")
    found = topmost and _ID_ON_ITS_LINE.search(topmost[0] + b"\n")
    return found[1].decode("ascii") if found else ""


def is_exim_id(text: str) -> bool:
    """May this be a message id of Exim's?"""
    return re.fullmatch(_EXIM_ID, text) is not None


def authserv_id(raw: bytes) -> bytes:
    """The authserv-id of an Authentication-Results field, in lower case. RFC 8601 §2.2: comments may precede it."""
    value = raw.partition(b":")[2]
    found = _TOKEN.match(value, _behind_comments(value))
    if not found:
        return b""
    return re.sub(rb"\\(.)", rb"\1", found[1] if found[1] is not None else found[2]).strip().lower()


def _behind_comments(value: bytes) -> int:
    """Where what stands behind leading blanks and comments begins. RFC 5322 §3.2.2: comments nest."""
    depth = 0
    for part in _COMMENT_PARTS.finditer(value):
        if part[0] == b"(":
            depth += 1
        elif part[0] == b")" and depth:
            depth -= 1
        elif not depth and (text := part[0].lstrip()):
            return part.end() - len(text)
    return len(value)


def cut(head: bytes, our_authserv_id: str) -> bytes:
    """The header block without the fields that only we may write. The same object if there was none.

    Folded lines that stand before any field would continue the last of the fields that we put in front: cut too.
    """
    low, gone = _lines(head), []
    if head[:1] in _BLANKS and (folded := _FIELD.match(head)):
        gone.append(folded.span())
    for name in _SUSPECT:
        at = low.find(name)
        while at >= 0:
            if (found := _FIELD.match(head, at)) and _claims_ours(found[0], our_authserv_id):
                gone.append(found.span())
            at = low.find(name, at + 1)
    if not gone:
        return head
    kept, end = [], 0
    for start, stop in sorted(gone):
        kept.append(head[end:start])
        end = stop
    return b"".join([*kept, head[end:]])


def _claims_ours(field: bytes, our_authserv_id: str) -> bool:
    name, colon, _ = field.partition(b":")
    name = name.rstrip().lower()
    if not colon or b"\n" in name:
        return False
    if name == _RESULTS:  # RFC 8601 §5: others' results stay
        return authserv_id(field) == our_authserv_id.lower().encode("ascii", "replace")
    return name in _FORGED or name.startswith(_OURS)


def received(envelope: Envelope, peer: Peer, hostname: str, gate_id: str, now: float) -> bytes:
    """Our Received field. RFC 5321 §4.4; the protocol words are those of RFC 3848 and RFC 6531 §4.3.

    The recipient is named only when there is one (a list of several would tell each of the others), and the HELO
    argument only if it can't be mistaken for anything else.
    """
    if peer.door == "lmtp":
        protocol = "UTF8LMTP" if envelope.smtputf8 else "LMTP"
    else:
        protocol = "UTF8SMTP" if envelope.smtputf8 else "ESMTP"
    alone = len(envelope.recipients) == 1 and _RECIPIENT.fullmatch(envelope.recipients[0])
    to = f"\r\n\tfor <{envelope.recipients[0]}>" if alone else ""
    came, date = _came(peer.helo, peer.address), _date(int(now))
    return (
        f"Received: from {came}\r\n\tby {hostname} (mailgate) with {protocol} id {gate_id}{to};\r\n\t{date}\r\n"
    ).encode("ascii")


@lru_cache(maxsize=64)  # it is Exim, nearly always
def _came(helo: str, address: str) -> str:
    said = helo if _HELO.fullmatch(helo) else "unknown"
    return f"{said} ({_address_literal(address)})" if address else said


@lru_cache(maxsize=2)
def _date(now: int) -> str:
    return formatdate(now, localtime=False).replace("-0000", "+0000")  # RFC 5322 §3.3: +0000 is UTC


def _address_literal(address: str) -> str:
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def field(name: str, value: str) -> bytes:
    """One short field of ours; whatever `value` holds, it is one line of ASCII."""
    return f"{name}: {printable(value)}\r\n".encode("ascii", "backslashreplace")
