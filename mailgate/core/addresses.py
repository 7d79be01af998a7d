"""Which addresses are one list's. Mailman answers to more than a list's own: `l-bounces+ann=example.org@lists.test`."""

from __future__ import annotations

import re
from functools import lru_cache

_FUNCTIONS = ("admin", "bounces", "confirm", "join", "leave", "owner", "request", "subscribe", "unsubscribe")
_ENDING = re.compile(rf"-({'|'.join(_FUNCTIONS)})$")


@lru_cache(maxsize=1024)  # each message asks, and there are fewer lists than messages
def list_of(address: str) -> str:
    """The list that an address belongs to: "l-bounces+ann=example.org@lists.test" to "l@lists.test"."""
    local, at, domain = address.rpartition("@")
    return _ENDING.sub("", local.partition("+")[0]) + at + domain


def of_list(pattern: str) -> list[str]:
    """Patterns (with * and ?) of all addresses of the lists that `pattern` means, itself among them."""
    local, at, domain = pattern.rpartition("@")
    if not at:
        return [pattern]
    names = [local, *(f"{local}-{function}" for function in _FUNCTIONS)]
    return [f"{name}{extension}@{domain}" for name in names for extension in ("", "+*")]
