"""Networks as people write them, and the sets in which they are listed.

Duty: an address, a network (host bits set or not), or a range becomes a span: a family and its first and last address
as numbers. An IPv4 address wrapped in IPv6 is an IPv4 address. What can't be read is a ValueError with words for the
person who wrote it, and so is what would list a whole family: that is never meant.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from mailgate.core import headers
from mailgate.core.verdict import Action

NetworkAction = Literal["reject", "hold", "defer", "tag", "discard"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

V4_MOST, V6_MOST = 2**32 - 1, 2**128 - 1
_MAPPED = 0xFFFF << 32  # ::ffff:0:0, RFC 4291 §2.5.5.2
_ACTIONS = {"tag": Action.ACCEPT} | {one.name.lower(): one for one in Action if one is not Action.ACCEPT}


class Span(NamedTuple):
    """The addresses from `first` to `last`, both in it, of IPv4 or IPv6."""

    family: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class NetworkSet:
    """A set of networks as one file has it: its name, whom it is for (None: the file's format has no contexts, so it
    is for everybody), what its owner says of it, the file, and how many networks it has there.
    """

    name: str
    contexts: tuple[str, ...] | None = None
    comment: str = ""
    file: str = ""
    entries: int = 0

    def is_for(self, contexts: Collection[str]) -> bool:
        """Is it for one of these contexts? Names of contexts are compared without case."""
        return self.contexts is None or not _folded(contexts).isdisjoint(_folded(self.contexts))


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """What the operator wants: the contexts that mailgate acts for, what it does, and what for some sets instead; and
    the contexts of layers which see each connection before mail does.
    """

    contexts: frozenset[str]
    action: NetworkAction
    actions: tuple[tuple[str, NetworkAction], ...]
    drift_contexts: tuple[str, ...]

    def action_of(self, one: NetworkSet) -> NetworkAction | None:
        """What is done with mail from a network in this set; None if the set is not for us."""
        if not one.is_for(self.contexts):
            return None
        return dict(self.actions).get(one.name, self.action)

    def strongest(self, found: Iterable[NetworkSet]) -> tuple[NetworkAction, Action] | None:
        """What is done with mail from a network in these sets, as the operator says it and as a rule does."""
        actions = (action for one in found if (action := self.action_of(one)))
        strongest = max(actions, key=_ACTIONS.__getitem__, default=None)
        return (strongest, _ACTIONS[strongest]) if strongest else None

    def drifted(self, found: Iterable[NetworkSet]) -> tuple[str, ...]:
        """The contexts whose layer should have stopped a connection from a network in these sets."""
        listed = _folded(context for one in found for context in one.contexts or ())
        return tuple(context for context in self.drift_contexts if context.casefold() in listed)

    def others(self, found: Iterable[NetworkSet]) -> tuple[str, ...]:
        """The contexts of these sets that mailgate does not act for, in order."""
        ours, contexts = _folded(self.contexts), {context for one in found for context in one.contexts or ()}
        return tuple(sorted(context for context in contexts if context.casefold() not in ours))


def nobodys(contexts: Iterable[str], sets: Iterable[NetworkSet]) -> tuple[str, ...]:
    """Of these contexts the ones that no set names; none where no set names any, as most formats have no contexts."""
    named = _folded(context for one in sets for context in one.contexts or ())
    return tuple(sorted(one for one in contexts if named and one.casefold() not in named))


def _folded(names: Iterable[str]) -> set[str]:
    return {name.casefold() for name in names}


def told(found: Sequence[NetworkSet]) -> dict[str, object]:
    """Where a client is listed, as fields of a log event; none where it is not."""
    return {"networks": [one.name for one in found]} if found else {}


def field(policy: NetworkPolicy, found: Sequence[NetworkSet]) -> bytes:
    """The header field of mail from a listed network that is let through for now; nothing for other mail. It says what
    is done with such mail, for list owners to match on, and not which set it is.
    """
    strongest = found and policy.strongest(found)
    return headers.field("X-Mailgate-Network", f"listed; action={strongest[0]}") if strongest else b""


def span(text: str) -> Span:
    """What "192.0.2.0/24", "2001:db8::1", "192.0.2.1-192.0.2.9" or "::ffff:192.0.2.0/120" stands for. Raises ValueError
    that says what is wrong with it.
    """
    first, dash, last = text.partition("-")
    found = _range(first.strip(), last.strip()) if dash else _network(text)
    if found.last - found.first == (V4_MOST if found.family == 4 else V6_MOST):
        raise ValueError(f"{text} is every address there is")
    return found


def _network(text: str) -> Span:
    address, slash, length = text.partition("/")
    family, number = _address(address, text)
    if not slash:
        return _unwrapped(Span(family, number, number))
    bits = 32 if family == 4 else 128
    if not (length.isascii() and length.isdigit() and int(length) <= bits):
        length = str(_from_mask(text, length))
    rest = (1 << (bits - int(length))) - 1
    return _unwrapped(Span(family, number & ~rest, number | rest))


def _from_mask(text: str, mask: str) -> int:
    try:
        return ipaddress.IPv4Network(f"0.0.0.0/{mask}").prefixlen  # as in 192.0.2.0/255.255.255.0
    except ValueError:
        raise ValueError(f"{text} is no network: after the / stands how many bits of it count") from None


def _range(first: str, last: str) -> Span:
    text = f"{first}-{last}"
    (family, low), (other, high) = _address(first, text), _address(last, text)
    if family != other:
        raise ValueError(f"{text} begins in one family of addresses and ends in the other")
    if low > high:
        raise ValueError(f"{text} ends before it begins")
    return _unwrapped(Span(family, low, high))


def _address(text: str, whole: str) -> tuple[int, int]:
    try:
        return (6, int(_v6(text))) if ":" in text else (4, int(ipaddress.IPv4Address(text)))
    except ValueError:
        raise ValueError(f"{whole} is no network") from None


def _v6(text: str) -> ipaddress.IPv6Address:
    if "%" in text:
        raise ValueError(text)  # of an interface of this host: no client's address
    return ipaddress.IPv6Address(text)


def _unwrapped(found: Span) -> Span:
    if found.family == 6 and found.first >> 32 == found.last >> 32 == _MAPPED >> 32:
        return Span(4, found.first & V4_MOST, found.last & V4_MOST)
    return found


def networks(found: Span) -> Iterator[Network]:
    """The fewest networks that make up a span."""
    kind = ipaddress.IPv4Address if found.family == 4 else ipaddress.IPv6Address
    yield from ipaddress.summarize_address_range(kind(found.first), kind(found.last))


def within(one: Span, other: Span) -> bool:
    """Are all addresses of one span in the other?"""
    return one.family == other.family and other.first <= one.first and one.last <= other.last


def touches(found: Span, network: Network) -> bool:
    """Have they an address in common?"""
    return found.family == network.version and found.first <= int(network[-1]) and int(network[0]) <= found.last


def said(found: Span) -> str:
    """A span as `span` reads it: a network if it is one, else a range."""
    first, *more = networks(found)
    kind = type(first.network_address)
    return f"{kind(found.first)}-{kind(found.last)}" if more else str(first)


def moment(text: str) -> int:
    """Seconds since the epoch of "2026-11-24" or "2026-11-24T10:00:00Z" (UTC where it does not say). Raises
    ValueError that says how to write one.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'{text} is no time: write "2026-11-24" or "2026-11-24T10:00:00Z"') from None
    return max(int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()), 1)


def said_moment(when: int) -> str:
    """A time as `moment` reads it."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
