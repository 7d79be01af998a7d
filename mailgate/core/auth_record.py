"""What the checks of a sender came to as plain values that JSON can hold, and back.

What could not have been written so is a ValueError, a TypeError or a KeyError, never a wrong result.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from mailgate.core.auth import Arc, Authenticated, Dmarc, Iprev, Signature, Spf

_T = TypeVar("_T", Spf, Signature, Arc, Dmarc, Iprev)


def written(found: Authenticated) -> dict[str, Any]:
    """The results, without the look-ups and the time that they took; `read` undoes it."""
    tree = asdict(found)
    del tree["lookups"], tree["seconds"]
    return tree


def read(tree: dict[str, Any]) -> Authenticated:
    """The results that `written` wrote down. Raises ValueError, TypeError or KeyError for anything else."""
    dkim = tree["dkim"]
    return Authenticated(
        spf=tuple(_made(Spf, one) for one in tree["spf"]),
        dkim=None if dkim is None else tuple(_made(Signature, one) for one in dkim),
        arc=_optional(Arc, tree["arc"]),
        dmarc=_optional(Dmarc, tree["dmarc"]),
        iprev=_optional(Iprev, tree["iprev"]),
    )


def _optional(kind: type[_T], tree: dict[str, Any] | None) -> _T | None:
    return None if tree is None else _made(kind, tree)


def _made(kind: type[_T], tree: dict[str, Any]) -> _T:
    types = get_type_hints(kind)
    return kind(**{one.name: _value(types[one.name], tree[one.name]) for one in fields(kind)})


def _value(kind: Any, value: Any) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(value)
        return value
    if get_origin(kind) is tuple:
        return tuple(_value(str, one) for one in value)
    if type(value) is not kind:
        raise TypeError(value)
    return value
