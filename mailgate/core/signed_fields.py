"""The header fields that a signature covers, as octets to be hashed. RFC 6376 §3.4.1, §3.4.2, §5.4.2.

dkimpy works this out, too, but with patterns whose time grows with the square of what a stranger wrote (a line of
blanks of one MiB takes it hours), and for each signature anew. Here each octet is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from mailgate.core.dkim_body import one_blank

_FIELD = re.compile(rb"[^\n]+(?:\n[ \t][^\n]*)*\n?|\n")
_TAG_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
_MOST_TAGS = 50  # in a list; RFC 6376 has 14
_WHITE = b" \t\r\n"


class Fields:
    """The fields of a header block by name, in lower case. `read` has to be called until it is True."""

    def __init__(self, head: bytes) -> None:
        self._left = _FIELD.finditer(head)
        self._named: dict[bytes, list[bytes]] = {}
        self._relaxed: dict[bytes, bytes] = {}

    def read(self, most: int) -> bool:
        """Read the next `most` fields; True if none is left."""
        count = 0
        for found in islice(self._left, most):
            count += 1
            name, colon, _ = found[0].partition(b":")
            name = name.rstrip(b" \t").lower()
            if colon and name and b"\n" not in name:
                self._named.setdefault(name, []).append(found[0])
        return count < most

    def named(self, name: bytes) -> list[bytes]:
        """All fields of that name with their line ends, from the top."""
        return self._named.get(name, [])

    def octets(self, names: Iterable[bytes], signature: bytes, *, relaxed: bool) -> Iterator[bytes]:
        """What is signed: the fields of these names, each name's from the bottom up, and the signature's own field
        without its signature and without the end of its line (§3.7).
        """
        taken: Counter[bytes] = Counter()
        for name in names:
            taken[name] += 1
            found = self.named(name)
            if taken[name] <= len(found):
                field = found[-taken[name]]
                yield self.relaxed(field) if relaxed else field
        own = unsigned(signature)
        yield (relaxed_field(own) if relaxed else own).rstrip(b"\r\n")

    def relaxed(self, field: bytes) -> bytes:
        """A field in its relaxed form. Signatures sign the same ones, and one may be a MiB long."""
        known = self._relaxed.get(field)
        if known is None:
            known = self._relaxed[field] = relaxed_field(field)
        return known


def relaxed_field(field: bytes) -> bytes:
    """A field in its relaxed form, RFC 6376 §3.4.2."""
    name, _, value = field.partition(b":")
    return name.rstrip(b" \t").lower() + b":" + one_blank(value.replace(b"\r\n", b"")).strip(b" ") + b"\r\n"


def unsigned(field: bytes) -> bytes:
    """A signature's field with an empty b=, and everything else as it is."""
    name, colon, value = field.partition(b":")
    parts = [
        tag + b"=" if equals and tag.strip(_WHITE) == b"b" else tag + equals + rest
        for tag, equals, rest in (part.partition(b"=") for part in value.split(b";"))
    ]
    return name + colon + b";".join(parts)


def tags(text: bytes) -> dict[str, bytes]:
    """A list of tags, RFC 6376 §3.2. Raises ValueError that says what is wrong with it."""
    found: dict[str, bytes] = {}
    parts = text.split(b";")
    if not parts[-1].strip(_WHITE):
        parts.pop()
    if len(parts) > _MOST_TAGS:
        raise ValueError("too many tags")
    for part in parts:
        name, equals, value = part.partition(b"=")
        name = name.strip(_WHITE)
        if not equals or not _TAG_NAME.fullmatch(name):
            raise ValueError("not a list of tags")
        if name.decode() in found:
            raise ValueError(f"{name.decode()}= stands there twice")
        found[name.decode()] = value.strip(_WHITE)
    return found


def without_white(value: bytes) -> bytes:
    """The value of a tag in which white space means nothing, such as b= and bh=."""
    return b"".join(value.split())
