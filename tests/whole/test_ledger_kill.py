"""The gate is killed (SIGKILL) again and again while no scorer answers: what passed unscored stands in the ledger.

The one thing that may be missing is said in the ledger's contract: under load, posts that went straight to Mailman in
the moment before the kill. What was spooled is there by the same commit.
MAILGATE_KILL_ROUNDS and MAILGATE_KILL_SEED as in `test_kill.py`.
"""

import os
import random
import secrets
import threading
import time
from dataclasses import dataclass, field

import pytest

from mailgate.edge.spool.ledger import LINGER
from tests.edge.pair import Pair, mail, started
from tests.stack.client import Client
from tests.stack.fake_script import Act, Stage
from tests.stack.ports import Port
from tests.stack.waiting import wait_until
from tests.whole import account, flap

ROUNDS = int(os.environ.get("MAILGATE_KILL_ROUNDS", "5"))
SEED = int(os.environ.get("MAILGATE_KILL_SEED", "0")) or secrets.randbits(32)
POSTERS = 6
COMMIT = 1.0  # seconds: what a commit takes on a busy machine
HASTY = {
    "relay": {"budget": "4s"},
    "mailman": {"connect_timeout": "0.3s", "reply_timeout": "0.4s", "probe_interval": "0.1s"},
    "spool": {"retry_first": "0.1s", "retry_max": "1s"},
}


@dataclass
class Poster(threading.Thread):
    """Hands in one message after the other until it is stopped. `told` has the word of each 250 and when it came."""

    pair: Pair
    number: int
    told: dict[str, tuple[str, float]] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Post."""
        client: Client | None = None
        count = 0
        while not self.stopping.is_set():
            count += 1
            message_id = f"<{self.number}-{count}@example.net>"
            try:
                client = client or self.pair.client()
                [reply] = client.deliver("ida@example.org", ["list@lists.test"], mail(message_id)).final
            except (OSError, EOFError):  # it is dead: Exim would send this one again
                if client:
                    client.close()
                client = None
                time.sleep(0.02)
                continue
            if reply.code == 250:
                _, gate_id, word, *_ = reply.text.split()
                self.told[gate_id] = word.rstrip(":"), time.time()
        if client:
            client.close()


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_killed_at_any_moment_the_ledger_has_what_passed_unscored() -> None:
    print(f"seed {SEED}, {ROUNDS} rounds")
    chance, nobody, killed = random.Random(SEED), Port(), list[float]()
    spam = {"spam": {"engine": "rspamd", "servers": [str(nobody)], "timeout": "1s"}}
    with started(HASTY | spam) as pair:
        posters = [Poster(pair, number) for number in range(POSTERS)]
        for poster in posters:
            poster.start()
        for number in range(ROUNDS):
            if number % 2:
                flap.change(pair.fake, chance)
            else:
                flap.recover(pair.fake)
            if number == 1:  # some are to be spooled, whatever the moods are
                pair.fake.refuse()
                wait_until(lambda: _spooled(posters), "one is spooled")
            time.sleep(chance.uniform(0.3, 3.0))
            pair.gate.kill()
            killed.append(time.time())
            pair.gate.start()
        flap.recover(pair.fake)
        for poster in posters:
            poster.stopping.set()
            poster.join(60)
            assert not poster.is_alive()
        wait_until(lambda: pair.gate.metric("mailgate_spool_messages") == 0, "the spool is empty")
        pair.gate.stop()
        listed = {row["id"]: row["recipients"][0]["state"] for row in pair.gate.rows("unscored", "list")}
        assert pair.gate.rows("unscored", "list", "--all", "--outages")[0]["posts"] >= len(listed)
        taken = {account.gate_id(one): one.octets for one in pair.fake.taken}
    nobody.close()
    told = {gate_id: one for poster in posters for gate_id, one in poster.told.items()}
    _compare(told, killed, listed, taken)


def _spooled(posters: list[Poster]) -> bool:
    return any(word == "spooled" for poster in posters for word, _ in list(poster.told.values()))


def _compare(
    told: dict[str, tuple[str, float]], killed: list[float], listed: dict[str, str], taken: dict[str, bytes]
) -> None:
    assert all(b"\r\nX-Mailgate-Scan: unscored; reason=" in octets for octets in taken.values())
    missing = {gate_id: told[gate_id] for gate_id in taken.keys() & told.keys() if gate_id not in listed}
    counts = f"{len(taken)} taken, {len(told)} answered, {len(listed)} listed, {len(missing)} of the answered missing"
    ages = {
        gate_id: min((end - at for end in killed if end >= at), default=9e9) for gate_id, (_, at) in missing.items()
    }
    print(f"{counts}: at most {max(ages.values(), default=0):.3f} s before a kill")
    assert len(told) > 10 * ROUNDS
    assert {word for word, _ in told.values()} == {"delivered", "spooled"}
    assert [gate_id for gate_id, (word, _) in missing.items() if word == "spooled"] == []
    assert [gate_id for gate_id, age in ages.items() if age > LINGER + COMMIT] == []
    claimed = {gate_id for gate_id, state in listed.items() if state == "delivered"}
    assert claimed <= taken.keys(), "what is called delivered was"
    assert set(listed.values()) <= {"delivered", "uncertain"}


def test_at_a_quiet_hour_nothing_is_missing() -> None:
    """A Mailman that takes the time that a real one does, a post now and then: the entry is there before the reply."""
    nobody = Port()
    spam = {"spam": {"engine": "rspamd", "servers": [str(nobody)], "timeout": "1s"}}
    told = []
    with started(spam) as pair:
        pair.fake.on(Stage.DOT, Act(pause=COMMIT))
        for number in range(3):
            result = pair.send("list@lists.test", octets=mail(f"<{number}@example.net>"))
            pair.gate.kill()
            told.append(result.final[0].text.split()[1])
            pair.gate.start()
        listed = [row["id"] for row in pair.gate.rows("unscored", "list")]
    nobody.close()
    assert listed == told
