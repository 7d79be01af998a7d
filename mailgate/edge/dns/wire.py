"""One question to one name server: by UDP, and by TCP where the answer was cut (RFC 7766 §5).

Promises: an end within `patience`; an answer from elsewhere or to another question is not heard; of an answer no more
than _MOST is read, so that none takes long to understand.
How it fails: TimeoutError, OSError (nobody there), Garbage (an answer that can't be understood).
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from mailgate.core.auth import RecordType, Resolved
from mailgate.core.endpoint import Endpoint

_MOST = 16 * 1024  # octets of an answer by TCP: 10 ms to understand, and no honest one is half as large
_PAYLOAD = 1232  # octets by UDP that no network breaks into fragments


class Garbage(Exception):
    """The server said something that is no answer."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and for how many seconds it may be believed."""

    resolved: Resolved
    ttl: float


def query(name: str, record: RecordType) -> dns.message.QueryMessage | None:
    """The question; None if there can't be such a name (RFC 1035 §2.3.4; escapes mean nothing in names of mail)."""
    try:
        labels = [label.encode("ascii") for label in name.split(".")]
        return dns.message.make_query(dns.name.Name([*labels, b""]), record, use_edns=0, payload=_PAYLOAD)
    except (UnicodeEncodeError, dns.exception.DNSException):
        return None


def probe() -> dns.message.QueryMessage:
    """A question that every resolver has the answer to."""
    return dns.message.make_query(dns.name.root, "NS", use_edns=0, payload=_PAYLOAD)


async def ask(server: Endpoint, question: dns.message.QueryMessage, patience: float) -> dns.message.Message:
    """The server's answer within `patience` seconds."""
    async with asyncio.timeout(patience):
        answer = await _by_udp(server, question)
        return await _by_tcp(server, question) if answer.flags & dns.flags.TC else answer


def said(answer: dns.message.Message, record: RecordType) -> Said:
    """What the answer says. Raises Garbage."""
    rcode = answer.rcode()
    if rcode not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
        return Said(Resolved("servfail"), 0.0)
    assert isinstance(answer, dns.message.QueryMessage)
    try:
        chain = answer.resolve_chaining()
    except dns.exception.DNSException as error:
        raise Garbage(type(error).__name__) from None
    if chain.answer is None:
        return Said(Resolved("nxdomain" if rcode == dns.rcode.NXDOMAIN else "nodata"), chain.minimum_ttl)
    return Said(Resolved("found", tuple(_written(one, record) for one in chain.answer)), chain.minimum_ttl)


def _written(one: object, record: RecordType) -> bytes:
    match record:
        case "TXT":
            return b"".join(one.strings)  # type: ignore[attr-defined]
        case "MX":
            return f"{one.preference} {_name(one.exchange)}".encode()  # type: ignore[attr-defined]
        case "PTR":
            return _name(one.target).encode()  # type: ignore[attr-defined]
        case "A" | "AAAA":
            return str(one.address).encode()  # type: ignore[attr-defined]


def _name(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _understood(octets: bytes, question: dns.message.QueryMessage) -> dns.message.Message:
    try:
        answer = dns.message.from_wire(octets, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError) as error:
        raise Garbage(type(error).__name__) from None
    if not question.is_response(answer):
        raise Garbage("an answer to another question")
    return answer


class _Datagrams(asyncio.DatagramProtocol):
    """Hears the first datagram that has the id of the question."""

    def __init__(self, question: int) -> None:
        self._id = struct.pack("!H", question)
        self.heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002  the kernel has looked at it
        if data.startswith(self._id) and not self.heard.done():
            self.heard.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.heard.done():
            self.heard.set_exception(exc)


async def _by_udp(server: Endpoint, question: dns.message.QueryMessage) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Datagrams(question.id), remote_addr=(server.host, server.port)
    )
    try:
        transport.sendto(question.to_wire())
        return _understood(await protocol.heard, question)
    finally:
        transport.abort()


async def _by_tcp(server: Endpoint, question: dns.message.QueryMessage) -> dns.message.Message:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(question.to_wire(prepend_length=True))
        length = int.from_bytes(await reader.readexactly(2), "big")
        if length > _MOST:
            raise Garbage(f"{length} octets")
        return _understood(await reader.readexactly(length), question)
    except asyncio.IncompleteReadError:
        raise Garbage("the answer broke off") from None
    finally:
        writer.transport.abort()
