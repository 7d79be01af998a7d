"""Rates: what is let in and what is not, in any order of time; whom they count together; and that memory ends."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.envelope import Client, Envelope
from mailgate.core.limits import LIMITS, Limit, Limiter, LimitPolicy, Offender, Rate, commands, network_of

TRUSTED = (ipaddress.ip_network("192.0.2.0/28"), ipaddress.ip_network("2001:db8:1::/48"))
POST = Envelope("ida@example.org", ("list@lists.test",))
JOIN = Envelope("ida@example.org", ("list-join@lists.test",))
BOUNCE = Envelope("", ("list-bounces@lists.test",))


def policy(**rates: Rate) -> LimitPolicy:
    """A policy with these rates."""
    return LimitPolicy({limit: rates[limit] for limit in LIMITS if limit in rates}, 24, 56, TRUSTED)


def from_(ip: str) -> Client:
    return Client(ip, source="verdict")


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("198.51.100.7", "198.51.100.0/24"),
        ("2001:db8:2:3ff::7", "2001:db8:2:300::/56"),
        ("192.0.2.15", ""),
        ("192.0.2.16", "192.0.2.0/24"),
        ("2001:db8:1::7", ""),
    ],
)
def test_the_network_of_a_client(ip: str, network: str) -> None:
    assert network_of(ip, policy()) == network


def test_which_addresses_are_commands() -> None:
    asking = (
        "a-join@l.test",
        "a-SUBSCRIBE@l.test",
        "a-request@l.test",
        "a-confirm@l.test",
        "a-confirm+0f@l.test",
        "a-join+x@l.test",
        '"a-join"@l.test',
        '"a-jo\\in+x"@l.test',
        '"a"-join@l.test',
    )
    others = (
        "a@l.test",
        "a-owner@l.test",
        "a-bounces+b-join=c@l.test",
        "join@l.test",
        "a-join-b@l.test",
        "a-joint@l",
        '"a-join@x"@l.test',
        "a-join",
        "",
    )
    assert commands(asking) == len(asking)
    assert commands(others) == 0
    assert commands((*asking, *others)) == len(asking)


def test_nothing_is_limited_without_a_rate() -> None:
    limiter = Limiter()
    assert [limiter.over(from_("198.51.100.7"), JOIN, policy(), 0.0) for _ in range(1000)] == [None] * 1000


def test_a_bucket_empties_and_fills_again() -> None:
    limiter, rates = Limiter(), policy(network=Rate(3, 60.0))

    def over(at: float) -> Limit | None:
        return limiter.over(from_("198.51.100.7"), POST, rates, at)

    assert [over(at) for at in (0, 0, 0, 0, 19.9)] == [None, None, None, "network", "network"]
    assert [over(at) for at in (20, 20.1, 40, 60, 79)] == [None, "network", None, None, "network"]
    assert [over(1000) for _ in range(4)] == [None, None, None, "network"]


def test_whom_a_limit_counts_together() -> None:
    limiter, rates = Limiter(), policy(sender=Rate(1, 60.0), network=Rate(3, 60.0))
    other = Envelope("ole@example.org", POST.recipients)
    assert limiter.over(from_("198.51.100.7"), POST, rates, 0) is None
    assert limiter.over(from_("198.51.100.250"), Envelope("IDA@Example.org", ()), rates, 0) == "sender"
    assert limiter.over(from_("203.0.113.7"), POST, rates, 0) is None  # nobody uses up what is another's
    assert limiter.over(from_("198.51.100.7"), other, rates, 0) is None
    assert limiter.over(from_("198.51.100.7"), BOUNCE, rates, 0) is None  # the third of its network
    assert limiter.over(from_("198.51.100.7"), BOUNCE, rates, 0) == "network"


def test_each_request_counts() -> None:
    limiter, rates = Limiter(), policy(commands=Rate(5, 60.0))
    two = Envelope("ida@example.org", ("a-join@lists.test", "list@lists.test", "b-confirm+1@lists.test"))
    answers = [limiter.over(from_("198.51.100.7"), one, rates, 0) for one in (two, two, two, JOIN, JOIN, POST)]
    assert answers == [None, None, "commands", None, "commands", None]
    many = Envelope("", tuple(f"l{n}-join@lists.test" for n in range(6)))
    assert limiter.over(from_("203.0.113.7"), many, rates, 0) == "commands"


def test_what_is_put_off_takes_nothing() -> None:
    limiter, rates = Limiter(), policy(network=Rate(2, 60.0), sender=Rate(1, 60.0))
    answers = [limiter.over(from_("198.51.100.7"), POST, rates, 0) for _ in range(5)]
    assert answers == [None, *["sender"] * 4]
    assert limiter.over(from_("198.51.100.7"), BOUNCE, rates, 0) is None
    assert limiter.over(from_("198.51.100.7"), BOUNCE, rates, 0) == "network"


@pytest.mark.parametrize("client", [Client(), from_("192.0.2.1"), Client(source="header", user="cron")])
def test_who_is_not_limited(client: Client) -> None:
    limiter, rates = Limiter(), policy(network=Rate(1, 60.0), commands=Rate(1, 60.0))
    assert {limiter.over(client, JOIN, rates, 0) for _ in range(9)} == {None}


def test_the_worst_are_told() -> None:
    limiter, rates = Limiter(), policy(network=Rate(1, 60.0), sender=Rate(1, 60.0))
    for ip, times in (("198.51.100.7", 3), ("203.0.113.7", 5), ("203.0.114.7", 1)):
        for _ in range(times):
            limiter.over(from_(ip), POST, rates, 0)
    assert limiter.worst(rates, 30.0, 5) == [
        Offender("network", "203.0.113.0/24", 4, 0.5),
        Offender("network", "198.51.100.0/24", 2, 0.5),
    ]
    assert limiter.worst(rates, 90.0, 1) == [Offender("network", "203.0.113.0/24", 4, 0.0)]
    assert limiter.worst(policy(), 90.0, 5) == []


def test_a_smaller_rate_counts_at_once() -> None:
    limiter, client = Limiter(), from_("198.51.100.7")
    for _ in range(100):
        assert limiter.over(client, POST, policy(network=Rate(100, 3600.0)), 0) is None
    assert limiter.over(client, POST, policy(network=Rate(10, 60.0)), 0) == "network"
    assert limiter.over(client, POST, policy(network=Rate(10, 60.0)), 6) is None


def test_memory_ends_and_who_was_heard_of_last_is_remembered() -> None:
    limiter, rates = Limiter(most=10), policy(network=Rate(1, 60.0))
    clients = [from_(f"198.51.{n}.7") for n in range(11)]
    assert {limiter.over(client, POST, rates, 0) for client in clients} == {None}
    assert [limiter.over(client, POST, rates, 0) for client in clients[1:]] == ["network"] * 10
    assert limiter.over(clients[0], POST, rates, 0) is None
    for client in clients * 3:
        limiter.over(client, POST, rates, 0)
    assert len(limiter.worst(rates, 0, 100)) <= 10


class Exact:
    """The textbook's bucket: tokens, topped up as time goes by."""

    def __init__(self, count: int, period: int) -> None:
        self.count, self.period = count, period
        self.parts = count * period  # a token is `period` of these, and `count` come each second
        self.at = 0

    def take(self, now: int) -> bool:
        self.parts = min(self.count * self.period, self.parts + (now - self.at) * self.count)
        self.at = now
        if self.parts < self.period:
            return False
        self.parts -= self.period
        return True


@given(st.integers(1, 20), st.integers(1, 100), st.lists(st.integers(0, 30), max_size=120))
def test_it_lets_in_what_a_bucket_of_tokens_does(count: int, period: int, waits: list[int]) -> None:
    limiter, rates, exact = Limiter(), policy(network=Rate(count, float(period))), Exact(count, period)
    now = 0
    for wait in waits:
        now += wait
        assert (limiter.over(from_("198.51.100.7"), POST, rates, float(now)) is None) == exact.take(now)
