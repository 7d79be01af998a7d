"""One question to one name server: by UDP, and by TCP where the answer was cut (RFC 7766 §5).

Promises: an end within `patience`; an answer from elsewhere or to another question is not heard; of an answer no more
than _MOST is read, so that none takes long to understand.
How it fails: TimeoutError, OSError (nobody there), Garbage (an answer that can't be understood).
"""

from __future__ import annotations

import asyncio
import socket
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
from mailgate.turns import Turns

_MOST = 16 * 1024  # octets of an answer by TCP; honest ones are not half as large
_RECORDS = 300  # of an answer: 15 ms to understand
_DATAGRAM = 4096  # octets
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


async def ask(
    server: Endpoint, question: dns.message.QueryMessage, patience: float, turns: Turns
) -> dns.message.Message:
    """The server's answer within `patience` seconds. `turns` are those of all questions: many are begun at once."""
    async with asyncio.timeout(patience):
        answer = await _by_udp(server, question, turns)
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
    if len(octets) < 12 or sum(struct.unpack("!3H", octets[6:12])) > _RECORDS:
        raise Garbage("too many records")
    try:
        answer = dns.message.from_wire(octets, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError) as error:
        raise Garbage(type(error).__name__) from None
    if not question.is_response(answer):
        raise Garbage("an answer to another question")
    return answer


async def _by_udp(server: Endpoint, question: dns.message.QueryMessage, turns: Turns) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[bytes] = loop.create_future()
    wire = question.to_wire()
    with await turns.take(lambda: _sent(server, wire)) as channel:

        def listen() -> None:
            try:
                octets = channel.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:  # the server's host says that nobody is there
                if not heard.done():
                    heard.set_exception(error)
                return
            if octets[:2] == wire[:2] and not heard.done():  # the id
                heard.set_result(octets)

        loop.add_reader(channel, listen)
        try:
            return _understood(await heard, question)
        finally:
            loop.remove_reader(channel)


def _sent(server: Endpoint, wire: bytes) -> socket.socket:
    """A socket of its own for each question: its port is a secret, and the kernel hears only that server."""
    channel = socket.socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        channel.setblocking(False)
        channel.connect((server.host, server.port))
        channel.send(wire)
    except OSError:
        channel.close()
        raise
    return channel


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
