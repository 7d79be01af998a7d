"""What people write for a network, and what it stands for."""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.networks import Span, moment, networks, said_moment, span

V4 = st.integers(0, 2**32 - 1)
V6 = st.integers(0, 2**128 - 1)


def ip(text: str) -> int:
    return int(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/24", "192.0.2.0", "192.0.2.255"),
        ("192.0.2.0/255.255.255.0", "192.0.2.0", "192.0.2.255"),
        ("192.0.2.1-192.0.2.9", "192.0.2.1", "192.0.2.9"),
        ("192.0.2.1 - 192.0.2.9", "192.0.2.1", "192.0.2.9"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.0/120", "192.0.2.0", "192.0.2.255"),
        ("::ffff:192.0.2.1-::ffff:192.0.2.9", "192.0.2.1", "192.0.2.9"),
        ("2001:db8::1", "2001:db8::1", "2001:db8::1"),
        ("2001:DB8::1/32", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("::/1", "::", "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::1-2001:db8::ffff", "2001:db8::1", "2001:db8::ffff"),
    ],
)
def test_what_is_understood(text: str, first: str, last: str) -> None:
    assert span(text) == Span(6 if ":" in first else 4, ip(first), ip(last))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", " is no network"),
        ("example.org", "example.org is no network"),
        ("192.0.2", "192.0.2 is no network"),
        ("192.0.2.256", "192.0.2.256 is no network"),
        ("192.0.02.1", "192.0.02.1 is no network"),
        ("192.0.2.0/33", "192.0.2.0/33 is no network: after the / stands how many bits of it count"),
        ("192.0.2.0/", "192.0.2.0/ is no network: after the / stands how many bits of it count"),
        ("192.0.2.0/²", "192.0.2.0/² is no network: after the / stands how many bits of it count"),
        ("2001:db8::/129", "2001:db8::/129 is no network: after the / stands how many bits of it count"),
        ("fe80::1%eth0", "fe80::1%eth0 is no network"),
        ("192.0.2.9-192.0.2.1", "192.0.2.9-192.0.2.1 ends before it begins"),
        ("192.0.2.9-::1", "192.0.2.9-::1 begins in one family of addresses and ends in the other"),
        ("0.0.0.0/0", "0.0.0.0/0 is every address there is"),
        ("::ffff:0:0/96", "::ffff:0:0/96 is every address there is"),
        ("::/0", "::/0 is every address there is"),
        ("0.0.0.0-255.255.255.255", "0.0.0.0-255.255.255.255 is every address there is"),
    ],
)
def test_what_is_not(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}$"):
        span(text)


@given(st.one_of(st.tuples(V4, st.integers(1, 32)), st.tuples(V6, st.integers(1, 128))))
def test_a_network_is_what_ipaddress_makes_of_it(given: tuple[int, int]) -> None:
    number, length = given
    address = ipaddress.IPv4Address(number) if number < 2**32 and length <= 32 else ipaddress.IPv6Address(number)
    network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    found = span(f"{address}/{length}")
    if network.version == 6 and network.subnet_of(ipaddress.IPv6Network("::ffff:0:0/96")):
        assert found.family == 4
        return
    assert found == Span(network.version, int(network.network_address), int(network.broadcast_address))
    assert list(networks(found)) == [network]


@given(st.text(max_size=60))
def test_no_text_does_worse_than_be_refused(text: str) -> None:
    try:
        found = span(text)
    except ValueError:
        return
    assert found.first <= found.last


def test_moments() -> None:
    assert moment("1970-01-02") == moment("1970-01-02T00:00:00Z") == moment("1970-01-02T01:00:00+01:00") == 86400
    assert said_moment(moment("2026-11-24T10:00:00Z")) == "2026-11-24T10:00:00Z"
    for text in ("", "tomorrow", "2026-13-01"):
        with pytest.raises(ValueError, match="is no time: write"):
            moment(text)
