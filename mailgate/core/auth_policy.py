"""What the operator wants done with mail whose sender is not who it says: nothing by default, since lists and
forwarders break SPF and DKIM every day.

Duty: which checks a message gets, and how strict its recipients are. Everything here is total.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mailgate.core.addresses import matches
from mailgate.core.auth import Authenticated, Disposition
from mailgate.core.domains import within
from mailgate.core.envelope import Client
from mailgate.core.spam import Network, trusted

Enforcement = Literal["none", "hold", "reject"]
_STRICTNESS: tuple[Enforcement, ...] = ("none", "hold", "reject")
_A_STEP_DOWN: dict[Disposition, Disposition] = {"reject": "quarantine", "quarantine": "none", "none": "none"}


@dataclass(frozen=True, slots=True)
class ListEnforcement:
    """Another strictness for the recipients that `match` (`addresses.matches`); None is the one for all."""

    match: str
    dmarc: Enforcement | None
    spf: Enforcement | None


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """What the operator wants. `sealers` are the domains whose ARC seals are believed, with all below them."""

    enabled: bool
    dmarc: Enforcement
    spf: Enforcement
    lists: tuple[ListEnforcement, ...]
    sealers: tuple[str, ...]
    skip_networks: tuple[Network, ...]


def skipped(policy: AuthPolicy, client: Client) -> str:
    """Why nothing is to be checked, "" if it is. Not of mail of the site's own, which is signed where it leaves."""
    if not policy.enabled:
        return "off"
    if client.user:
        return "authenticated-user"
    if client.source != "unknown" and not client.ip:
        return "local-program"
    return "trusted-network" if trusted(policy.skip_networks, client.ip) else ""


def for_dmarc(policy: AuthPolicy, recipients: Iterable[str]) -> Enforcement:
    """How strict a message to these recipients is with DMARC: the strictest of them counts."""
    return _strictest([_own(policy.lists, one, policy.dmarc, "dmarc") for one in recipients] or [policy.dmarc])


def for_spf(policy: AuthPolicy, recipients: Iterable[str]) -> Enforcement:
    """The same with SPF's "fail"."""
    return _strictest([_own(policy.lists, one, policy.spf, "spf") for one in recipients] or [policy.spf])


def _own(
    lists: tuple[ListEnforcement, ...], recipient: str, general: Enforcement, key: Literal["dmarc", "spf"]
) -> Enforcement:
    """The first entry that matches counts, and the general word where it is silent."""
    for one in lists:
        if matches(recipient, one.match):
            return getattr(one, key) or general
    return general


def _strictest(words: Iterable[Enforcement]) -> Enforcement:
    return max(words, key=_STRICTNESS.index)


def asked_for(found: Authenticated) -> Disposition:
    """What the author's domain wants done with this message: "none" unless DMARC fails. t=y takes a step off it.

    A permerror asks for something only where nobody is looked at: From has too many domains, or is too long to be read.
    """
    if found.dmarc is None or found.dmarc.result not in {"fail", "permerror"}:
        return "none"
    return _A_STEP_DOWN[found.dmarc.policy] if found.dmarc.testing else found.dmarc.policy  # RFC 9989 §4.7


def sealed(policy: AuthPolicy, found: Authenticated) -> bool:
    """Does a chain of seals vouch for the message, all by sealers that are trusted? One alone would vouch for what
    somebody else has written into the chain before it.
    """
    if found.arc is None or found.arc.result != "pass" or not found.arc.sealers:
        return False
    return all(any(within(sealer, one) for one in policy.sealers) for sealer in found.arc.sealers)
