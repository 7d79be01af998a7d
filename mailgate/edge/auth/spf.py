"""SPF, by pyspf, which is synchronous: it is asked again with each answer that it lacked. RFC 7208.

pyspf asks the DNS through a function of its module, for the whole process; ours asks nothing. What pyspf wants to know
and we do not is thrown out of it, looked up on the event loop, and it begins anew: a few times for real records, and
never more often than a message may ask. No thread waits for anybody, and nothing is left behind by one message that
another could see.
Promises: all limits of RFC 7208 §4.6.4 hold, and ours on questions and lengths, which are stricter in what they count.
How it fails: never with an exception; what a record does wrong is `permerror`, what can't be known `temperror`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, cast

import spf

from mailgate.core.auth import RecordType, Resolved, Spf
from mailgate.core.domains import ascii_form
from mailgate.core.envelope import Client, printable
from mailgate.edge.auth.asking import Asking
from mailgate.turns import Turns

_RECORD = 4096  # octets; a longer one would not come by UDP (§3.4)
_TERM = 512  # octets
_ADDRESSES = 100  # of one name
_NAMES = 10  # of an address, §4.6.4
_LONGEST = 253  # octets of a name, §7.3
_ADDRESS = 320  # characters
_LABEL = re.compile(r"[0-9a-z](?:[0-9a-z-]{0,61}[0-9a-z])?", re.IGNORECASE)
_NO_LABELS = re.compile(r"%[%_-]|(%\{[a-z]0+(?![0-9]))", re.IGNORECASE)
_MACRO_AT_THE_END = re.compile(r"(?:%[%_-]|%\{[^{}]*\})\.?\Z")

Identity = Literal["mailfrom", "helo"]


class _Question(NamedTuple):
    name: str
    type: RecordType


class _Lacks(Exception):
    def __init__(self, question: _Question) -> None:
        super().__init__(question)
        self.question = question


class _Query(spf.query):  # type: ignore[misc]
    """One evaluation. `known` is what the DNS has said so far."""

    def __init__(self, ip: str, local: str, domain: str, helo: str, known: Mapping[_Question, Resolved]) -> None:
        local = local.encode("ascii", "replace").decode("ascii")  # RFC 8616 §4: what is not ASCII matches nothing
        super().__init__(i=ip, s=f"{local}@{domain}", h=helo)
        self.l, self.o, self.d = local, domain, domain
        self._known = known

    def dns(self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False) -> list[Any]:  # noqa: ARG002, FBT001, FBT002
        """What pyspf wants to know, in its form. An answer of nothing counts (§4.6.4)."""
        found = self._answer(str(name), qtype)
        if not found.known:
            raise spf.TempError(f"{qtype} of {name}: {found.answer}")
        if not found.records and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(f"more than {spf.MAX_VOID_LOOKUPS} look-ups found nothing")
        if qtype in {"A", "AAAA"} and len(found.records) > _ADDRESSES:
            raise spf.PermError(f"{name} has more than {_ADDRESSES} addresses")
        return [_as_pyspf_has_it(record, qtype) for record in found.records]

    def _answer(self, name: str, qtype: str) -> Resolved:
        question = _Question(name.lower().removesuffix("."), cast(RecordType, qtype))  # pyspf does not ask for SPF
        try:
            return self._known[question]
        except KeyError:
            raise _Lacks(question) from None

    def dns_spf(self, domain: str) -> str | None:
        """The record; one whose reading would take long is none that we accept."""
        record: str | None = super().dns_spf(domain)
        if record and (len(record) > _RECORD or max(map(len, record.split(" "))) > _TERM):
            raise spf.PermError(f"the record of {domain} is too long")
        return record

    def validated_ptrs(self) -> list[str]:
        """The names of the client. §5.5: what can't be looked up is no name."""
        record = "AAAA" if self.v == "ip6" else "A"
        names = self._answer(f"{spf.reverse_dots(self.i)}.{self.v}.arpa", "PTR").records[:_NAMES]
        wanted = str(self.ipaddr).encode()
        texts = [name.decode("ascii", "replace") for name in names]
        return [name for name in texts if wanted in self._answer(name, record).records]

    def expand_domain(self, arg: str) -> str:
        """Pyspf's pattern for the last label takes the square of its length. §7.1, §7.3."""
        last = arg.removesuffix(".").rpartition(".")
        if not _MACRO_AT_THE_END.search(arg) and (not last[1] or last[2].isdigit() or not _LABEL.fullmatch(last[2])):
            raise spf.PermError("not a domain", arg)
        if any(found[1] for found in _NO_LABELS.finditer(arg)):  # §7.1: the number of labels is not zero
            raise spf.PermError("a macro without labels", arg)
        name: str = self.expand(arg)
        while len(name) > _LONGEST and "." in name:
            name = name.partition(".")[2]
        return name

    def get_explanation(self, spec: str) -> None:
        """Nobody is told why by the sender's own words, so they are not asked for (§6.2)."""

    def cidrmatch(self, addresses: Sequence[str], length: int) -> bool:
        """Is the client in one of these networks? pyspf takes ten times as long."""
        shift = self.ipaddr.max_prefixlen - length
        client = int(self.ipaddr) >> shift
        try:
            found = map(ipaddress.ip_address, addresses)
            return any(one.version == self.ipaddr.version and int(one) >> shift == client for one in found)
        except ValueError as error:
            raise spf.PermError(str(error)) from None


def _as_pyspf_has_it(record: bytes, qtype: str) -> Any:
    if qtype == "TXT":
        return (record,)
    text = record.decode("ascii", "replace")
    if qtype == "MX":
        preference, _, exchange = text.partition(" ")
        return int(preference), exchange
    return text


async def check(client: Client, sender: str, asking: Asking, turns: Turns) -> tuple[Spf, ...]:
    """What SPF says of MAIL FROM and of HELO, in that order. A null reverse-path is HELO's postmaster (§2.4)."""
    evaluation = _Evaluation(client, asking, turns)
    of_helo = evaluation.result("helo", "postmaster", client.helo)
    if not sender:
        found = await of_helo
        return (replace(found, identity="mailfrom"), found)
    local, _, host = sender.rpartition("@")
    return tuple(await asyncio.gather(evaluation.result("mailfrom", local or "postmaster", host), of_helo))


def nobody(client: Client) -> str:
    """Why no record can speak of this client, "" if one can."""
    try:
        address = ipaddress.ip_address(client.ip)
    except ValueError:
        return "the client's address is not known"
    ours = (getattr(address, "ipv4_mapped", None) or address).is_loopback
    return "the client is this host" if ours else ""


def unknown(client: Client, sender: str, why: str) -> tuple[Spf, ...]:
    """What is said when there was no time to find out."""
    local, _, host = (sender or f"postmaster@{client.helo}").rpartition("@")
    return (Spf("temperror", "mailfrom", ascii_form(host), _address(local, host), why),)


def _address(local: str, host: str) -> str:
    """Whom the result is about. Never an address that was cut somewhere: that would be somebody else's."""
    text = printable(f"{local}@{host}")
    return text if host and len(text) <= _ADDRESS else f"@{ascii_form(host)}".removesuffix("@")


class _Evaluation:
    """Both identities of one message, which share what the DNS has said."""

    def __init__(self, client: Client, asking: Asking, turns: Turns) -> None:
        self._client = client
        self._helo = ascii_form(client.helo)
        self._asking = asking
        self._turns = turns
        self._known: dict[_Question, Resolved] = {}

    async def result(self, identity: Identity, local: str, host: str) -> Spf:
        """What one identity comes to."""
        domain = ascii_form(host)
        sender = _address(local, host)
        if why := self._why_not(domain):
            return Spf("none", identity, domain, sender, why)
        while True:
            query = _Query(self._client.ip, local, domain, self._helo, self._known)
            try:
                result, _, text = await self._turns.take(query.check)
                return Spf(result, identity, domain, sender, self._why(result, text, query))
            except _Lacks as lack:
                self._known[lack.question] = await self._asking.ask(*lack.question)

    def _why_not(self, domain: str) -> str:
        """Why there is nothing to check: the client is not known, or it is ourselves, or §4.3."""
        return nobody(self._client) or ("" if "." in domain else "no domain")

    def _why(self, result: str, text: str, query: _Query) -> str:
        match result:
            case "none":
                return "no record"
            case "temperror" | "permerror":
                return printable(text.partition("Error: ")[2])[:250]
        return printable(f"{query.mechanism or 'nothing'} matches {query.c}")[:250]
