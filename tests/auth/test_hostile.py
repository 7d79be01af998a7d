"""Messages and records that want to cost much: each ends in bounded time, with a bounded number of questions."""

import asyncio
import socket
import threading

import pytest

from mailgate.core.auth import RecordType, Resolved
from mailgate.core.endpoint import Endpoint
from mailgate.core.envelope import Client
from mailgate.core.message import MAX_HEADER
from mailgate.edge.auth import Authentication
from mailgate.edge.dns import Resolver
from mailgate.edge.log import EventLog
from mailgate.edge.telemetry import Telemetry
from tests.auth import desk
from tests.auth.keys import MAIL, changed, rsa, seal, sign
from tests.stack.dns import DnsServer
from tests.stack.lag import Lag

KEY = "s._domainkey.example.test"
LATE = 0.05  # seconds that the loop may compute at a stretch


@pytest.fixture
def published(dns: DnsServer) -> DnsServer:
    """The DNS server has the key that `sign` takes."""
    dns.add(KEY, "TXT", rsa().record())
    return dns


def asked(dns: DnsServer, *kinds: str) -> int:
    """How many questions of these types came."""
    return len([one for one in dns.asked if one[1] in kinds])


async def test_a_large_body(signatures: Authentication, published: DnsServer) -> None:
    """25 MiB, to be hashed in both forms: nobody waits for it. (To sign them takes dkimpy 15 seconds.)"""
    signed = sign(sign(canonicalize=(b"simple", b"simple")), canonicalize=(b"relaxed", b"relaxed"))
    mail = desk.cut(signed + b"A line of  text, as there are many of them in such a mail.\r\n" * (25 * 2**20 // 60))
    async with Lag() as lag:
        found = await desk.check(signatures, mail)
    assert found.dkim is not None
    assert [(one.result, "body" in one.why) for one in found.dkim] == [("fail", True), ("fail", True)]
    assert lag.computing < LATE


@pytest.mark.parametrize("unit", [b" ", b"\t", b"\r\n" + b" " * 40, b"a ", b"\x80", b";", b"b="])
async def test_a_header_of_a_mebibyte(signatures: Authentication, published: DnsServer, unit: bytes) -> None:
    """One field, ten signatures that sign it."""
    subject = b"Subject: x" + unit * ((MAX_HEADER - 60_000) // len(unit)) + b"x\r\n"
    mail = subject + MAIL.replace(b"Subject: ", b"X-Subject: ")
    field, _, _ = sign(include_headers=[b"from", b"subject"]).partition(b"\r\nFrom")
    async with Lag() as lag:
        found = await desk.check(signatures, desk.cut((field + b"\r\n") * 10 + mail))
    assert found.dkim is not None
    assert [one.result for one in found.dkim] == ["fail"] * 10
    assert lag.computing < LATE
    assert found.seconds < 30


async def test_ten_thousand_received(authentication: Authentication, published: DnsServer) -> None:
    mail = desk.cut(b"Received: from a by b; Sun, 22 Nov 2026 10:00:00 +0000\r\n" * 10_000 + sign())
    async with Lag() as lag:
        found = await desk.check(authentication, mail)
    assert found.dkim is not None
    assert [one.result for one in found.dkim] == ["pass"]
    assert lag.computing < LATE


async def test_a_header_without_an_end(authentication: Authentication, published: DnsServer) -> None:
    """It is too much to be looked through, and refused for that elsewhere."""
    found = await desk.check(authentication, b"X: y\r\n" * 200_000 + sign())
    assert (found.dkim, found.arc and found.arc.result, found.dmarc and found.dmarc.result) == ((), "none", "permerror")


@pytest.mark.parametrize("unit", [b" ", b"\r\n\t", b"b ", b"; ", b": ", b"from:", b"from : ", b"A"])
@pytest.mark.parametrize("tag", [b"h", b"b", b"x", b"d"])
async def test_signatures_that_take_long_to_read(
    signatures: Authentication, published: DnsServer, unit: bytes, tag: bytes
) -> None:
    field, _, _ = changed(sign(), tag, b"from:" + unit * (15_000 // len(unit))).partition(b"\r\nFrom: A")
    async with Lag() as lag:
        found = await desk.check(signatures, (field + b"\r\n") * 60 + MAIL)
    assert found.dkim is not None
    assert "pass" not in {one.result for one in found.dkim}
    assert lag.computing < LATE


async def test_many_seals(signatures: Authentication, published: DnsServer) -> None:
    """Each of fifty with a key of its own: no more questions than there may be seals, and one signature."""
    mail = seal(MAIL)
    for _ in range(49):
        mail = seal(mail, verdict="pass")
    mail = b"".join(
        line.replace(b"s=s;", b"s=s%d;" % number) for number, line in enumerate(mail.splitlines(keepends=True))
    )
    published.act("servfail")
    async with Lag() as lag:
        found = await desk.check(signatures, mail)
    assert found.arc is not None
    assert found.arc.result == "temperror"
    assert 40 < asked(published, "TXT") <= 51
    assert lag.computing < LATE


async def spf(authentication: Authentication, domain: str) -> str:
    """What SPF comes to for a sender there, without HELO."""
    found = await desk.check(authentication, client=Client(ip="192.0.2.7"), sender=f"a@{domain}")
    return found.spf[0].result


async def test_includes_that_go_round(authentication: Authentication, dns: DnsServer) -> None:
    """RFC 7208 §4.6.4: ten terms."""
    for number in range(3):
        dns.add(f"i{number}.evil.test", "TXT", f"v=spf1 include:i{(number + 1) % 3}.evil.test -all".encode())
    assert await spf(authentication, "i0.evil.test") == "permerror"
    assert asked(dns, "TXT") <= 3 + 3  # those of DMARC's walk


async def test_includes_that_branch(authentication: Authentication, dns: DnsServer) -> None:
    """Each of ten includes ten others."""
    for number in range(1, 112):
        below = " ".join(f"include:t{number * 10 + n}.evil.test" for n in range(10))
        dns.add(f"t{number}.evil.test", "TXT", f"v=spf1 {below} ?all".encode())
    async with Lag() as lag:
        assert await spf(authentication, "t1.evil.test") == "permerror"
    assert len([one for one in dns.asked if one[0].startswith("t")]) <= 11
    assert lag.computing < LATE


async def test_mail_exchangers_that_multiply(authentication: Authentication, dns: DnsServer) -> None:
    """Ten terms with ten names each would be a hundred questions to whomever they name: fifty is all we ask."""
    for number in range(10):
        names = [f"10 v{n}.victim{number}.test." for n in range(10)]
        dns.add(f"m{number}.evil.test", "MX", *names)
        for n in range(10):
            dns.add(f"v{n}.victim{number}.test", "A", "198.51.100.1")
    terms = " ".join(f"mx:m{number}.evil.test" for number in range(10))
    dns.add("mx.evil.test", "TXT", f"v=spf1 {terms} -all".encode())
    async with Lag() as lag:
        assert await spf(authentication, "mx.evil.test") == "temperror"
    assert asked(dns, "A", "MX") <= 50
    assert lag.computing < LATE


async def test_more_exchangers_than_ten(authentication: Authentication, dns: DnsServer) -> None:
    dns.add("many.evil.test", "MX", *(f"10 v{n}.victim.test." for n in range(11)))
    dns.add("eleven.evil.test", "TXT", b"v=spf1 mx:many.evil.test -all")
    assert await spf(authentication, "eleven.evil.test") == "permerror"
    assert not [name for name, _, _ in dns.asked if name.endswith("victim.test")]


async def test_names_of_the_client_that_multiply(authentication: Authentication, dns: DnsServer) -> None:
    """RFC 7208 §5.5: ten of its names are looked at. Those are the client's own."""
    dns.add("99.2.0.192.in-addr.arpa", "PTR", *(f"p{n}.evil.test." for n in range(60)))
    dns.add("ptr.evil.test", "TXT", b"v=spf1 ptr ptr:a.test ptr:b.test exists:%{p}.x.test -all")
    found = await desk.check(authentication, client=Client(ip="192.0.2.99"), sender="a@ptr.evil.test")
    assert found.spf[0].result == "fail"
    assert asked(dns, "PTR") == 1
    assert asked(dns, "A") <= 10 + 4 + 1


async def test_look_ups_that_find_nothing(authentication: Authentication, dns: DnsServer) -> None:
    terms = " ".join(f"exists:n{number}.victim.test" for number in range(9))
    dns.add("void.evil.test", "TXT", f"v=spf1 {terms} +all".encode())
    assert await spf(authentication, "void.evil.test") == "permerror"
    assert len([name for name, _, _ in dns.asked if name.endswith("victim.test")]) == 3


@pytest.mark.parametrize(
    "record",
    [
        b"v=spf1 " + b"a:" + b"a" * 4000 + b"! -all",
        b"v=spf1 " + b" ".join([b"a:" + b".a" * 250 + b"!"] * 8) + b" -all",
        b"v=spf1 " + b" ".join([b"exists:" + b"%{l}" * 120 + b".test"] * 8) + b" -all",
        b"v=spf1 " + b" ".join([b"exists:" + b"%{p-.+,/_=}" * 40 + b".test"] * 8) + b" -all",
        b"v=spf1 " + b"ip4:1.2.3.4 " * 340 + b"-all",
        b"v=spf1 " + b"/" * 500 + b" -all",
        b"v=spf1 ip4:192.0.2.7/" + b"1" * 490 + b" -all",
        b"v=spf1 " + b"x" * 14_000,
        b"v=spf1" + b" " * 14_000,
    ],
)
async def test_records_that_take_long_to_read(authentication: Authentication, dns: DnsServer, record: bytes) -> None:
    dns.add("long.evil.test", "TXT", record)
    dns.act("truncate", "long.evil.test")
    async with Lag() as lag:
        assert await spf(authentication, "long.evil.test") in {"permerror", "fail"}
    assert lag.computing < LATE


async def test_answers_that_are_too_large(authentication: Authentication, dns: DnsServer) -> None:
    """250 addresses are read and not compared; 900, and 60 KiB of text, are not read."""
    for name, many in (("flood.evil.test", 250), ("deluge.evil.test", 900)):
        dns.add(name, "A", *(f"198.51.{n // 250}.{n % 250 + 1}" for n in range(many)))
    dns.add("a.evil.test", "TXT", b"v=spf1 a:flood.evil.test -all")
    dns.add("b.evil.test", "TXT", b"v=spf1 a:deluge.evil.test -all")
    dns.add("huge.evil.test", "TXT", b"v=spf1 " + b"x" * 60_000)
    dns.act("truncate", "flood.evil.test", "deluge.evil.test", "huge.evil.test")
    async with Lag() as lag:
        assert await spf(authentication, "a.evil.test") == "permerror"
        assert await spf(authentication, "b.evil.test") == "temperror"
        assert await spf(authentication, "huge.evil.test") == "temperror"
    assert lag.computing < LATE


async def test_fifty_messages_while_the_dns_is_silent(telemetry: Telemetry) -> None:
    """All wait for their deadline at the same time, the loop goes on, and no thread was begun."""
    mails = [desk.cut(sign(selector=b"s%d" % number)) for number in range(50)]
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        resolver = Resolver([Endpoint(*silent.getsockname())], telemetry)
        authentication = Authentication(resolver, telemetry)
        threads = threading.active_count()
        async with Lag() as lag:
            checks = [
                desk.check(authentication, mail, sender=f"a@d{number}.test", seconds=0.6)
                for number, mail in enumerate(mails)
            ]
            found = await asyncio.gather(*checks)
        assert threading.active_count() == threads
        assert {(one.spf[0].result, one.dkim and one.dkim[0].result) for one in found} == {("temperror",) * 2}
        assert {one.dmarc and one.dmarc.result for one in found} == {"temperror"}
        await resolver.close()
    assert lag.computing < LATE
    assert max(one.seconds for one in found) < 15  # one after the other they would wait for thirty


async def test_fifty_large_messages_at_once(signatures: Authentication, published: DnsServer) -> None:
    """They are hashed in turn, a piece each: the loop is late by one piece, not by fifty."""
    mail = desk.cut(sign(MAIL + b"a \t" * (2**20 // 3) + b"\r\n", canonicalize=(b"relaxed", b"relaxed")))
    async with Lag() as lag:
        found = await asyncio.gather(*(desk.check(signatures, mail, seconds=60) for _ in range(50)))
    assert {one.dkim and one.dkim[0].result for one in found} == {"pass"}
    assert lag.computing < LATE


async def test_a_deadline_that_comes_in_the_middle_of_a_body(signatures: Authentication, published: DnsServer) -> None:
    """All that wait for its digest are told so."""
    forms = [(b"relaxed", b"relaxed"), (b"simple", b"simple"), (b"simple", b"relaxed")]
    signed = seal(b"".join(sign(canonicalize=form).removesuffix(MAIL) for form in forms) + MAIL)
    mail = desk.cut(signed + b"a \t" * (8 * 2**20) + b"\r\n")
    found = await desk.check(signatures, mail, seconds=0.15)
    assert found.dkim is not None
    assert {one.result for one in found.dkim} == {"temperror"}
    assert found.arc is not None
    assert found.arc.result == "temperror"
    assert found.seconds < 10


class _Broken:
    """A resolver with a bug."""

    async def resolve(self, name: str, record: RecordType, deadline: float) -> Resolved:  # noqa: ARG002
        raise RuntimeError("a bug")


class _Lines(EventLog):
    """A log that keeps its events."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def event(self, name: str, fields: object, level: str = "info") -> None:  # noqa: ARG002
        self.names.append(name)


async def test_a_bug_of_ours_stops_no_mail() -> None:
    log = _Lines()
    found = await desk.check(Authentication(_Broken(), Telemetry(log)), seal(sign()))
    assert (found.spf[0].result, found.dmarc and found.dmarc.result) == ("temperror", "temperror")
    assert (found.dkim and found.dkim[0].result, found.arc and found.arc.result) == ("temperror", "temperror")
    assert (found.iprev and found.iprev.result) == "temperror"
    assert log.names
    assert set(log.names) == {"auth.failed"}
    log.close()


async def test_nobody_hides_in_a_from_that_is_too_long_to_be_read() -> None:
    mail = b"From: ceo@bank.test" + b"," * 33_000 + b"\r\n\r\nx\r\n"
    found = await desk.check(Authentication(_Broken(), Telemetry(_Lines())), mail)
    assert found.dmarc is not None
    assert (found.dmarc.result, found.dmarc.policy) == ("permerror", "reject")
