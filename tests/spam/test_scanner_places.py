"""The places at a server: how many, for whom, and what becomes of them when somebody gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mailgate.core.scan import Scored, Unscored
from tests.spam.kit import Stopwatch, until
from tests.spam.site import BROKE_OFF, LATE, SILENT, Site, watching
from tests.stack.fake_scorer import ALIVE, GOOD, Act


async def test_no_more_than_so_many_messages_are_at_a_server(make: Callable[..., Site]) -> None:
    site = make(2, connections=3)
    site.all_do(LATE)
    tasks = [asyncio.create_task(site.scan()) for _ in range(10)]
    await until(lambda: [fake.scans for fake in site.fakes] == [3, 3], "all places are taken")
    site.all_do(GOOD["spamd"])
    for fake in site.fakes:
        fake.release()
    assert all(isinstance(found, Scored) for found in await asyncio.gather(*tasks))
    assert [fake.most_open for fake in site.fakes] == [3, 3]


async def test_waiting_for_a_place_counts_and_is_not_the_servers_fault(make: Callable[..., Site]) -> None:
    site = make(connections=1)
    site.fakes[0].scan = LATE
    first = asyncio.create_task(site.scan())
    await until(lambda: site.fakes[0].scans == 1, "the place is taken")
    with Stopwatch() as watch:
        assert await site.scan(within=3.0) == Unscored("busy", "no spamd server became free in time")
    assert 1.5 <= watch.seconds < 2.9
    site.fakes[0].release()
    assert isinstance(await first, Scored)
    assert site.scanner.available


async def test_after_an_outage_places_come_back_with_each_success(make: Callable[..., Site]) -> None:
    site = make(connections=4)
    fake = site.fakes[0]
    fake.refuse()
    async with watching(site):
        await site.scan()
        fake.scan, fake.ping = LATE, ALIVE["spamd"]
        fake.accept()
        await until(lambda: site.scanner.available, "it is back")
        tasks = [asyncio.create_task(site.scan()) for _ in range(9)]
        for come in (1, 1 + 2, 1 + 2 + 4, 9):
            await until(lambda: fake.scans >= come, f"{come} have come")  # noqa: B023  used at once
            assert len(site.scanner._waiters) == 9 - come
            fake.release()
        assert all(isinstance(found, Scored) for found in await asyncio.gather(*tasks))


async def test_who_gives_up_gives_the_place_back(make: Callable[..., Site]) -> None:
    site = make(connections=1)
    site.fakes[0].scan = LATE
    first, second = asyncio.create_task(site.scan()), asyncio.create_task(site.scan())
    await until(lambda: site.fakes[0].scans == 1, "the place is taken")
    for task in (second, first):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    site.fakes[0].scan = GOOD["spamd"]
    assert isinstance(await site.scan(), Scored)
    assert site.scanner.available


async def test_who_gives_up_just_as_a_place_is_given_gives_it_back(
    make: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make(connections=1)
    site.fakes[0].scan = LATE
    first, second = asyncio.create_task(site.scan()), asyncio.create_task(site.scan())
    await until(lambda: site.fakes[0].scans == 1, "the place is taken")
    # What is measured behind a scan is measured when its place has been given on, before the next one knows of it.
    monkeypatch.setattr(site.watched, "observe", lambda *_, **__: second.cancel())
    site.fakes[0].release()
    assert isinstance(await first, Scored)
    with pytest.raises(asyncio.CancelledError):
        await second
    site.fakes[0].scan = GOOD["spamd"]
    assert isinstance(await site.scan(), Scored)


async def test_who_waits_for_the_second_server_does_not_keep_others_from_the_first(make: Callable[..., Site]) -> None:
    site = make(2, connections=1)
    one, other = site.fakes
    one.scan, other.scan = Act(late=True), LATE
    async with watching(site):
        first, second = asyncio.create_task(site.scan()), asyncio.create_task(site.scan())
        await until(lambda: [fake.scans for fake in site.fakes] == [1, 1], "both places are taken")
        behind = asyncio.create_task(site.scan())
        await until(lambda: len(site.scanner._waiters) == 1, "one waits")
        one.scan = LATE
        one.release()  # it drops the first, which now waits for the other server; then it is probed, and trusted again
        await until(lambda: one.scans == 2, "the one behind has the place that the first may not have")
        other.scan = Act()
        other.release()
        found = await second, await first
        assert isinstance(found[0], Scored)
        assert found[1] == Unscored("closed", "; ".join(f"{fake.port}: {BROKE_OFF}" for fake in site.fakes))
        one.release()
        assert isinstance(await behind, Scored)


async def test_who_has_been_everywhere_is_told_at_once_although_others_wait(make: Callable[..., Site]) -> None:
    site = make(2, connections=1)
    one, other = site.fakes
    one.scan, other.scan = Act(late=True), Act(late=True)
    async with watching(site):
        first, second = asyncio.create_task(site.scan()), asyncio.create_task(site.scan())
        await until(lambda: [fake.scans for fake in site.fakes] == [1, 1], "both places are taken")
        others = [asyncio.create_task(site.scan()) for _ in range(2)]
        await until(lambda: len(site.scanner._waiters) == 2, "two wait")
        one.scan, other.ping = LATE, SILENT
        one.release()
        await until(lambda: one.scans == 2, "one of those who waited is at the first server")
        with Stopwatch() as watch:
            other.refuse()
            other.release()  # and the second server is down
            assert isinstance(await first, Unscored)
        assert watch.seconds < 4  # of the ten that a time-out takes
        one.scan = GOOD["spamd"]
        one.release()
        assert all(isinstance(found, Scored) for found in await asyncio.gather(second, *others))
