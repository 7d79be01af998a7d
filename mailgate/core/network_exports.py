"""The lists for other layers, each in the words of the program that acts on it.

Duty: of the sets that are asked for, what is listed now, without the networks that are never to be stopped; merged, so
that no network lies in another. The text has no time in it: the same lists are the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from mailgate.core.network_table import Table
from mailgate.core.networks import Network, NetworkSet, Span, networks, touches

_WRITTEN = "Written by `mailgate networks export`: it is written anew, changes are lost."


def spans(table: Table, wanted: Callable[[NetworkSet], bool], spared: Sequence[Network], now: float) -> list[Span]:
    """What the wanted sets list at this time (seconds since the epoch) but for what is spared, in order."""
    found: list[Span] = []
    for stretch, cover in table.stretches():
        if not any(wanted(of) and not 0 < expires <= now for of, expires in cover):
            continue
        if found and found[-1].family == stretch.family and found[-1].last + 1 == stretch.first:
            found[-1] = found[-1]._replace(last=stretch.last)
        else:
            found.append(stretch)
    for network in spared:
        found = [part for one in found for part in _without(one, network)]
    return found


def _without(one: Span, network: Network) -> Iterator[Span]:
    if not touches(one, network):
        yield one
        return
    first, last = int(network[0]), int(network[-1])
    if one.first < first:
        yield one._replace(last=first - 1)
    if last < one.last:
        yield one._replace(first=last + 1)


def plain(found: Iterable[Network], _: str) -> Iterator[str]:
    """A network a line."""
    yield f"# {_WRITTEN}"
    yield from map(str, found)


def exim(found: Iterable[Network], _: str) -> Iterator[str]:
    """A file for net-iplsearch; the colons of IPv6 need quotes (Exim's specification, chapter 9)."""
    yield f"# {_WRITTEN}"
    yield from (f'"{one}"' if one.version == 6 else str(one) for one in found)


def apache(found: Iterable[Network], _: str) -> Iterator[str]:
    """Lines for inside <RequireAll>."""
    yield f"# {_WRITTEN}"
    yield from (f"Require not ip {one}" for one in found)


def varnish(found: Iterable[Network], name: str) -> Iterator[str]:
    """An ACL of VCL."""
    yield f"# {_WRITTEN}"
    yield f"acl {name} {{"
    yield from (f'  "{one.network_address}"/{one.prefixlen};' for one in found)
    yield "}"


def ferm(found: Iterable[Network], name: str) -> Iterator[str]:
    """A definition, as in `saddr @ipfilter($NAME) DROP;`."""
    yield f"# {_WRITTEN}"
    yield f"@def ${name.upper()} = ("
    yield from (f"  {one}" for one in found)
    yield ");"


def nftables(found: Iterable[Network], name: str) -> Iterator[str]:
    """Two sets of table `inet mailgate`, one a family; `nft -f` puts the new elements in place of the old at once."""
    networks = tuple(found)
    yield f"# {_WRITTEN}"
    yield "add table inet mailgate"
    for family in (4, 6):
        one = f"inet mailgate {name}{family}"
        yield f"add set {one} {{ type ipv{family}_addr; flags interval; auto-merge; }}"
        yield f"flush set {one}"
        elements = [str(network) for network in networks if network.version == family]
        if elements:
            yield f"add element {one} {{"
            yield from (f"  {element}," for element in elements)
            yield "}"


FORMATS: dict[str, Callable[[Iterable[Network], str], Iterator[str]]] = {
    "exim": exim,
    "nftables": nftables,
    "ferm": ferm,
    "apache": apache,
    "varnish": varnish,
    "plain": plain,
}


# Words of these programs that no set may have for a name; of nftables those that are one with the 4 or 6 behind them.
_TAKEN = {
    "nftables": {"ip", "icmpv"},
    "varnish": {
        *(
            "acl",
            "backend",
            "ban",
            "bereq",
            "beresp",
            "call",
            "default",
            "false",
            "hash_data",
            "if",
            "import",
            "include",
        ),
        *("new", "now", "probe", "req", "resp", "return", "set", "sub", "true", "unset", "vcl"),
    },
}


def is_taken(form: str, name: str) -> bool:
    """Does a name mean something else to the program of this format?"""
    return name in _TAKEN.get(form, ()) or (form == "varnish" and name.startswith("vcl_"))


def text(form: str, found: Iterable[Span], name: str) -> str:
    """The whole file in one of FORMATS. `name` is that of the set, where the format has names."""
    lines = FORMATS[form]((network for one in found for network in networks(one)), name)
    return "".join(f"{line}\n" for line in lines)
