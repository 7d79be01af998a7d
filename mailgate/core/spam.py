"""What a spam score means here: Exim's arithmetic, the thresholds that apply, what is not scored at all.

Duty: a site that moves its ACL's numbers (`$spam_score_int > 60` is reject_score = 6.0) gets the decisions that Exim
made, and a message to several lists gets one decision. Everything here is total.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mailgate.core.addresses import matches
from mailgate.core.scan import Scan, Scored, Skipped

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
OnFailure = Literal["accept", "defer", "hold"]

AWAITS_SCORE = "unscored: held until it can be scored"  # why a recipient is held that nobody has to look at
_BAR_MOST = 51  # characters: its documentation says 50, but Exim 4.96 writes one more (tests/spam/test_exim_parity.py)
_INT_MOST = 2**31 - 1
_OFF, _TRUSTED = Skipped("off"), Skipped("trusted-network")
_TOO_LARGE, _EXEMPT = Skipped("too-large"), Skipped("exempt-recipients")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The scores above which a message is tagged, held, rejected; 0 is never."""

    tag: float
    hold: float
    reject: float

    @property
    def lowest(self) -> float:
        """The first of them that a score comes to; 0 if there is none."""
        return min((value for value in (self.tag, self.hold, self.reject) if value), default=0.0)


@dataclass(frozen=True, slots=True)
class ListThresholds:
    """Thresholds for the recipients that `match` (a glob, blind to case) as they are written, or as Mailman takes them;
    None is the one for all.
    """

    match: str
    tag: float | None
    hold: float | None
    reject: float | None


@dataclass(frozen=True, slots=True)
class SpamPolicy:
    """What the operator wants of spam scoring. `max_size` in octets; `skip_recipients` are addresses or local parts,
    in lower case.
    """

    enabled: bool
    thresholds: Thresholds
    lists: tuple[ListThresholds, ...]
    max_size: int
    on_failure: OnFailure
    skip_networks: tuple[Network, ...]
    skip_recipients: frozenset[str]


def exim_int(score: float) -> int:
    """Exim's $spam_score_int: tenths, cut off towards zero after a nudge that undoes binary fractions."""
    tenths = (score + 0.001) * 10
    return int(tenths) if -_INT_MOST < tenths < _INT_MOST else _INT_MOST if tenths > 0 else -_INT_MOST


def score_and_bar(score: float) -> str:
    """Exim's `$spam_score ($spam_bar)`: "7.2 (+++++++)", "0.4 (/)", "-3.2 (---)"."""
    length = abs(max(min(score, _BAR_MOST), -_BAR_MOST))
    bar = ("+" if score > 0 else "-") * int(length) or "/"
    return f"{score:.1f} ({bar})"


def over(score: float, threshold: float) -> bool:
    """Is the score above the threshold, as an ACL with `$spam_score_int > 10 * threshold` says it? Never above 0."""
    return threshold > 0 and exim_int(score) > exim_int(threshold)


def tagged(score: float, thresholds: Thresholds) -> bool:
    """Does the message get the header fields of spam? Also if it is held or rejected without a tag_score."""
    return any(over(score, threshold) for threshold in (thresholds.tag, thresholds.hold, thresholds.reject))


def thresholds(policy: SpamPolicy, recipients: Iterable[str]) -> Thresholds:
    """The thresholds for a message to these recipients.

    For each recipient the first entry of `lists` that matches it counts, and the general thresholds where it is
    silent. Of several recipients the strictest counts: nobody gets mail through to one list by naming another.
    """
    each = {_for_one(policy, recipient) for recipient in recipients} or {policy.thresholds}
    return Thresholds(
        _strictest([one.tag for one in each]),
        _strictest([one.hold for one in each]),
        _strictest([one.reject for one in each]),
    )


def _for_one(policy: SpamPolicy, recipient: str) -> Thresholds:
    general = policy.thresholds
    for own in policy.lists:
        if matches(recipient, own.match):
            return Thresholds(
                general.tag if own.tag is None else own.tag,
                general.hold if own.hold is None else own.hold,
                general.reject if own.reject is None else own.reject,
            )
    return general


def _strictest(values: list[float]) -> float:
    return min((value for value in values if value), default=0.0)


def skipped(policy: SpamPolicy, size: int, client_ip: str, recipients: Sequence[str]) -> Skipped | None:
    """Why a message of `size` octets from this client is not scored; None if it is to be."""
    if not policy.enabled:
        return _OFF
    if trusted(policy.skip_networks, client_ip):
        return _TRUSTED
    if size > policy.max_size:
        return _TOO_LARGE
    if recipients and all(_exempt(policy, recipient.lower()) for recipient in recipients):
        return _EXEMPT
    return None


def trusted(networks: tuple[Network, ...], client_ip: str) -> bool:
    """Is the client ("": unknown) in one of these networks, which are not looked at?"""
    if not client_ip or not networks:
        return False
    address = ipaddress.ip_address(client_ip)
    return any(address in network for network in networks)


def _exempt(policy: SpamPolicy, recipient: str) -> bool:
    return recipient in policy.skip_recipients or recipient.rpartition("@")[0] in policy.skip_recipients


def why_held(reasons: Iterable[str], scan: Scan | None) -> str:
    """What `queue list` says of a held message."""
    score = f" (score {scan.score:.1f})" if isinstance(scan, Scored) else ""
    return ", ".join(reasons) + score
