"""How much mail a client's network may send, and how many subscriptions it may ask for: token buckets, as numbers.

Promises: a message that is over a limit takes nothing, so who waits is let in; memory is bounded: of one limit MOST
networks are known, and the one that was heard of longest ago is forgotten first (its bucket is the fullest).
Nothing here looks at a clock: `now` is in seconds, of a clock that never goes back.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mailgate.core.addresses import plain
from mailgate.core.envelope import Client, Envelope, printable
from mailgate.core.spam import Network

MOST = 20_000  # keys of one limit: some 5 MB
_SENDER_MOST = 254  # characters of a reverse-path that count; RFC 5321 §4.5.3.1.3

# Mail to the addresses of a list that subscribe somebody; all mail of a network; all mail of a network and a sender.
Limit = Literal["commands", "network", "sender"]
LIMITS: tuple[Limit, ...] = get_args(Limit)
_COMMANDS = re.compile(r"-(?:join|subscribe|request|confirm)@[^@]*\Z")


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` at once, and that many again in each `period` (seconds)."""

    count: int
    period: float


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """What the operator wants: a rate for each limit that applies, how many bits of an address make its network, and
    the networks that are not limited.
    """

    rates: Mapping[Limit, Rate]
    ipv4_prefix: int
    ipv6_prefix: int
    skip_networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Offender:
    """Who was over a limit: how often, and how much of the rate is used up (1.0: all of it)."""

    limit: Limit
    key: str
    refused: int
    used: float


class Buckets:
    """The buckets of one limit, by key. What is kept of each is the time at which it will be full again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._full_at: dict[str, float] = {}  # the one that was touched last stands last
        self._refused: dict[str, int] = {}  # how often; of keys that are in the other

    def __len__(self) -> int:
        return len(self._full_at)

    def room(self, key: str, amount: int, rate: Rate, now: float) -> bool:
        """Are there so many tokens? More than a full bucket has, there never are."""
        return self._missing(key, rate, now) + amount * rate.period / rate.count <= rate.period * (1 + 1e-9)

    def take(self, key: str, amount: int, rate: Rate, now: float) -> None:
        """Take them, whether or not there is room."""
        full_at = now + self._missing(key, rate, now) + amount * rate.period / rate.count
        self._full_at.pop(key, None)
        self._full_at[key] = full_at
        if len(self._full_at) > self._most:
            oldest = next(iter(self._full_at))
            del self._full_at[oldest]
            self._refused.pop(oldest, None)

    def refuse(self, key: str, rate: Rate, now: float) -> None:
        """Remember that there was no room."""
        self.take(key, 0, rate, now)
        self._refused[key] = self._refused.get(key, 0) + 1

    def worst(self, limit: Limit, rate: Rate, now: float, most: int) -> list[Offender]:
        """Those that were refused most often, of all that are known."""
        refused = sorted(self._refused.copy().items(), key=lambda one: -one[1])[:most]  # another thread may ask
        return [Offender(limit, key, count, self._missing(key, rate, now) / rate.period) for key, count in refused]

    def _missing(self, key: str, rate: Rate, now: float) -> float:
        """Seconds until the bucket is full."""
        return min(max(self._full_at.get(key, now) - now, 0.0), rate.period)


class Limiter:
    """All limits together."""

    def __init__(self, most: int = MOST) -> None:
        self._buckets = {limit: Buckets(most) for limit in LIMITS}

    def over(self, client: Client, envelope: Envelope, policy: LimitPolicy, now: float) -> Limit | None:
        """The first limit that the message is over; None if it is within all of them, and it is then counted."""
        network = network_of(client.ip, policy) if policy.rates and client.ip else ""
        if not network:
            return None
        wanted = [(limit, *one) for limit in policy.rates if (one := _asks(limit, network, envelope))]
        for limit, key, amount in wanted:
            if not self._buckets[limit].room(key, amount, policy.rates[limit], now):
                self._buckets[limit].refuse(key, policy.rates[limit], now)
                return limit
        for limit, key, amount in wanted:
            self._buckets[limit].take(key, amount, policy.rates[limit], now)
        return None

    def worst(self, policy: LimitPolicy, now: float, most: int) -> list[Offender]:
        """The keys of each limit that were refused most often, the worst first."""
        found = (self._buckets[limit].worst(limit, rate, now, most) for limit, rate in policy.rates.items())
        return sorted((one for some in found for one in some), key=lambda one: -one.refused)[:most]


def network_of(ip: str, policy: LimitPolicy) -> str:
    """The network that an address is counted with; "" if it is not limited."""
    address = ipaddress.ip_address(ip)
    if any(address in network for network in policy.skip_networks):
        return ""
    prefix = policy.ipv4_prefix if address.version == 4 else policy.ipv6_prefix
    return str(ipaddress.ip_network((address, prefix), strict=False))


def commands(recipients: Sequence[str]) -> int:
    """How many of these are addresses that subscribe somebody, or have mail sent to whom the sender names."""
    return sum(_COMMANDS.search(plain(recipient)) is not None for recipient in recipients)


def _asks(limit: Limit, network: str, envelope: Envelope) -> tuple[str, int] | None:
    """The key, and how many tokens the message takes from its bucket."""
    if limit == "network":
        return network, 1
    if limit == "commands":
        amount = commands(envelope.recipients)
        return (network, amount) if amount else None
    # Bounces have no sender: those of a large host are not of one.
    sender = printable(envelope.sender.lower())[:_SENDER_MOST]
    return (f"{network} {sender}", 1) if sender else None
