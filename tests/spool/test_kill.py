"""SIGKILL in the middle of everything: what was acknowledged is there, what was being tried is uncertain."""

import asyncio
import random
from pathlib import Path

from mailgate.edge.spool import Store
from mailgate.ports import Claimed, Settlement
from tests.spool.kit import HOST, NOW, Recorder, a_message, config, octets
from tests.spool.processes import child

ROUNDS = 3


async def test_what_was_acknowledged_is_there(tmp_path: Path) -> None:
    said: dict[str, set[str]] = {"stored": set(), "claimed": set(), "settled": set(), "ready": set()}
    announced: set[str] = set()
    delivered: set[str] = set()
    for number in range(ROUNDS):
        with child("load", tmp_path, f"round{number}") as one:
            lines = [one.hear() for _ in range(random.randrange(50, 300))]
            lines += one.kill(after=random.random() / 50)
        for line in lines:
            word, _, gate_id = line.partition(" ")
            said[word].add(gate_id)
        store = Store(config(tmp_path), HOST, Recorder())
        opened = await store.open()
        assert opened
        announced.update(opened.abandoned)
        delivered = await _examined(store, said["stored"], announced)
        await store.close()
    assert len(said["stored"]) > 20 * ROUNDS
    assert said["settled"]
    assert said["settled"] <= delivered
    assert said["claimed"] - delivered <= announced


async def _examined(store: Store, stored: set[str], announced: set[str]) -> set[str]:
    """Everything that was stored is waiting and whole, or delivered: the ids of these are returned. What was announced
    as uncertain and is not delivered by now is shown so.
    """
    waiting = {one.id: one for one in await store.claim(NOW, 10**6)}
    with store.database.reading.connect() as connection:
        rows = connection.exec_driver_sql("SELECT message_id, state, uncertain FROM recipients").all()
    delivered = {gate_id for gate_id, state, _ in rows if state == "delivered"}
    assert announced - delivered == {gate_id for gate_id, state, unsure in rows if state == "pending" and unsure}
    assert stored <= waiting.keys() | delivered
    assert not waiting.keys() & delivered, "both recipients were always settled together"

    async def check(one: Claimed) -> None:
        assert octets(await store.load(one.id)) == octets(a_message(4096, one.id[-1].encode()))
        await store.settle(one.id, [Settlement(n, "pending", "", tried=False) for n in one.numbers], NOW)

    await asyncio.gather(*(check(one) for one in waiting.values()))
    return delivered
