"""A small authoritative DNS server on loopback, by UDP and TCP on one port: it serves the zones of fixtures/dns.

`act` says what becomes of the questions for a name ("" for all others). It counts the questions that reach it.
"""

import asyncio
import random
import socket
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.zone

from mailgate.core.endpoint import Endpoint
from tests.stack.loop import Loop, stop_listening

ZONES = Path(__file__).parents[2] / "fixtures" / "dns"
# answer; say nothing; nothing before `release`; fail; refuse; "it is cut" by UDP, and by TCP all, too much or a part;
# no DNS at all; an answer to another question, from the right place.
Act = Literal[
    "answer", "drop", "late", "servfail", "refused", "truncate", "endless", "broken-off", "garble", "another", "forge"
]
_CUT: tuple[Act, ...] = ("truncate", "endless", "broken-off")


class DnsServer:
    """Listens until `close`."""

    def __init__(self) -> None:
        self.acts: dict[str, Act] = {}
        self.asked: list[tuple[str, str, str]] = []  # name, type, "udp" or "tcp"
        self._sets: dict[tuple[dns.name.Name, int], dns.rrset.RRset] = {}
        self._names: set[dns.name.Name] = set()
        self._soas: list[dns.rrset.RRset] = []
        self._late: list[tuple[dns.message.QueryMessage, tuple[str, int]]] = []
        self._loop = Loop("dns")
        self._udp, tcp = _same_port()
        self.at = Endpoint(*self._udp.getsockname())
        self._transport, _ = self._loop.run(self._open())
        self._server = self._loop.run(asyncio.start_server(self._by_tcp, sock=tcp))
        for zone in sorted(ZONES.glob("*.zone")):
            self.load(zone.read_text(encoding="utf-8"), zone.name.removesuffix(".zone"))

    async def _open(self) -> tuple[asyncio.DatagramTransport, asyncio.DatagramProtocol]:
        return await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Udp(self), sock=self._udp)

    def load(self, text: str, origin: str) -> None:
        """Serve this zone, too."""
        zone = dns.zone.from_text(text, origin=origin, relativize=False)
        for name, data in zone.iterate_rdatasets():
            self._serve(dns.rrset.from_rdata_list(name, data.ttl, list(data)))

    def add(self, name: str, kind: str, *texts: str | bytes, ttl: int = 300) -> None:
        """Serve these records from now on, and no others of this name and type; octets are one TXT record each."""
        owner = dns.name.from_text(name)
        wanted = dns.rdatatype.from_text(kind)
        records = [
            dns.rdata.from_text(dns.rdataclass.IN, wanted, text) if isinstance(text, str) else _txt(text)
            for text in texts
        ]
        self._serve(dns.rrset.from_rdata_list(owner, ttl, records))

    def act(self, act: Act, *names: str) -> None:
        """Treat questions for these names so; without a name, all that have no rule of their own."""
        self.acts.update(dict.fromkeys(names or ("",), act))

    def behave(self) -> None:
        """Answer all, and forget who has asked and been answered."""
        self.acts.clear()
        self.asked.clear()

    def release(self) -> None:
        """Answer what was to be late."""
        waiting, self._late = self._late, []
        for question, peer in waiting:
            self._loop.loop.call_soon_threadsafe(self._transport.sendto, self.answer(question).to_wire(), peer)

    def close(self) -> None:
        """End it."""
        self._loop.loop.call_soon_threadsafe(self._transport.abort)
        self._loop.run(stop_listening(self._server))
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def answer(self, question: dns.message.QueryMessage) -> dns.message.Message:
        """What the zones say: aliases are followed, and an SOA says how long "nothing" holds."""
        reply = dns.message.make_response(question, recursion_available=True)
        name, kind = question.question[0].name, question.question[0].rdtype
        for _ in range(20):
            found = self._sets.get((name, kind))
            alias = self._sets.get((name, dns.rdatatype.CNAME))
            if found or not alias:
                break
            reply.answer.append(alias)
            name = alias[0].target
        if found:
            reply.answer.append(found)
        elif not alias:
            below = any(other.is_subdomain(name) for other in self._names)
            reply.set_rcode(dns.rcode.NOERROR if below else dns.rcode.NXDOMAIN)
            reply.authority += [soa for soa in self._soas if name.is_subdomain(soa.name)]
        return reply

    def datagram(self, octets: bytes, peer: tuple[str, int]) -> Iterable[bytes]:
        """What is said to these octets."""
        question, act = self._heard(octets, "udp")
        reply = self.answer(question)
        if act == "late":
            self._late.append((question, peer))
        elif act == "forge":
            reply.id = (question.id + 1) % 65536
            yield reply.to_wire()
        elif act in _CUT:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
            yield reply.to_wire()
        elif act != "drop":
            yield _changed(reply, act)

    async def _by_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        question, act = self._heard(await reader.readexactly(length), "tcp")
        octets = _changed(self.answer(question), act)
        if act == "endless":
            octets += bytes(65535 - len(octets))
        sent = len(octets).to_bytes(2, "big") + octets
        writer.write(sent[:-5] if act == "broken-off" else sent)
        await writer.drain()
        writer.close()

    def _heard(self, octets: bytes, by: str) -> tuple[dns.message.QueryMessage, Act]:
        question = dns.message.from_wire(octets)
        assert isinstance(question, dns.message.QueryMessage)
        name = question.question[0].name.to_text(omit_final_dot=True).lower()
        self.asked.append((name, dns.rdatatype.to_text(question.question[0].rdtype), by))
        return question, self.acts.get(name, self.acts.get("", "answer"))

    def _serve(self, records: dns.rrset.RRset) -> None:
        self._sets[records.name, records.rdtype] = records
        self._names.add(records.name)
        if records.rdtype == dns.rdatatype.SOA:
            self._soas.append(records)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # asyncio's own does not say that it is one

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport
        for reply in self._server.datagram(data, addr):
            self._transport.sendto(reply, addr)


def _changed(reply: dns.message.Message, act: Act) -> bytes:
    if act in {"servfail", "refused"}:
        reply.answer.clear()
        reply.set_rcode(dns.rcode.SERVFAIL if act == "servfail" else dns.rcode.REFUSED)
    if act == "another":
        reply.question[0].name = dns.name.from_text("another.test")
    octets = reply.to_wire(max_size=65535)
    return octets[:2] + random.randbytes(40) if act == "garble" else octets


def _txt(octets: bytes) -> dns.rdata.Rdata:
    strings = [octets[start : start + 255] for start in range(0, len(octets), 255)] or [b""]
    wire = b"".join(bytes([len(one)]) + one for one in strings)
    return dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.TXT, wire, 0, len(wire))


def _same_port() -> tuple[socket.socket, socket.socket]:
    """Two sockets on one free port, the second one listening."""
    for _ in range(20):
        udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket(proto=socket.IPPROTO_TCP)
        udp.bind(("127.0.0.1", 0))
        try:
            tcp.bind(udp.getsockname())
        except OSError:  # another program has it; take the next
            udp.close()
            tcp.close()
            continue
        return udp, tcp
    raise OSError("no port is free for both")
