"""`queue replay` with the daemon down: this command delivers, what was chosen and nothing else."""

import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, event

from mailgate.ports import Facts
from tests.cli.site import Mail, Site
from tests.stack.fake_mailman import FakeMailman
from tests.stack.fake_scorer import FakeScorer
from tests.stack.fake_script import Act, Stage, Then, say
from tests.stack.waiting import wait_until

A, B, C = "announce@lists.test", "dev@lists.test", "users@lists.test"


def octets(name: str) -> bytes:
    return f"Message-ID: <{name}@example.org>\r\nSubject: {name}\r\n\r\n.dot\r\n\xfc\r\n".encode("latin-1")


def mails(*names: str, **more: str) -> list[Mail]:
    return [Mail({A: "pending"}, age=900 - n, octets=octets(name)) for n, name in enumerate(names)]


def test_what_waits_is_delivered_oldest_first(fed: Site, fake: FakeMailman) -> None:
    fed.fill(*mails("one", "two", "three"))

    ran = fed.run("queue", "replay", "--all", "--verbose", "--rate", "200/s")

    assert ran.status == 0
    assert ran.err.splitlines()[-1].startswith("3 delivered in ")
    assert [line.split()[1:3] for line in ran.out.splitlines()] == [["delivered", A]] * 3
    assert sorted(taken.octets for taken in fake.taken) == sorted(map(octets, ("one", "two", "three")))
    assert set(fed.states().values()) == {"delivered"}


def test_only_what_was_chosen_is_tried(fed: Site, fake: FakeMailman) -> None:
    first, second = fed.fill(Mail({A: "pending", B: "pending", C: "held"}, age=99), Mail({B: "pending"}))

    ran = fed.run("queue", "replay", "--list", A)

    assert ran.status == 0
    assert [taken.recipients for taken in fake.taken] == [(A,)]
    assert fed.states() == {(first, A): "delivered", (first, B): "pending", (first, C): "held", (second, B): "pending"}


def test_a_limit_takes_the_oldest(fed: Site, fake: FakeMailman) -> None:
    fed.fill(*mails("one", "two", "three"))

    assert fed.run("queue", "replay", "--all", "--limit", "2").status == 0
    assert {taken.message_id for taken in fake.taken} == {"<one@example.org>", "<two@example.org>"}


def test_what_failed_is_tried_only_by_name(fed: Site, fake: FakeMailman) -> None:
    (gate_id,) = fed.fill(Mail({A: "failed"}))

    assert fed.run("queue", "replay", "--all").status == 3
    assert fake.taken == []
    assert fed.run("queue", "replay", "--state", "failed").status == 0
    assert fed.states() == {(gate_id, A): "delivered"}


def test_what_is_not_due_yet_is_tried_now(fed: Site, fake: FakeMailman) -> None:
    fed.fill(Mail({A: "pending"}))
    fake.on(Stage.RCPT, say("450 busy"), times=1)
    assert fed.run("queue", "replay", "--all").status == 1
    ((row,),) = (one["recipients"] for one in fed.rows())
    assert row["next_attempt"] > time.time()

    assert fed.run("queue", "replay", "--all").status == 0


def test_each_outcome_is_told_and_counted(fed: Site, fake: FakeMailman) -> None:
    (gate_id,) = fed.fill(Mail({A: "pending", B: "pending", C: "pending"}))
    fake.on(Stage.RCPT, say("450 busy"), only=B)
    fake.on(Stage.RCPT, say("550 Requested action not taken: mailbox unavailable"), only=C)

    ran = fed.run("queue", "replay", gate_id, "--json")

    assert ran.status == 1
    told = {row["address"]: (row["outcome"], row["reply"]) for row in ran.rows}
    assert told[A][0] == "delivered"
    assert told[B] == ("deferred", "450 busy")
    assert told[C][0] in {"failed", "deferred"}  # a refusal is believed when it has been repeated
    states = fed.states()
    assert {address: word for (_, address), word in states.items()} == {
        A: "delivered",
        B: "pending",
        C: "failed" if told[C][0] == "failed" else "pending",
    }


def test_a_lost_reply_is_uncertain(fed: Site, fake: FakeMailman) -> None:
    (gate_id,) = fed.fill(Mail({A: "pending"}))
    fake.on(Stage.DOT, Act(lines=0, then=Then.CLOSE))

    ran = fed.run("queue", "replay", "--all")

    assert ran.status == 1
    assert ran.out.split()[:3] == [gate_id, "uncertain", A]
    assert fed.states() == {(gate_id, A): "uncertain"}


def test_without_mailman_nothing_is_tried_and_it_says_so(site: Site) -> None:
    site.fill(*mails(*"abcdefghijkl"))
    before = [[one["attempts"] for one in row["recipients"]] for row in site.rows()]

    ran = site.run("queue", "replay", "--all")

    assert (ran.status, ran.out) == (1, "")
    assert "12 recipients of 12 messages not tried, still in the spool" in ran.err
    assert "Mailman is not reached: 127.0.0.1:9: Connection refused" in ran.err
    assert [[one["attempts"] for one in row["recipients"]] for row in site.rows()] == before
    assert not any(one["busy"] for row in site.rows() for one in row["recipients"])


def test_given_time_it_waits_for_mailman(fed: Site, fake: FakeMailman) -> None:
    fed.fill(*mails("one", "two"))
    fake.refuse()
    with fed.start("queue", "replay", "--all", "--for", "120s", stderr=subprocess.PIPE) as process:
        wait_until(fed.tried, "an attempt")
        fake.accept()
        _, words = process.communicate(timeout=60)

    assert (process.returncode, len(fake.taken)) == (0, 2), words


def test_a_scorer_that_comes_back_scores_what_is_left(fed: Site, fake: FakeMailman) -> None:
    fed.fill(Mail({A: "pending"}, facts=Facts(scan="unscored:timeout: 127.0.0.1:783: no answer")))
    fake.refuse()

    def mend(scorer: FakeScorer) -> None:
        wait_until(fed.tried, "an attempt")
        scorer.accept()
        wait_until(lambda: scorer.questions, "the scorer is asked, or probed")
        fake.accept()  # not before: it would go out unscored

    with FakeScorer("spamd") as scorer, ThreadPoolExecutor() as thread:
        with fed.config.open("a") as file:
            file.write(f'[spam]\nservers = ["{scorer.port}"]\nprobe_interval = "0.05s"\n')
        scorer.refuse()
        mending = thread.submit(mend, scorer)
        ran = fed.run("queue", "replay", "--all", "--for", "120s")
        mending.result()
    assert "held       announce@lists.test  spam-reject (score 7.2)" in ran.out


def test_what_meets_trouble_of_ours_is_not_waited_for(fed: Site, fake: FakeMailman) -> None:
    one, two = fed.fill(*mails("one", "two"))

    def fail(*args: Any) -> None:
        if "bodies" in args[2] and one in str(args[3]):
            raise sqlite3.OperationalError("disk I/O error")

    event.listen(Engine, "before_cursor_execute", fail)
    try:
        ran = fed.run("queue", "replay", "--all")
    finally:
        event.remove(Engine, "before_cursor_execute", fail)
    assert (ran.status, ran.out.split()[:3]) == (1, [one, "deferred", A])
    assert "disk I/O error" in ran.err
    assert fed.states() == {(one, A): "pending", (two, A): "delivered"}


def test_time_runs_out(site: Site) -> None:
    site.fill(*mails("one"))

    ran = site.run("queue", "replay", "--all", "--for", "300ms")

    assert ran.status == 1
    assert "--for has run out" in ran.err
    assert "1 recipient of 1 message not tried" in ran.err


def test_interrupted_it_ends_what_it_is_sending(fed: Site, fake: FakeMailman) -> None:
    fed.fill(*mails(*"abcdefghijklmnopqrst"))
    fake.on(Stage.DOT, Act(pause=0.5))
    with fed.start("queue", "replay", "--all", stderr=subprocess.PIPE) as process:
        wait_until(lambda: "DATA" in " ".join(fake.commands), "a message is being sent")
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=60)

    delivered = [who for who, state in fed.states().items() if state == "delivered"]
    assert process.returncode == 1
    assert b"interrupted" in words
    assert 1 <= len(delivered) == len(fake.taken) < 20
    assert not any(one["busy"] or one["uncertain"] for row in fed.rows() for one in row["recipients"])


def test_paused_or_foreign_it_does_nothing(fed: Site, fake: FakeMailman) -> None:
    fed.fill(*mails("one"))
    before = fed.rows()
    fed.run("pause", "--reason", "upgrade of Mailman")
    paused = fed.run("queue", "replay", "--all")
    fed.run("resume")
    with sqlite3.connect(fed.spool) as database:
        database.execute("""UPDATE meta SET value = json_set(value, '$.host', 'old.lists.test') WHERE key = 'owner'""")
        assert database.total_changes == 1
    database.close()
    foreign = fed.run("queue", "replay", "--all")

    assert (paused.status, foreign.status) == (1, 1)
    assert "upgrade of Mailman" in paused.err
    assert "old.lists.test" in foreign.err
    assert fake.taken == []
    assert fed.rows() == before


def test_a_damaged_message_does_not_stop_the_rest(fed: Site, fake: FakeMailman) -> None:
    one, two = fed.fill(*mails("one", "two"))
    with sqlite3.connect(fed.spool) as database:
        database.execute("UPDATE bodies SET data = x'00' WHERE message_id = ?", (one,))
    database.close()

    ran = fed.run("queue", "replay", "--all")

    assert ran.status == 1
    assert "1 delivered, 1 corrupt" in ran.err
    assert fed.states() == {(one, A): "corrupt", (two, A): "delivered"}


@pytest.mark.parametrize("rate", ["fast", "0/s", "-1", "5/h"])
def test_a_rate_that_is_none_is_misuse(fed: Site, rate: str) -> None:
    assert fed.run("queue", "replay", "--all", "--rate", rate).status == 2
