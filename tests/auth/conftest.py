"""What the tests of the checks share: a DNS server for all of them, a resolver for each."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from mailgate.edge.auth import Authentication
from mailgate.edge.dns import Resolver
from mailgate.edge.log import EventLog
from mailgate.edge.telemetry import Telemetry
from tests.stack.dns import DnsServer


@pytest.fixture(scope="package")
def _dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def dns(_dns: DnsServer) -> Iterator[DnsServer]:
    """The DNS server, which answers all that it is asked."""
    _dns.behave()
    yield _dns
    _dns.release()
    _dns.behave()


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Counters of this test's own."""
    log = EventLog()
    yield Telemetry(log)
    log.close()


@pytest_asyncio.fixture
async def resolver(dns: DnsServer, telemetry: Telemetry) -> AsyncIterator[Resolver]:
    """A resolver that knows nothing yet and asks `dns`."""
    resolver = Resolver([dns.at], telemetry)
    yield resolver
    await resolver.close()


@pytest_asyncio.fixture
async def soon() -> float:
    """A deadline that only a failure reaches."""
    return asyncio.get_running_loop().time() + 60


@pytest.fixture
def authentication(resolver: Resolver, telemetry: Telemetry) -> Authentication:
    """All checks."""
    return Authentication(resolver, telemetry)


@pytest.fixture
def signatures(resolver: Resolver, telemetry: Telemetry) -> Authentication:
    """DKIM and ARC alone."""
    return Authentication(resolver, telemetry, spf=False, dmarc=False)
