"""The client's name: every result. RFC 8601 §2.7.3."""

import pytest

from mailgate.core.auth import Iprev, IprevResult
from mailgate.core.envelope import Client
from mailgate.edge.auth import Authentication
from mailgate.edge.dns import Resolver
from mailgate.edge.telemetry import Telemetry
from tests.auth import desk
from tests.stack.dns import Act, DnsServer


@pytest.fixture
def checks(resolver: Resolver, telemetry: Telemetry) -> Authentication:
    """Nothing but the client's name."""
    return Authentication(resolver, telemetry, spf=False, dkim=False, arc=False, dmarc=False)


async def of(checks: Authentication, ip: str, **known: str) -> Iprev | None:
    """What the address comes to."""
    return (await desk.check(checks, client=Client(ip=ip, **known))).iprev  # type: ignore[arg-type]


CLIENTS: list[tuple[str, IprevResult, str]] = [
    ("192.0.2.7", "pass", "plain.example.test"),
    ("2001:db8::7", "pass", "plain.example.test"),
    ("192.0.2.8", "fail", ""),  # a name that has another address
    ("192.0.2.9", "pass", "empty.below.example.test"),  # the other of its names is nobody
    ("192.0.2.10", "permerror", ""),
]


@pytest.mark.parametrize(("ip", "result", "host"), CLIENTS)
async def test_an_address(checks: Authentication, dns: DnsServer, ip: str, result: IprevResult, host: str) -> None:
    found = await of(checks, ip)
    assert found is not None
    assert (found.result, found.ip, found.host) == (result, ip, host)


@pytest.mark.parametrize("name", ["7.2.0.192.in-addr.arpa", "plain.example.test"])
@pytest.mark.parametrize("act", ["servfail", "garble"])
async def test_trouble_with_the_dns(checks: Authentication, dns: DnsServer, name: str, act: Act) -> None:
    dns.act(act, name)
    found = await of(checks, "192.0.2.7")
    assert found is not None
    assert found.result == "temperror"


async def test_what_our_mta_knows_is_not_asked_for(checks: Authentication, dns: DnsServer) -> None:
    found = await of(checks, "192.0.2.99", host="mx.example.org")
    assert found == Iprev("pass", "192.0.2.99", "mx.example.org", "as our MTA found")
    assert dns.asked == []


@pytest.mark.parametrize("ip", ["", "unknown"])
async def test_nobody(checks: Authentication, dns: DnsServer, ip: str) -> None:
    assert await of(checks, ip) is None
    assert dns.asked == []


@pytest.mark.parametrize(("ip", "result"), [("fe80::1%eth0", "permerror"), ("fe80::1%eth0;dkim=pass", None)])
async def test_a_zone_is_no_part_of_an_address(
    authentication: Authentication, telemetry: Telemetry, ip: str, result: str | None
) -> None:
    """No check can make anything of it, and each would say so with a trace in the log."""
    said: list[str] = []
    telemetry.event = lambda name, *_, **__: said.append(name)  # type: ignore[method-assign]
    found = await desk.check(authentication, client=Client(ip=ip))
    assert (found.iprev and found.iprev.result) == result
    assert found.iprev is None or found.iprev.ip == "fe80::1"
    assert "temperror" not in {one.result for one in found.spf}
    assert said == []


async def test_an_address_with_many_names(checks: Authentication, dns: DnsServer) -> None:
    """Four are looked at."""
    dns.add("11.2.0.192.in-addr.arpa", "PTR", *(f"n{n}.example.test." for n in range(40)))
    found = await of(checks, "192.0.2.11")
    assert found is not None
    assert found.result == "fail"
    assert len(dns.asked) == 5
