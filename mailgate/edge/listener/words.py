"""The words of the dialogue: replies as they go out, commands and paths as they come in. Pure; no session needed."""

from __future__ import annotations

import re

from mailgate.core.reply import Reply

MAX_COMMAND = 4096  # octets; RFC 5321 §4.5.3.1.4 asks for 512, SMTPUTF8 and VERP for more
_ATEXT = r"[^\x00-\x20\x7f<>()\[\]\\,;:\"@]"
_LOCAL = rf'(?:{_ATEXT}+|"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*")'
_DOMAIN = rf"(?:{_ATEXT}+|\[[0-9A-Za-z.:]+\])"
_PATH = re.compile(rf"<(?:@[^\x00-\x20\x7f<>:]+:)?({_LOCAL}(?:@{_DOMAIN})?)>(?: +([ -~]*))?")
_NULL = re.compile(r"<>(?: +([ -~]*))?")
_NEEDS_CODE = re.compile(r"(?!220)([245]\d\d) (?![245]\.\d+\.\d+ )")  # RFC 2034 §3: not in the greeting
_ENHANCED = {  # RFC 3463, for the replies that aiosmtpd words itself
    221: "2.0.0", 250: "2.0.0", 252: "2.5.0", 421: "4.3.0", 451: "4.3.0", 452: "4.3.1", 454: "4.7.0",
    500: "5.5.2", 501: "5.5.4", 502: "5.5.1", 503: "5.5.1", 530: "5.7.0", 552: "5.3.4", 553: "5.1.3", 555: "5.5.4",
}  # fmt: skip


def worded(status: str) -> bytes:
    """A reply as it goes out: with an enhanced code, in printable ASCII."""
    found = _NEEDS_CODE.match(status)
    if found:
        enhanced = _ENHANCED.get(int(found[1]), f"{found[1][0]}.0.0")
        status = f"{found[1]} {enhanced} {status[4:]}"
    if not (status.isascii() and status.isprintable()):
        text = status.encode("ascii", "backslashreplace").decode("ascii")
        status = "".join(c if c.isprintable() else "?" for c in text)
    return status.encode("ascii") + b"\r\n"


def reply_line(reply: Reply) -> bytes:
    """A reply of ours as it goes out; nearly all of them are as they have to be."""
    status = str(reply)
    if reply.enhanced and status.isascii() and status.isprintable():
        return status.encode("ascii") + b"\r\n"
    return worded(status)


def command(line: bytes) -> tuple[str, str | None]:
    """Verb and argument of a command line; ("", None) for what can't be one. RFC 5321 §2.4, RFC 6531 §3.3."""
    verb, _, arg = line.rstrip(b"\r\n").partition(b" ")
    if len(line) > MAX_COMMAND or not verb.isalpha():
        return "", None
    return verb.decode("ascii", "replace").upper(), arg.strip().decode("utf-8", "surrogateescape") or None


def path(arg: str) -> tuple[str, str] | None:
    """The address and the parameters of an argument `<address> ...` ("<>" for the null path); None if it is none.

    RFC 5321 §4.1.2, and UTF-8 where RFC 6531 §3.3 has it. The address stays as it is written, but for a source route,
    which is dropped (§4.1.1.3). A local part alone is an address: that it is one is the next hop's to say.
    """
    if found := _PATH.fullmatch(arg):
        return found[1], found[2] or ""
    if found := _NULL.fullmatch(arg):
        return "<>", found[1] or ""
    return None
