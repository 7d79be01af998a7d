"""A DMARC record, read from the text of its TXT record. RFC 9989 §4.7, §4.8; those of RFC 7489 are read as well.

Unknown tags (pct, rf and ri of old among them) are ignored, and so is what is wrong in a tag that has a default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mailgate.core.auth import Disposition

_LONGEST = 4096  # characters that are read
_VERSION = re.compile(r"[vV][ \t]*=[ \t]*DMARC1[ \t]*")  # RFC 9989 §4.7: it matches precisely, and comes first
_DISPOSITIONS: dict[str, Disposition] = {"none": "none", "quarantine": "quarantine", "reject": "reject"}
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s,;]+")


@dataclass(frozen=True, slots=True)
class Record:
    """What the owner of a domain wants done with mail that fails: `p` for the domain itself, `sp` below it, `np` for
    names below it that don't exist. `psd` is whether it is a public suffix, `testing` its t=y. `unusable`: why it is no
    policy at all, "" if it is one.
    """

    p: Disposition = "none"
    sp: Disposition = "none"
    np: Disposition = "none"
    strict_dkim: bool = False
    strict_spf: bool = False
    psd: Literal["y", "n", "u"] = "u"
    testing: bool = False
    unusable: str = ""


def record(text: str) -> Record | None:
    """The record of that text, None if it is none of DMARC's."""
    version, *rest = text[:_LONGEST].split(";")
    if not _VERSION.fullmatch(version):
        return None
    tags: dict[str, str] = {}
    for part in rest:
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip().lower(), value.strip())
    asked = {name: tags[name].lower() for name in ("p", "sp", "np") if name in tags}
    wrong = [f"{name}={value}" for name, value in asked.items() if value not in _DISPOSITIONS]
    reported = any(_URI.fullmatch(uri.strip()) for uri in tags.get("rua", "").split(","))
    p = _DISPOSITIONS.get(asked.get("p", "none"), "none")
    sp = _DISPOSITIONS.get(asked.get("sp", p), "none")
    np = _DISPOSITIONS.get(asked.get("np", sp), "none")
    if wrong:  # RFC 9989 §4.10.1: as if p=none, if reports are asked for; else no DMARC
        p = sp = np = "none"
    psd: Literal["y", "n", "u"] = "y" if tags.get("psd") == "y" else "n" if tags.get("psd") == "n" else "u"
    return Record(
        p,
        sp,
        np,
        strict_dkim=tags.get("adkim", "").lower() == "s",
        strict_spf=tags.get("aspf", "").lower() == "s",
        psd=psd,
        testing=tags.get("t", "").lower() == "y",
        unusable=f"{wrong[0]} is no policy" if wrong and not reported else "",
    )
