"""What the checks of a message's sender came to: values of closed sets, each with its why. RFC 8601 §2.7.

A check that could not be made is a result, too (temperror, permerror): no check raises an exception for what a sender
or the DNS does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from mailgate.core.envelope import printable

SpfResult = Literal["none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"]  # RFC 7208 §2.6
DkimResult = Literal["none", "pass", "fail", "policy", "neutral", "temperror", "permerror"]  # RFC 8601 §2.7.1
ArcResult = Literal["none", "pass", "fail", "temperror"]  # RFC 8617 §4.4; the DNS may be down, which it leaves open
DmarcResult = Literal["none", "pass", "fail", "temperror", "permerror"]  # RFC 9989
IprevResult = Literal["pass", "fail", "temperror", "permerror"]  # RFC 8601 §2.7.3
Disposition = Literal["none", "quarantine", "reject"]

RESULTS: dict[str, tuple[str, ...]] = {
    "spf": get_args(SpfResult),
    "dkim": get_args(DkimResult),
    "dmarc": get_args(DmarcResult),
    "arc": get_args(ArcResult),
    "iprev": get_args(IprevResult),
}

# What the DNS said: records; no such name; the name, but none of that type; a server's failure; no answer in time;
# an answer that makes no sense; not asked, because the message had asked enough.
Answer = Literal["found", "nxdomain", "nodata", "servfail", "timeout", "garbage", "too-many"]
RecordType = Literal["TXT", "A", "AAAA", "MX", "PTR"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the DNS said. `records` are there with "found" only: the octets of each TXT record (its strings joined),
    addresses as text, "10 mx.example.org", names in lower case without the final dot. `cached`: nobody was asked.
    """

    answer: Answer
    records: tuple[bytes, ...] = ()
    cached: bool = False

    @property
    def known(self) -> bool:
        """Did the DNS answer? There is something, or there is nothing; else nobody knows."""
        return self.answer in {"found", "nxdomain", "nodata"}


@dataclass(frozen=True, slots=True)
class Lookup:
    """One question to the DNS: `seconds` is how long it took, `cached` that nobody had to be asked."""

    name: str
    type: str
    answer: Answer
    seconds: float
    cached: bool


@dataclass(frozen=True, slots=True)
class Spf:
    """May this client send for `domain`? `sender` is the mailbox that was checked ("postmaster@" the HELO argument for
    the HELO identity, and for the null reverse-path, RFC 7208 §2.4).
    """

    result: SpfResult
    identity: Literal["mailfrom", "helo"]
    domain: str
    sender: str
    why: str


@dataclass(frozen=True, slots=True)
class Signature:
    """One DKIM signature. `identity` is its i= or the default of that, `bits` the length of the key (0: unknown),
    `covered` False when l= leaves a part of the body unsigned: such a pass counts for nothing in DMARC.
    """

    result: DkimResult
    domain: str
    selector: str
    identity: str
    algorithm: str
    bits: int
    covered: bool
    why: str


@dataclass(frozen=True, slots=True)
class Arc:
    """The chain: `sealers` are the domains of its seals, the oldest first."""

    result: ArcResult
    sealers: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Dmarc:
    """`domain` is the author's (From), `published` where the record was found, `policy` what it asks for a failure of
    this author's domain (sp and np taken into account), `testing` that t=y takes a step off it. Where From has more
    domains than are looked at, or is longer than what is read (`domain` ""), it is "reject", and `published` "".
    """

    result: DmarcResult
    domain: str
    published: str
    policy: Disposition
    testing: bool
    why: str


@dataclass(frozen=True, slots=True)
class Iprev:
    """Has the client's address a name that has this address? `host` is that name, "" if there is none."""

    result: IprevResult
    ip: str
    host: str
    why: str


@dataclass(frozen=True, slots=True)
class Authenticated:
    """All of it. What is switched off is absent: () for SPF, None elsewhere; `dkim` is () where nothing is signed.
    `lookups` stand in the order of their answers, for people; `seconds` is what all of it took.
    """

    spf: tuple[Spf, ...] = ()
    dkim: tuple[Signature, ...] | None = None
    arc: Arc | None = None
    dmarc: Dmarc | None = None
    iprev: Iprev | None = None
    lookups: tuple[Lookup, ...] = ()
    seconds: float = 0.0


def results(found: Authenticated) -> Iterator[tuple[str, str]]:
    """Each method and a result of it."""
    yield from (("spf", one.result) for one in found.spf)
    yield from (("dkim", one.result) for one in found.dkim or ())
    if found.dkim == ():
        yield ("dkim", "none")
    if found.dmarc:
        yield "dmarc", found.dmarc.result
    if found.arc:
        yield "arc", found.arc.result
    if found.iprev:
        yield "iprev", found.iprev.result


def told(found: Authenticated | None) -> dict[str, object]:
    """What was found, as fields of a log event; none where nothing was checked."""
    if found is None:
        return {}
    fields: dict[str, object] = {f"spf_{one.identity}": one.result for one in found.spf}
    if found.dkim is not None:
        fields["dkim"] = [f"{one.result} {printable(one.domain)}" for one in found.dkim]
    if found.arc:
        fields["arc"] = found.arc.result
    if found.dmarc:
        fields |= {"dmarc": found.dmarc.result, "author": found.dmarc.domain, "dmarc_policy": found.dmarc.policy}
    return fields
