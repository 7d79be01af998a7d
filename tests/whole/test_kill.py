"""The kill test: the gate is killed (SIGKILL) again and again, under load, while Mailman flaps. Nothing is lost.

MAILGATE_KILL_ROUNDS says how often (a few are quick, hundreds find more), MAILGATE_KILL_SEED repeats a run's choices
(not its timing). What a repeat must show is said in `account.py`.
"""

import os
import random
import secrets
import time

import pytest

from tests.edge.pair import started
from tests.stack.fake_mailman import FakeMailman
from tests.stack.gate import Gate
from tests.stack.waiting import wait_until
from tests.whole import account, flap
from tests.whole.load import Door, Poster, attempts_of

ROUNDS = int(os.environ.get("MAILGATE_KILL_ROUNDS", "8"))
SEED = int(os.environ.get("MAILGATE_KILL_SEED", "0")) or secrets.randbits(32)
POSTERS = 4
HASTY = {
    "relay": {"budget": "4s"},
    "mailman": {"connect_timeout": "0.3s", "reply_timeout": "0.4s", "probe_interval": "0.1s"},
    "spool": {"retry_first": "0.1s", "retry_max": "1s"},
}


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_killed_at_any_moment_nothing_is_lost_and_each_repeat_is_announced() -> None:
    print(f"seed {SEED}, {ROUNDS} rounds")
    chance = random.Random(SEED)
    with started(HASTY) as pair:
        doors: list[Door] = [pair.gate.lmtp, pair.gate.socket]
        posters = [Poster(f"p{n}", doors, chance.getrandbits(32)) for n in range(POSTERS)]
        for poster in posters:
            poster.start()
        for _ in range(ROUNDS):
            _kill_and_start(pair.gate, pair.fake, chance)
        flap.recover(pair.fake)
        flap.MOODS["hangs at the final dot and has it"](pair.fake)  # some are uncertain, whatever the moods were
        wait_until(lambda: _uncertain(pair.gate), "one is spooled as uncertain")
        flap.recover(pair.fake)
        for poster in posters:
            poster.finish()
        for poster in posters:
            poster.join(60)
            assert not poster.is_alive(), poster.name
        _wait_delivered(pair.gate)
        found = account.settle(
            attempts_of(posters),
            list(pair.fake.taken),
            account.spooled(pair.gate.rows("queue", "list", "--state", "delivered")),
            _uncertain(pair.gate),
        )
    print(dict(found.counts))
    assert found.faults == []
    assert [line for poster in posters for line in poster.refused] == []
    assert found.counts["spooled"] > 0
    assert found.counts["shown uncertain"] > 0


def _uncertain(gate: Gate) -> set[account.Key]:
    return account.called_uncertain(event for event in gate.events() if event["event"].startswith("message."))


def _kill_and_start(gate: Gate, fake: FakeMailman, chance: random.Random) -> None:
    _flap_until(time.monotonic() + chance.uniform(0, 1.2), fake, chance)
    gate.kill()
    if chance.random() < 0.2:  # and once more while it starts
        gate.begin()
        _flap_until(time.monotonic() + chance.uniform(0, 1), fake, chance)
        gate.kill()
    gate.start()


def _flap_until(end: float, fake: FakeMailman, chance: random.Random) -> None:
    while (left := end - time.monotonic()) > 0:
        flap.change(fake, chance)
        time.sleep(min(left, chance.uniform(0.05, 0.4)))


def _wait_delivered(gate: Gate) -> None:
    """Until nothing is in the spool any more; what is there when that takes too long is shown."""
    try:
        wait_until(lambda: gate.metric("mailgate_spool_messages") == 0, "the spool is empty", deadline=60 + 2 * ROUNDS)
    except TimeoutError:
        print(*gate.rows("queue", "list"), sep="\n")
        raise
