"""The replay on a real spool, with a Mailman that does as the test says: what becomes of each recipient."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from mailgate import config as configuration
from mailgate.config import Config
from mailgate.core.envelope import Envelope
from mailgate.core.outcome import Outcome, Result
from mailgate.core.reply import Reply
from mailgate.core.spam import AWAITS_SCORE
from mailgate.core.triage import all_alike
from mailgate.edge.spool import Store
from mailgate.edge.spool.listing import Person, Selection, listed
from mailgate.ports import Parked, Valve
from mailgate.replay import Replay
from mailgate.scanner import Scorers
from tests.spool.kit import HOST, Recorder, put, put_unscored, states, wait_until

DAY = 86400.0
A, B, C = "a@lists.test", "b@lists.test", "c@lists.test"


@dataclass
class Mailman:
    """Answers as `result` says, and does `at` before that, which is told how many times it was asked before."""

    result: Result = Result.DELIVERED
    at: Callable[[int], None] = lambda _: None
    up: bool = True
    sent: list[Sequence[str]] = field(default_factory=list)

    async def deliver(self, envelope: Envelope, *_: Any, **__: Any) -> tuple[Outcome, ...]:
        self.sent.append(envelope.recipients)
        self.at(len(self.sent) - 1)
        return all_alike(self.result, Reply(451, "4.3.0", "not now"), len(envelope.recipients))


@dataclass
class Bench:
    """A replay and all that it stands on."""

    store: Store
    mailman: Mailman
    valve: Valve
    telemetry: Recorder
    replay: Replay

    def people(self, gate_id: str) -> tuple[Person, ...]:
        """What the spool has of the message's recipients."""
        [row] = listed(self.store.database, Selection(ids=(gate_id,)))
        return row.recipients


def settings(**replay: Any) -> Config:
    """No scorer, and a lifetime of five days."""
    return configuration.parse({"hostname": HOST, "spam": {"engine": "off"}, "replay": replay})


@pytest.fixture
def bench(store: Store, telemetry: Recorder) -> Bench:
    """See `Bench`."""
    mailman, valve = Mailman(), Valve()
    nobody = Scorers((), telemetry, timeout=1)
    return Bench(store, mailman, valve, telemetry, Replay(settings(), nobody, mailman, store, valve, telemetry))


def alone(*recipients: str) -> list[Parked]:
    """They are to be tried one by one."""
    return [Parked(one, "pending", "", alone=True) for one in recipients]


async def test_nobody_fails_of_age_without_an_attempt(bench: Bench) -> None:
    """The host, or Mailman, was down for longer than the lifetime."""
    await put(bench.store, "old", A, Parked(B, "held", ""), now=time.time() - 6 * DAY)
    await put(bench.store, "young", A, now=time.time() - 4 * DAY)
    await bench.store.tend(time.time())
    assert states(bench.store) == {"pending": 2, "held": 1}

    bench.mailman.result = Result.UNREACHED
    assert await bench.replay.run_once() == 2
    assert states(bench.store) == {"pending": 2, "held": 1}

    bench.mailman.result = Result.DEFERRED
    bench.store.database.write(lambda c: c.exec_driver_sql("UPDATE recipients SET next_attempt = 0"))
    assert await bench.replay.run_once() == 2
    assert [one.state for one in bench.people("old")] == ["failed", "held"]
    assert bench.people("old")[0].reply == "4.4.7 not delivered within spool.lifetime (5d); last: 451 4.3.0 not now"
    assert [one.state for one in bench.people("young")] == ["pending"]


async def test_what_is_delivered_at_last_is_not_too_old(bench: Bench) -> None:
    await put(bench.store, "old", now=time.time() - 6 * DAY)
    await bench.replay.run_once()
    assert states(bench.store) == {"delivered": 1}


async def test_a_clock_that_is_set_back_does_not_hide_what_is_held(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.replay.config = configuration.parse({"hostname": HOST, "spam": {"engine": "off", "hold_at_most": "10ms"}})
    assert await bench.replay.run_once() == 0, "it looks again in 10 ms"
    await put_unscored(bench.store, "one", Parked(A, "held", AWAITS_SCORE), now=time.time())
    looked, real = time.monotonic(), time.time
    monkeypatch.setattr(time, "time", lambda: real() - DAY)
    await wait_until(lambda: time.monotonic() > looked + 0.01)
    assert await bench.replay.run_once() == 1


@pytest.mark.parametrize("error", [MemoryError, asyncio.CancelledError])
async def test_a_fault_while_sending_leaves_nobody_unmarked(bench: Bench, error: type[BaseException]) -> None:
    """A cancellation that nobody asked for is one, too: the replay ended with it, until the next start."""

    def fault(number: int) -> None:
        if number == 1:
            raise error

    bench.mailman.at = fault
    await put(bench.store, "one", *alone(A, B, C), now=time.time())
    await bench.replay.run_once()
    assert [(one.state, one.attempts) for one in bench.people("one")] == [
        ("delivered", 1),
        ("uncertain", 1),
        ("delivered", 1),
    ]
    [fields] = [fields for fields in bench.telemetry.named("replay.failed") if "trace" in fields]
    assert (fields["id"], error.__name__ in str(fields["trace"])) == ("one", True)


async def test_a_delivery_that_may_be_the_second_one_says_so(bench: Bench) -> None:
    """As `queue show` does: somebody who got a post twice wants to know why."""
    await put(bench.store, "one", A, Parked(B, "pending", "", uncertain=True), now=time.time())
    await bench.replay.run_once()
    [fields] = bench.telemetry.named("replay.delivered")
    assert fields["uncertain_before"] == [B]


async def test_a_fault_while_telling_of_it_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    said = bench.telemetry.event

    def choking(name: str, fields: Mapping[str, object], *, level: str = "info") -> None:
        if name == "replay.delivered":
            raise MemoryError
        said(name, fields, level=level)

    monkeypatch.setattr(bench.telemetry, "event", choking)
    await put(bench.store, "one", now=time.time())
    await bench.replay.run_once()
    assert states(bench.store) == {"delivered": 1}
    assert bench.telemetry.named("replay.failed")


@pytest.mark.parametrize("how", ["paused", "stopped"])
async def test_those_who_go_one_by_one_can_be_stopped_between_two(bench: Bench, how: str) -> None:
    def stop(number: int) -> None:
        if number == 1 and how == "paused":
            bench.valve.paused = "upgrade"
        elif number == 1:
            bench.replay.stop()

    bench.mailman.at = stop
    await put(bench.store, "one", *alone(A, B, C), now=time.time())
    await bench.replay.run_once()
    assert bench.mailman.sent == [(A,), (B,)]
    assert [(one.state, one.attempts, one.alone) for one in bench.people("one")] == [
        ("delivered", 1, False),
        ("delivered", 1, False),
        ("pending", 0, True),
    ]


async def test_the_rate_is_that_of_transactions(bench: Bench) -> None:
    bench.replay.config = settings(rate=50)
    await put(bench.store, "one", *alone(A, B, C), now=time.time())
    began = time.monotonic()
    await bench.replay.run_once()
    assert (len(bench.mailman.sent), time.monotonic() - began >= 2 / 50) == (3, True)
