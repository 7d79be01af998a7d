"""Which addresses are one list's. Mailman answers to more than a list's own: `l-bounces+ann=example.org@lists.test`,
`"l"@lists.test`, `l-join+x@lists.test`.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache

_FUNCTIONS = ("admin", "bounces", "confirm", "join", "leave", "owner", "request", "subscribe", "unsubscribe")
_QUOTING = re.compile(r'\\(.)|"', re.DOTALL)
_ENDING = re.compile(rf"-({'|'.join(_FUNCTIONS)})$")


@lru_cache(maxsize=1024)  # each message asks, and there are fewer lists than messages
def list_of(address: str) -> str:
    """The list that an address belongs to: "l-bounces+ann=example.org@lists.test" to "l@lists.test"."""
    local, at, domain = address.rpartition("@")
    return _ENDING.sub("", local.partition("+")[0]) + at + domain


@lru_cache(maxsize=1024)
def plain(address: str) -> str:
    """The address as Mailman takes it apart, in lower case: `"L-join"+x@lists.test` is `l-join@lists.test` to it.

    Its server takes the quotes away (RFC 5321 §4.1.2: they mean nothing), and it looks at what stands before the first
    + of the local part only.
    """
    local, at, domain = address.lower().rpartition("@")
    if '"' in local or "\\" in local:
        local = _QUOTING.sub(lambda found: found[1] or "", local)
    return local.partition("+")[0] + at + domain


def matches(address: str, glob: str) -> bool:
    """Does the glob (blind to case) mean this address, as it is written, or as Mailman takes it?"""
    wanted = glob.lower()
    return fnmatchcase(plain(address), wanted) or fnmatchcase(address.lower(), wanted)


def of_list(pattern: str) -> list[str]:
    """Patterns (with * and ?) of all addresses of the lists that `pattern` means, itself among them."""
    local, at, domain = pattern.rpartition("@")
    if not at:
        return [pattern]
    names = [local, *(f"{local}-{function}" for function in _FUNCTIONS)]
    return [f"{name}{extension}@{domain}" for name in names for extension in ("", "+*")]
