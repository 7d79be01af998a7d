"""Any envelope and any octets come out as they went in."""

import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailgate.core.envelope import Envelope, address_text
from mailgate.core.message import Message, message
from mailgate.edge.spool import Store
from mailgate.ports import Facts, Parked, Settlement
from tests.spool.kit import HOST, NOW, Recorder, config, octets

addresses = st.binary(max_size=60).map(address_text)
words = st.text(max_size=40) | addresses
parked = st.builds(
    Parked, recipient=addresses, state=st.just("pending"), reply=words, uncertain=st.booleans(), alone=st.booleans()
)
# Pieces of any kind, and a few large ones of which only the size matters.
pieces = st.lists(
    st.binary(max_size=200) | st.integers(1, 1_500_000).map(lambda size: b"o" * size), min_size=1, max_size=4
)
messages = st.one_of(
    pieces.map(message),
    st.builds(Message, head=st.binary(max_size=100), body=pieces.map(tuple), bounded=st.just(False)),
)


class Bench:
    """One spool and one loop for all examples."""

    def __init__(self, directory: Path) -> None:
        self.runner = asyncio.Runner()
        self.store = Store(config(directory), HOST, Recorder())
        self.runner.run(self.store.open())
        self.ids = itertools.count()

    def close(self) -> None:
        """End both."""
        self.runner.run(self.store.close())
        self.runner.close()


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """See above."""
    with tempfile.TemporaryDirectory() as directory:
        one = Bench(Path(directory))
        yield one
        one.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
@given(
    sender=addresses,
    people=st.lists(parked, min_size=1, max_size=5),
    content=messages,
    facts=st.builds(Facts, words, words, words),
)
def test_store_then_claim_and_load(
    bench: Bench, sender: str, people: list[Parked], content: Message, facts: Facts
) -> None:
    store, gate_id = bench.store, f"id{next(bench.ids)}"
    envelope = Envelope(sender, tuple(one.recipient for one in people), smtputf8=True)

    async def through() -> None:
        await store.store(gate_id, envelope, content, people, facts, NOW, 30)
        [claimed] = await store.claim(NOW, 9)
        assert (claimed.id, claimed.envelope) == (gate_id, envelope)
        assert claimed.alone == any(one.alone for one in people)
        assert octets(await store.load(gate_id)) == octets(content)
        await store.settle(gate_id, [Settlement(n, "delivered", "") for n in claimed.numbers], NOW)
        assert store.counts().octets == 0

    bench.runner.run(through())
