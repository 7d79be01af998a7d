"""The story of a scan: servers in turn, one deadline, breakers, probes. On servers that do as they are told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from mailgate.core.scan import ALL_FAILED, Scored, Unscored
from mailgate.scanner import Scorers
from tests.spam.kit import CLIENT, ENVELOPE, HAM, Stopwatch, Watched, scorer, until
from tests.spam.site import BROKE_OFF, INTERVAL, SILENT, Site, watching
from tests.stack.fake_scorer import GOOD, Act
from tests.stack.ports import Port

TIMEOUT = 2.0  # seconds, where it passes


async def test_the_first_server_is_asked_while_it_has_room(make: Callable[..., Site]) -> None:
    site = make(2)
    for _ in range(3):
        assert isinstance(await site.scan(), Scored)
    assert [fake.scans for fake in site.fakes] == [3, 0]
    assert (site.counted("scored", 0), site.counted("unscored", 0)) == (3.0, 0.0)
    assert site.watched.value("spam_score_bucket", le="+Inf") == 3.0
    assert site.watched.value("stage_seconds_count", stage="spam") == 3.0
    assert site.watched.events() == []


async def test_a_dead_first_server_costs_one_message_no_time(make: Callable[..., Site]) -> None:
    site = make(2)
    site.fakes[0].refuse()
    with Stopwatch() as watch:
        for _ in range(5):
            found = await site.scan()
            assert isinstance(found, Scored)
            assert found.server == str(site.fakes[1].port)
    assert watch.seconds < 3  # of the five that its share of the time-out is
    assert (site.counted("unscored", 0), site.counted("scored", 1)) == (1.0, 5.0)
    assert site.scanner.states == {str(site.fakes[0].port): False, str(site.fakes[1].port): True}
    assert site.scanner.available
    down = site.watched.events("spam.server.down")
    assert [(line["server"], line["cause"], line["level"], "text" in line) for line in down] == [
        (str(site.fakes[0].port), "Connection refused", "warning", False)
    ]


async def test_with_all_servers_refused_a_message_loses_no_millisecond(make: Callable[..., Site]) -> None:
    site = make(2)
    for fake in site.fakes:
        fake.refuse()
    assert isinstance(await site.scan(), Unscored)
    for _ in range(100):
        with pytest.raises(StopIteration) as ended:
            site.scan().send(None)  # its first step is its last: there is nothing that it waits for
        assert isinstance(ended.value.value, Unscored)


async def test_a_hung_first_server_leaves_time_for_the_second(make: Callable[..., Site]) -> None:
    site = make(2, timeout=TIMEOUT)
    site.fakes[0].scan = SILENT
    with Stopwatch() as watch:
        assert isinstance(await site.scan(), Scored)
    assert TIMEOUT / 2 - 0.01 <= watch.seconds < TIMEOUT
    with Stopwatch() as watch:
        assert isinstance(await site.scan(), Scored)
    assert watch.seconds < TIMEOUT / 2
    assert site.fakes[0].scans == 1


@pytest.mark.parametrize("count", [1, 3])
async def test_hung_servers_cost_the_messages_under_way_one_timeout_and_then_nothing(
    make: Callable[..., Site], count: int
) -> None:
    site = make(count, connections=2, timeout=TIMEOUT)
    site.all_do(SILENT)
    async with watching(site):
        with Stopwatch() as watch:
            found = await asyncio.gather(*(site.scan() for _ in range(10)))
        assert watch.seconds < 2 * TIMEOUT
        assert {one.reason for one in found if isinstance(one, Unscored)} <= {"timeout", "busy", "unavailable"}
        assert sum(fake.scans for fake in site.fakes) <= 2 * count
        asked = [fake.scans for fake in site.fakes]
        with Stopwatch() as watch:
            for _ in range(20):
                later = await site.scan()
                assert isinstance(later, Unscored)
                assert later.reason == "unavailable"
                assert str(site.fakes[0].port) in later.detail
        assert watch.seconds < TIMEOUT
        assert [fake.scans for fake in site.fakes] == asked
    down = site.watched.events("spam.server.down")
    assert [line.get("text") for line in down] == [None] * (count - 1) + [ALL_FAILED]
    assert down[-1]["level"] == "error"
    assert site.changes[-1] is False


async def test_a_probe_brings_a_server_back(make: Callable[..., Site]) -> None:
    site = make()
    site.fakes[0].refuse()
    async with watching(site):
        assert await site.scan() == Unscored("refused", f"{site.fakes[0].port}: Connection refused")
        assert not site.scanner.available
        site.fakes[0].accept()
        await until(lambda: site.scanner.available, "it is back")
        assert isinstance(await site.scan(), Scored)
    assert site.changes == [False, True]
    assert [line["server"] for line in site.watched.events("spam.server.up")] == [str(site.fakes[0].port)]


async def test_one_bad_answer_costs_one_message(make: Callable[..., Site]) -> None:
    """Else who can write a message that kills a child of spamd could have everybody's mail pass without a score."""
    site = make()
    async with watching(site):
        for _ in range(10):
            site.fakes[0].scan = Act()
            assert await site.scan() == Unscored("closed", f"{site.fakes[0].port}: {BROKE_OFF}")
            assert site.scanner.available
            site.fakes[0].scan = GOOD["spamd"]
            assert isinstance(await site.scan(), Scored)
    assert site.watched.events("spam.server.down") == []


async def test_a_message_that_takes_too_long_is_not_the_servers_fault_while_others_are_scored(
    make: Callable[..., Site],
) -> None:
    """Else who can write a message that is slow to scan could have everybody's mail pass without a score."""
    site = make(timeout=1.0)
    fake = site.fakes[0]
    fake.scan = SILENT
    slow = asyncio.create_task(site.scan())
    await until(lambda: fake.scans == 1, "it is asked about")
    fake.scan = GOOD["spamd"]
    assert isinstance(await site.scan(), Scored)
    assert await slow == Unscored("timeout", f"{fake.port}: no answer in time")
    assert isinstance(await site.scan(), Scored)
    assert site.changes == []
    fake.scan = SILENT  # and from now on nobody is scored
    assert isinstance(await site.scan(), Unscored)
    assert site.changes == [False]


async def test_one_that_answers_only_probes_is_tried_less_and_less(make: Callable[..., Site]) -> None:
    seconds = 0.5
    site = make(timeout=seconds)
    site.fakes[0].scan = SILENT
    loop = asyncio.get_running_loop()
    seen: list[float] = []
    async with watching(site):
        for _ in range(5):
            await until(lambda: site.scanner.available, "it is back")
            seen.append(loop.time())
            assert isinstance(await site.scan(), Unscored)
        away = [after - before for before, after in itertools.pairwise(seen)]
        assert away[1] >= seconds + INTERVAL
        assert away[2] >= seconds + 2 * INTERVAL
        assert away[3] >= seconds + 4 * INTERVAL
        site.fakes[0].scan = GOOD["spamd"]
        await until(lambda: site.scanner.available, "it is back")
        assert isinstance(await site.scan(), Scored)
        site.fakes[0].scan = SILENT
        assert isinstance(await site.scan(), Unscored)
        assert site.scanner._servers[0].doubt == 0  # and is probed at once
        await until(lambda: site.scanner.available, "it is trusted again")


async def test_a_caller_in_a_hurry_is_not_the_servers_fault(make: Callable[..., Site]) -> None:
    site = make(timeout=TIMEOUT)
    site.fakes[0].scan = SILENT
    found = await site.scan(within=TIMEOUT / 4)
    assert isinstance(found, Unscored)
    assert found.reason == "timeout"
    assert site.scanner.available
    assert isinstance(await site.scan(within=-1.0), Unscored)


class Broken:
    """A scorer with a bug."""

    name = "broken"

    async def score(self, *_: Any) -> Scored | Unscored:
        """Fails as no scorer should."""
        raise RuntimeError("a bug")

    async def ping(self, _deadline: float) -> str:
        """Is fine."""
        return ""

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_bug_in_a_scorer_is_said_and_stops_no_mail(make: Callable[..., Site]) -> None:
    watched = Watched()
    with Port() as port:
        scanner = Scorers([Broken(), scorer("spamd", port)], watched, timeout=TIMEOUT)
        found = await scanner.scan(ENVELOPE, HAM, CLIENT, asyncio.get_running_loop().time() + 9)
    assert found == Unscored("refused", f"broken: trouble of our own; {port}: Connection refused")
    assert "RuntimeError: a bug" in watched.events("spam.failed")[0]["trace"]
