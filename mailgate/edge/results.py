"""The Authentication-Results field, through authres. RFC 8601 §2.2.

Promises: whatever a sender chose (HELO, reverse-path, names in signatures) can't end a value, a comment or the field;
lines are folded, ASCII, and bounded. What must be quoted stands last in its result: authres (and so Mailman) reads a
quoted value only there. It can't fail for what a message holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from authres import AuthenticationResultsHeader
from authres.core import AuthenticationResult, AuthenticationResultProperty, QuotableValue

from mailgate.core.auth import Arc, Authenticated, Dmarc, Iprev, Signature, Spf
from mailgate.core.envelope import printable

_WIDTH = 78  # RFC 5322 §2.1.1
_VALUE_MOST, _COMMENT_MOST = 255, 160  # characters
_MOST_SIGNATURES = 20  # results of their own
# pvalue = value / [ [ local-part ] "@" ] domain-name, RFC 8601 §2.2; RFC 2045's token has no "/", "=" and "?".
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL_PART = rf'{_ATOM}(?:\.{_ATOM})*|"[A-Za-z0-9 .,+_-]+"'
_UNQUOTED = re.compile(rf"{_WORD}|(?:{_LOCAL_PART})?@[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_IN_COMMENT = str.maketrans("()\\", "[]/")


class _Value(QuotableValue):  # type: ignore[misc]  # the library has no types
    """A value that is quoted wherever it has to be; authres leaves alone whatever has an @ in it."""

    def quote_if_needed(self) -> str:
        return str(self) if _UNQUOTED.fullmatch(self) else '"' + re.sub(r'(["\\])', r"\\\1", self) + '"'


def field(authserv_id: str, found: Authenticated | None) -> bytes:
    """The whole field with these results; "none" where nothing was checked."""
    results = list(_results(found)) if found else []
    return _folded(authserv_id, results) if results else _none(authserv_id)


@lru_cache(maxsize=2)
def _none(authserv_id: str) -> bytes:
    return f"{AuthenticationResultsHeader(authserv_id=authserv_id)}\r\n".encode("ascii")


def _results(found: Authenticated) -> Iterator[list[str]]:
    yield from map(_spf, found.spf)
    signatures = found.dkim or ()
    yield from map(_dkim, signatures[:_MOST_SIGNATURES])
    if found.dkim == ():
        yield _result("dkim", "none", "not signed")
    if len(signatures) > _MOST_SIGNATURES:
        yield _result("dkim", "neutral", f"{len(signatures) - _MOST_SIGNATURES} more signatures")
    if found.dmarc:
        yield _dmarc(found.dmarc)
    if found.arc:
        yield _arc(found.arc)
    if found.iprev:
        yield _iprev(found.iprev)


def _spf(found: Spf) -> list[str]:
    what = ("smtp", "mailfrom", found.sender) if found.identity == "mailfrom" else ("smtp", "helo", found.domain)
    return _result("spf", found.result, found.why, what)


def _dkim(found: Signature) -> list[str]:
    part = "" if found.covered else "only a part is signed"
    return _result(
        "dkim",
        found.result,
        "; ".join(filter(None, (part, found.why))),
        ("header", "d", found.domain),
        ("header", "s", found.selector),
        ("header", "a", found.algorithm),
        ("header", "i", found.identity),
    )


def _dmarc(found: Dmarc) -> list[str]:
    testing = "t=y; " if found.testing else ""
    at = f"p={found.policy} at {found.published}; " if found.published else ""
    asked = found.policy if found.published else ""
    what = ("header", "from", found.domain), ("policy", "dmarc", asked)
    return _result("dmarc", found.result, testing + at + found.why, *what)


def _arc(found: Arc) -> list[str]:
    sealed = f"sealed by {', '.join(found.sealers)}" if found.sealers else ""
    return _result("arc", found.result, "; ".join(filter(None, (found.why, sealed))))


def _iprev(found: Iprev) -> list[str]:
    return _result("iprev", found.result, found.host or found.why, ("policy", "iprev", found.ip))


def _result(method: str, result: str, comment: str, *properties: tuple[str, str, str]) -> list[str]:
    """The parts of a result between which the line may be folded."""
    said = _ascii(comment[:_COMMENT_MOST])[:_COMMENT_MOST].translate(_IN_COMMENT)
    parts = str(AuthenticationResult(method, result=result, result_comment=said or None)).split(" ")
    given = [_property(kind, name, short) for kind, name, value in properties if (short := _short(value))]
    return parts + sorted(given, key=lambda one: one.endswith('"'))


def _short(value: str) -> str:
    """A value that is too long, without its local part, or nothing: one that is cut names somebody else."""
    for one in (value, "@" + value.rpartition("@")[2]):
        if len(one) <= _VALUE_MOST and len(text := _ascii(one)) <= _VALUE_MOST:
            return text
    return ""


def _property(kind: str, name: str, value: str) -> str:
    made = AuthenticationResultProperty(kind, name)
    made.value = _Value(value)
    return str(made)


def _ascii(text: str) -> str:
    return " ".join(printable(text).encode("ascii", "backslashreplace").decode("ascii").split())


def _folded(authserv_id: str, results: list[list[str]]) -> bytes:
    lines = [f"Authentication-Results: {authserv_id}"]
    for parts in results:
        lines[-1] += ";"
        line = ""
        for part in parts:
            if line and len(line) + len(part) > _WIDTH - 2:
                lines.append(line)
                line = ""
            line += f" {part}"
        lines.append(line)
    return "\r\n\t".join(line.strip() for line in lines).encode("ascii") + b"\r\n"
