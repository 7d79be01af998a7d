"""A message of the largest size goes in and out while the event loop goes on turning."""

from collections.abc import Awaitable
from pathlib import Path

from tests.spool.kit import a_message, octets, put, spool
from tests.stack.lag import Lag

LIMIT = 0.05  # seconds that the loop may be kept
ROUNDS = 5  # other programs use this machine: the best of some rounds counts


async def lag_of(work: Awaitable[object]) -> float:
    """The longest that the loop was kept from turning while the work was done."""
    async with Lag() as lag:
        await work
    return min(lag.worst, lag.kept)  # late by others, or at work beside a loop that was let in: either is no fault


async def test_forty_mebibytes_do_not_stop_the_loop(tmp_path: Path) -> None:
    message = a_message(40 * 2**20)
    storing: list[float] = []
    loading: list[float] = []
    async with spool(tmp_path) as store:
        for n in range(ROUNDS):
            storing.append(await lag_of(put(store, f"m{n}", message=message)))
            loading.append(await lag_of(store.load(f"m{n}")))
            if storing[-1] < LIMIT and loading[-1] < LIMIT:
                break
        assert min(storing) < LIMIT, storing
        assert min(loading) < LIMIT, loading
        assert octets(await store.load("m0")) == octets(message)
        assert store.counts().octets == 40 * 2**20 * len(storing)
