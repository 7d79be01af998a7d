"""Domain names as the checks of a sender compare them: ASCII, lower case, no dot at the end.

Whatever is given, reading it ends with such a name or with none ("").
"""

from __future__ import annotations

import re
import unicodedata

_LONGEST = 253  # octets of a name, RFC 1035 §2.3.4
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")  # what is typed for a dot, RFC 3490 §3.1


def ascii_form(domain: str) -> str:
    """The name with its labels as A-labels (RFC 5890 §2.3.2.1), "" if it is none; an address literal is none."""
    if len(domain) > _LONGEST + 1:
        return ""
    seen = domain.lower() if domain.isascii() else unicodedata.normalize("NFKC", domain.translate(_DOTS).lower())
    labels = [_a_label(label) for label in seen.removesuffix(".").split(".")]
    name = ".".join(labels)
    return name if all(labels) and len(name) <= _LONGEST else ""


def _a_label(label: str) -> str:
    if len(label) > 63:
        return ""
    if not label.isascii():
        if any(
            c != "-" and unicodedata.category(c)[0] not in "LMN" for c in label
        ):  # about RFC 5892's letters and digits
            return ""
        label = "xn--" + label.encode("punycode").decode("ascii")  # RFC 5891 §4.4
    return label if _LABEL.fullmatch(label) else ""


def within(name: str, above: str) -> bool:
    """Is `name` the domain `above`, or one below it?"""
    return name == above or name.endswith("." + above)
