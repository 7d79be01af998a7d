"""The verbs beside a running daemon: `mailgate serve` has the spool locked and delivers."""

import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from tests.cli.site import PROGRAM, Mail, Site
from tests.stack.children import Child
from tests.stack.fake_mailman import FakeMailman
from tests.stack.fake_script import Act, Stage, Then, say
from tests.stack.waiting import wait_until

A, B = "announce@lists.test", "dev@lists.test"
LATER = "450 not now"


class Daemon:
    """A daemon of the site."""

    def __init__(self, site: Site) -> None:
        self._http = site.ports[1]
        log = site.directory / "log"
        self.child = Child([PROGRAM, "serve", "--config", site.config], directory=site.directory, log=log)
        wait_until(self._http.open, "the daemon answers")

    def says(self) -> dict[str, object]:
        """What /readyz says."""
        with urllib.request.urlopen(f"http://{self._http}/readyz", timeout=60) as answer:
            said: dict[str, object] = json.load(answer)
        return said


@pytest.fixture
def daemon(fed: Site, fake: FakeMailman) -> Iterator[Daemon]:
    """A daemon with four messages that wait, after a first refusal for the time being."""
    fed.fill(*(Mail({A: "pending"}, age=900 - n) for n in range(3)), Mail({B: "held"}))
    fake.on(Stage.RCPT, say(LATER), times=3)
    made = Daemon(fed)
    wait_until(lambda: {one["reply"] for row in fed.rows("--list", A) for one in row["recipients"]} == {LATER}, "a try")
    fake.behave()
    yield made
    made.child.kill()


def test_replay_is_followed_to_its_end(fed: Site, fake: FakeMailman, daemon: Daemon) -> None:
    fake.on(Stage.RCPT, say("450 still not"), times=1)
    first = fed.run("queue", "replay", "--all", "--wait", "--json", "--rate", "50/s")
    second = fed.run("queue", "replay", "--all", "--wait", "--verbose")

    assert (first.status, second.status) == (1, 0), second.err
    assert sorted(row["outcome"] for row in first.rows) == ["deferred", "delivered", "delivered"]
    assert [line.split()[1:3] for line in second.out.splitlines()] == [["delivered", A]]
    assert second.err.splitlines()[-1].startswith("1 delivered in ")
    assert len(fake.taken) == 3


def test_replay_need_not_be_followed_nor_mailman_be_there(fed: Site, fake: FakeMailman, daemon: Daemon) -> None:
    fake.refuse()

    followed = fed.run("queue", "replay", "--all", "--wait")
    ordered = fed.run("queue", "replay", "--list", A, "--no-wait")

    assert (followed.status, ordered.status) == (1, 0)
    assert "Mailman is down" in followed.err
    assert "the daemon delivers when it is back" in followed.err
    assert "made due" in ordered.err
    fake.accept()
    fake.wait_taken(3)


def test_replay_says_that_the_daemon_has_ended(fed: Site, fake: FakeMailman, daemon: Daemon) -> None:
    fake.on(Stage.DOT, Act(lines=0, then=Then.HANG))
    with fed.start("queue", "replay", "--all", "--wait", stderr=subprocess.PIPE) as process:
        wait_until(lambda: sum(command == "DATA" for command in fake.commands) >= 3, "the daemon tries")
        daemon.child.kill()
        _, words = process.communicate(timeout=60)

    assert process.returncode == 1
    assert b"the daemon has ended" in words
    fake.behave()
    ran = fed.run("queue", "replay", "--all", "-v")
    assert (ran.status, len(ran.out.splitlines())) == (0, 3), ran.err


def test_a_pause_and_changes_are_seen(fed: Site, fake: FakeMailman, daemon: Daemon) -> None:
    fed.run("pause", "--reason", "upgrade of Mailman")
    wait_until(lambda: daemon.says()["paused"] == "upgrade of Mailman", "the daemon knows")
    assert fed.run("queue", "replay", "--all").status == 1
    assert fake.taken == []

    fed.run("resume")
    wait_until(lambda: daemon.says()["paused"] == "", "the daemon knows")
    assert fed.run("queue", "hold", "--list", A).status == 0
    assert fed.run("queue", "drop", "--list", B, "--yes").status == 0
    assert fed.run("queue", "release", "--list", A, "--yes").status == 0
    assert fed.run("spool", "backup", str(fed.directory / "copy.db")).status == 0
    assert fed.run("spool", "verify").status == 0
    fake.wait_taken(3)
    daemon.child.send(signal.SIGTERM)
    assert daemon.child.wait(60) == 0
    assert set(fed.states().values()) == {"delivered", "dropped"}
