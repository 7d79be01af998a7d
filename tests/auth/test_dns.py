"""The resolver, asking a real DNS server: what it says, what it remembers, and what it does when nobody answers."""

import asyncio
import time

import pytest

from mailgate.core.auth import Answer, RecordType, Resolved
from mailgate.core.endpoint import Endpoint
from mailgate.edge.dns import Resolver, system_nameservers
from mailgate.edge.dns import servers as servers_module
from mailgate.edge.telemetry import Telemetry
from tests.auth.reading import metric
from tests.stack.dns import Act, DnsServer
from tests.stack.waiting import until

ANSWERS: list[tuple[str, RecordType, Answer, tuple[bytes, ...]]] = [
    ("plain.example.test", "TXT", "found", (b"a text in two strings",)),
    ("PLAIN.example.TEST.", "A", "found", (b"192.0.2.7",)),
    ("plain.example.test", "AAAA", "found", (b"2001:db8::7",)),
    ("plain.example.test", "MX", "found", (b"10 plain.example.test", b"20 ns.example.test")),
    ("7.2.0.192.in-addr.arpa", "PTR", "found", (b"plain.example.test",)),
    ("alias.example.test", "TXT", "found", (b"a text in two strings",)),
    ("plain.example.test", "PTR", "nodata", ()),
    ("alias.example.test", "PTR", "nodata", ()),
    ("below.example.test", "TXT", "nodata", ()),
    ("nobody.example.test", "TXT", "nxdomain", ()),
    ("loop.example.test", "TXT", "garbage", ()),
]


@pytest.mark.parametrize(("name", "record", "answer", "records"), ANSWERS)
async def test_what_the_dns_says(
    resolver: Resolver, soon: float, name: str, record: RecordType, answer: Answer, records: tuple[bytes, ...]
) -> None:
    found = await resolver.resolve(name, record, soon)
    assert (found.answer, tuple(sorted(found.records)), found.cached) == (answer, records, False)


@pytest.mark.parametrize(
    "name", ["a..example.test", "a" * 64 + ".test", ".".join(["a" * 60] * 5), "münchen.test", "\udcff.test", "", "."]
)
async def test_what_is_no_name_does_not_exist(
    resolver: Resolver, dns: DnsServer, telemetry: Telemetry, soon: float, name: str
) -> None:
    assert (await resolver.resolve(name, "TXT", soon)).answer == "nxdomain"
    assert dns.asked == []
    assert metric(telemetry, "mailgate_dns_queries_total", answer="nxdomain") == 0


async def test_a_name_is_not_read_as_a_zone_file_would(resolver: Resolver, dns: DnsServer, soon: float) -> None:
    """A backslash is an octet of a name like any other: nobody reaches another name with it."""
    assert (await resolver.resolve("plain\\.example.test", "TXT", soon)).answer == "nxdomain"
    assert dns.asked == [("plain\\\\.example.test", "TXT", "udp")]


FAILURES: list[tuple[Act, Answer]] = [
    ("servfail", "servfail"),
    ("refused", "servfail"),
    ("garble", "garbage"),
    ("another", "garbage"),
    ("endless", "garbage"),
    ("broken-off", "garbage"),
]


@pytest.mark.parametrize(("act", "answer"), FAILURES)
async def test_a_server_that_fails(
    resolver: Resolver, dns: DnsServer, telemetry: Telemetry, soon: float, act: Act, answer: Answer
) -> None:
    dns.act(act)
    assert await resolver.resolve("plain.example.test", "TXT", soon) == Resolved(answer)
    assert metric(telemetry, "mailgate_dns_queries_total", answer=answer) == 1
    # RFC 9520 §3.2: failures are remembered for a moment.
    assert await resolver.resolve("plain.example.test", "TXT", soon) == Resolved(answer, cached=True)


async def test_another_server_is_asked_when_one_fails(dns: DnsServer, telemetry: Telemetry, soon: float) -> None:
    with DnsServer() as bad:
        bad.act("servfail")
        resolver = Resolver([bad.at, dns.at], telemetry)
        assert (await resolver.resolve("plain.example.test", "A", soon)).records == (b"192.0.2.7",)
        await resolver.close()
        assert (len(bad.asked), len(dns.asked)) == (1, 1)


async def test_nobody_there(telemetry: Telemetry, soon: float) -> None:
    """A host without a name server says so at once."""
    with DnsServer() as server:
        gone = server.at
    resolver = Resolver([gone], telemetry)
    started = time.monotonic()
    assert (await resolver.resolve("plain.example.test", "A", soon)).answer == "servfail"
    assert time.monotonic() - started < 5  # of the minute that it may take
    await resolver.close()


async def test_what_was_cut_is_asked_for_by_tcp(resolver: Resolver, dns: DnsServer, soon: float) -> None:
    dns.act("truncate")
    assert (await resolver.resolve("plain.example.test", "TXT", soon)).records == (b"a text in two strings",)
    assert [by for _, _, by in dns.asked] == ["udp", "tcp"]


async def test_an_answer_with_another_id_is_not_heard(resolver: Resolver, dns: DnsServer) -> None:
    dns.act("forge")
    now = asyncio.get_running_loop().time()
    assert (await resolver.resolve("plain.example.test", "TXT", now + 0.2)).answer == "timeout"


async def test_a_datagram_that_was_lost_is_sent_again(
    resolver: Resolver, dns: DnsServer, soon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers_module, "_FIRST", 0.1)
    dns.act("drop", "plain.example.test")
    asking = asyncio.create_task(resolver.resolve("plain.example.test", "A", soon))
    await until(lambda: dns.asked, "it was asked")
    dns.acts.clear()
    assert (await asking).answer == "found"
    assert len(dns.asked) == 2


async def test_the_cache(resolver: Resolver, dns: DnsServer, telemetry: Telemetry, soon: float) -> None:
    """Found or not, it is asked once; an answer for no time is asked for each time."""
    for name in ("plain.example.test", "nobody.example.test", "once.example.test"):
        first = await resolver.resolve(name, "TXT", soon)
        again = await resolver.resolve(name.upper(), "TXT", soon)
        assert (again.answer, again.records) == (first.answer, first.records)
        assert again.cached is (name != "once.example.test")
    assert len(dns.asked) == 4
    assert metric(telemetry, "mailgate_dns_lookups_total", source="cache") == 2
    assert metric(telemetry, "mailgate_dns_lookups_total", source="asked") == 4
    assert metric(telemetry, "mailgate_dns_seconds_count") == 4


async def test_the_cache_forgets_in_time(resolver: Resolver, dns: DnsServer) -> None:
    """`short` may be believed for a second."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert not (await resolver.resolve("short.example.test", "TXT", started + 60)).cached
    known = await resolver.resolve("short.example.test", "TXT", started + 60)
    assert known.cached or loop.time() - started > 0.9
    while (await resolver.resolve("short.example.test", "TXT", started + 60)).cached:
        assert loop.time() < started + 30
        await asyncio.sleep(0.05)
    assert loop.time() - started > 0.9
    assert len(dns.asked) == 2


async def test_questions_at_once_are_one(resolver: Resolver, dns: DnsServer, telemetry: Telemetry, soon: float) -> None:
    dns.act("late")
    tasks = [asyncio.create_task(resolver.resolve("plain.example.test", "A", soon)) for _ in range(10)]
    await until(lambda: dns.asked, "it was asked")
    dns.release()
    assert {(await task).answer for task in tasks} == {"found"}
    assert len(dns.asked) == 1
    assert metric(telemetry, "mailgate_dns_lookups_total", source="shared") == 9


async def test_an_answer_too_late_for_one_message_is_there_for_the_next(
    resolver: Resolver, dns: DnsServer, soon: float
) -> None:
    dns.act("late")
    now = asyncio.get_running_loop().time()
    assert (await resolver.resolve("plain.example.test", "A", now + 0.1)).answer == "timeout"
    dns.release()
    assert (await resolver.resolve("plain.example.test", "A", soon)).answer == "found"
    assert len(dns.asked) == 1


async def test_a_dead_server_costs_its_time_once(
    dns: DnsServer, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left alone until it has answered a probe; meanwhile questions cost nothing."""
    monkeypatch.setattr(servers_module, "_FIRST", 0.05)
    monkeypatch.setattr(servers_module, "_IN_ALL", 0.2)
    monkeypatch.setattr(servers_module, "_PROBE", 0.1)
    loop = asyncio.get_running_loop()
    dns.act("drop")
    resolver = Resolver([dns.at], telemetry)
    server = resolver._servers._servers[0]
    await asyncio.gather(*(resolver.resolve(f"n{n}.example.test", "A", loop.time() + 30) for n in range(5)))
    await until(lambda: server.down, "the server is left alone")
    assert [one["event"] for one in telemetry.errors()] == ["dns.down"]  # so `mailgate status` has it
    asked, started = len([one for one in dns.asked if one[0]]), loop.time()
    for number in range(100):
        assert (await resolver.resolve(f"m{number}.example.test", "A", loop.time() + 30)).answer == "timeout"
    assert loop.time() - started < 5  # of the twenty that as many time-outs take
    assert len([one for one in dns.asked if one[0] and one[0].startswith("m")]) == 0
    assert asked >= 3
    dns.behave()
    await until(lambda: not server.down, "it is asked again")
    monkeypatch.undo()
    assert (await resolver.resolve("plain.example.test", "A", loop.time() + 30)).answer == "found"
    await resolver.close()


async def test_a_name_that_nobody_answers_for_does_not_bring_the_server_down(
    dns: DnsServer, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is slow with one domain, and answers for the root: others' names are asked for as before."""
    monkeypatch.setattr(servers_module, "_FIRST", 0.02)
    monkeypatch.setattr(servers_module, "_IN_ALL", 0.05)
    loop = asyncio.get_running_loop()
    names = [f"n{n}.example.test" for n in range(8)]
    dns.act("drop", *names)
    resolver = Resolver([dns.at], telemetry)
    await asyncio.gather(*(resolver.resolve(name, "A", loop.time() + 30) for name in names))
    await until(lambda: any(kind == "NS" for _, kind, _ in dns.asked), "the root was asked for")
    monkeypatch.undo()
    assert (await resolver.resolve("plain.example.test", "A", loop.time() + 30)).answer == "found"
    assert not resolver._servers._servers[0].down
    await resolver.close()


async def test_no_more_than_so_many_at_once(
    dns: DnsServer, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers_module, "_FIRST", 30.0)
    monkeypatch.setattr(servers_module, "_IN_ALL", 60.0)
    dns.act("late")
    loop = asyncio.get_running_loop()
    resolver = Resolver([dns.at], telemetry)
    names = [f"n{n}.example.test" for n in range(300)]
    tasks = [asyncio.create_task(resolver.resolve(name, "A", loop.time() + 30)) for name in names]
    await until(lambda: len({name for name, _, _ in dns.asked}) == 200, "two hundred were asked")
    dns.behave()
    dns.release()
    found = await asyncio.gather(*tasks)
    assert {one.answer for one in found} == {"nxdomain"}
    assert len({name for name, _, _ in dns.asked}) == 100
    await resolver.close()


async def test_a_name_server_has_an_address(telemetry: Telemetry) -> None:
    with pytest.raises(ValueError, match="localhost"):
        Resolver([Endpoint("localhost", 53)], telemetry)


def test_the_name_servers_of_this_host() -> None:
    """There is at least one, and it has a port."""
    assert all(isinstance(one, Endpoint) and one.port for one in system_nameservers())
    assert system_nameservers()
