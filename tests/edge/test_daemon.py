"""The daemon as a whole: how it starts, reloads, drains and ends, and what it shows of itself."""

import itertools
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from tests.edge.failures import DELIVERED, SPOOLED, A, B
from tests.edge.pair import IMPATIENT, Pair, at_once, mail, started
from tests.edge.test_door import LMTP, SMTP, UNIX, at, words
from tests.stack.fake_mailman import FakeMailman
from tests.stack.fake_script import Act, Stage
from tests.stack.gate import Gate, merged
from tests.stack.waiting import wait_until

_numbers = itertools.count(1)

# Those of DESIGN §7 that are about the relay, the spool, the replay and the upstream.
METRICS = {
    "messages_total", "recipients_total", "reasons_total", "stage_seconds", "message_bytes", "spool_messages",
    "spool_bytes", "spool_oldest_seconds", "spool_commit_seconds", "replays_total", "upstream_up", "breaker_open",
    "paused", "connections", "loop_lag_seconds", "build_info",
}  # fmt: skip
STATES = {"pending", "uncertain", "held", "failed", "corrupt"}


def _say(pair: Pair, *recipients: str, door: str = LMTP) -> list[str]:
    with at(pair, door) as client:
        octets = mail(f"<daemon-{next(_numbers)}@example.net>")
        return words(client.deliver("bob@example.net", recipients or [A], octets).final)


def _second(pair: Pair, **settings: object) -> Gate:
    """Another gate in the same directory, not started; its addresses are its own."""
    return Gate(pair.directory / f"second-{next(_numbers)}", pair.fake.address, settings)


def test_the_pages(pair: Pair) -> None:
    pair.fake.refuse()
    assert _say(pair, A, B) == [SPOOLED] * 2
    status, page = pair.gate.page("/readyz")
    tree = json.loads(page)
    assert (status, tree["ready"], tree["spool"], tree["paused"]) == (200, True, "ok", "")
    assert tree["mailman"].startswith("down: ")
    assert (pair.waiting(), pair.gate.metric("mailgate_upstream_up", upstream="mailman")) == (1, 0)
    assert pair.gate.metric("mailgate_spool_bytes") > 300
    assert 0 < pair.gate.metric("mailgate_spool_oldest_seconds") < 60
    pair.fake.accept()
    pair.wait_drained()
    wait_until(pair.up, "the breaker has closed")
    assert _say(pair) == [DELIVERED]
    status, page = pair.gate.page("/healthz")
    assert (status, json.loads(page)["alive"]) == (200, True)
    assert json.loads(pair.gate.page("/readyz")[1])["mailman"] == "up"
    assert pair.gate.page("/")[0] == pair.gate.page("/nothing")[0] == 404
    assert set(re.findall(r"^# TYPE mailgate_(\w+) ", pair.gate.page("/metrics")[1], re.MULTILINE)) >= METRICS
    assert {one.partition('state="')[2][:-2] for one in pair.gate.metrics() if "spool_messages" in one} == STATES
    for outcome in ("delivered", "spooled"):
        assert pair.gate.metric("mailgate_recipients_total", outcome=outcome) > 0
    assert pair.gate.metric("mailgate_replays_total", outcome="delivered") >= 2
    assert not [sample for sample in pair.gate.metrics() if "@" in sample]


def test_a_message_leaves_one_line_with_its_ids(pair: Pair) -> None:
    hop = b"Received: from [192.0.2.7] (helo=mx) by lists.test with esmtp (Exim 4.96)\r\n\tid 1xV0Ys-0004sm-35;"
    octets = hop + b" Sun, 22 Nov 2026 10:00:00 +0000\r\n" + mail("<ids@example.net>")
    with at(pair, LMTP) as client:
        (reply,) = client.deliver("bob@example.net", [A], octets).final
    event = pair.gate.wait_for_event("message.delivered", message_id="<ids@example.net>")
    assert (event["exim_id"], event["sender"], event["door"]) == ("1xV0Ys-0004sm-35", "bob@example.net", "lmtp")
    assert event["id"] in str(reply)
    assert event["recipients"] == {A: f"delivered: {reply}"}
    assert len(pair.gate.events(id=event["id"])) == 1


OWN = {"relay": {"budget": "12s"}}


@pytest.fixture(scope="module")
def _own() -> Iterator[Pair]:
    with started(OWN) as pair:
        yield pair


@pytest.fixture
def own(_own: Pair) -> Iterator[Pair]:
    """A gate that may be stopped, killed and reconfigured; each test leaves it running, configured as it was."""
    yield _own
    if not _own.gate.running:
        _own.gate.start()
    _own.settle()


def test_sigterm_drains(own: Pair) -> None:
    own.fake.on(Stage.DOT, Act(pause=3))
    transaction = b"MAIL FROM:<>\r\nRCPT TO:<a@lists.test>\r\nDATA\r\n" + mail("<drain@example.net>") + b".\r\n"
    with at(own, LMTP) as idle, at(own, LMTP) as busy, at_once(1) as pool:
        busy.send(transaction * 2)
        own.fake.wait_taken(1)
        stopping = pool.submit(own.gate.stop)
        assert str(idle.reply()) == "421 4.3.2 shutting down"
        with at(own, SMTP, hello=False) as late:
            assert str(late.reply()) == "421 4.3.2 shutting down"
        assert own.gate.page("/readyz")[0] == 503
        assert words(busy.replies(5))[3:] == [DELIVERED, "421 4.3.2 shutting down"]
        assert stopping.result() == 0
    assert len(own.fake.taken) == 1  # the second one was not begun: its reply would have been seen by nobody
    assert own.gate.events("daemon.stopped")[-1]["drained"]
    assert not own.gate.socket.exists()


def test_sigterm_while_the_spool_drains(own: Pair) -> None:
    own.fake.refuse()
    with at(own, LMTP) as client:
        for n in range(8):
            assert words(client.deliver("", [A], mail(f"<half-{n}@example.net>")).final) == [SPOOLED]
    own.fake.on(Stage.DOT, Act(pause=1.5))
    own.fake.accept()
    own.fake.wait_taken(1)
    assert own.gate.stop() == 0
    assert 0 < len(own.fake.taken) < 8
    own.fake.behave()
    own.gate.start()
    own.fake.wait_taken(8)
    own.wait_drained()
    assert sorted(own.fake.arrived(A)) == [f"<half-{n}@example.net>" for n in range(8)]


def test_after_a_crash_it_starts_and_delivers(own: Pair) -> None:
    """What was spooled arrives, the socket that the dead process left is no obstacle."""
    own.fake.refuse()
    assert _say(own, A, B, door=UNIX) == [SPOOLED] * 2
    own.gate.kill()
    assert own.gate.socket.exists()
    own.gate.start()
    assert _say(own, door=UNIX) == [SPOOLED]  # Mailman was down from the start
    own.fake.accept()
    own.fake.wait_taken(2)
    own.wait_drained()
    assert len(own.fake.arrived(A)) == 2


def test_a_second_one_on_the_same_addresses_ends_and_harms_nothing(own: Pair) -> None:
    done = own.gate.cli("serve", check=False)
    assert done.returncode == 1
    assert "mailgate: http.listen: " in done.stderr
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
    for door in (LMTP, UNIX, SMTP):
        assert _say(own, door=door) == [DELIVERED]
    own.fake.refuse()
    assert _say(own) == [SPOOLED]


def test_a_second_one_on_the_same_spool_passes_mail_and_takes_over(own: Pair) -> None:
    second = _second(own, spool={"url": f"sqlite:///{own.gate.spool}"})
    try:
        second.start()
        assert f"in use by process {own.gate.pid}" in second.wait_for_event("spool.failed")["cause"]
        with at(own, LMTP) as first:
            own.gate.send(signal.SIGTERM)
            assert first.reply().code == 421
        own.gate.ended()
        second.wait_for_event("spool.opened")
        assert second.stop() == 0
        assert not second.noise()
    finally:
        second.close()


def test_an_address_that_can_not_be_listened_on_names_its_key(own: Pair) -> None:
    file = own.directory / "file"
    file.write_text("not a socket")
    with socket.create_server(("127.0.0.1", 0)) as taken, ExitStack() as undo:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        gates = {
            "relay.lmtp": _second(own, relay={"lmtp": [address]}),
            "relay.smtp": _second(own, relay={"smtp": [address]}),
            f"unix:{file}: there is a file that is no socket": _second(own, relay={"lmtp": [f"unix:{file}"]}),
        }
        for gate in gates.values():
            undo.callback(gate.close)
            gate.begin()
        for words_for_a_person, gate in gates.items():
            assert gate.ended() == 1
            assert words_for_a_person in gate.noise()
            assert "Traceback" not in gate.log.read_text()
    assert file.read_text() == "not a socket"


def test_sighup_with_a_good_configuration(own: Pair) -> None:
    with FakeMailman() as other:
        assert _say(own) == [DELIVERED]
        own.configure(
            {
                "hostname": "new.lists.test",
                "relay": {"max_connections": 2, "budget": "12s"},
                "mailman": {"lmtp": f"127.0.0.1:{other.port.number}", "connections": 1},
                "replay": {"concurrency": 1},
                "spool": {"url": "sqlite:////nonexistent/spool.db"},
                "http": {"listen": "127.0.0.1:1"},
            }
        )
        own.gate.send(signal.SIGHUP)
        event = own.gate.wait_for_event("config.reloaded")
        assert sorted(event["needs_restart"]) == ["hostname", "http.listen", "spool.url"]
        assert own.gate.page("/readyz")[0] == 200
        with at(own, LMTP) as one, at(own, LMTP), at(own, LMTP, hello=False) as third:
            assert str(one.greeting).startswith("220 gate.lists.test ")
            assert third.reply().code == 421
        wait_until(lambda: own.connections() == 0, "all sessions have ended")
        other.on(Stage.DOT, Act(pause=0.1))
        with at_once(2) as clients:
            assert list(clients.map(lambda _: _say(own), range(2))) == [[DELIVERED]] * 2
        assert (len(own.fake.taken), len(other.taken), other.connections) == (1, 2, 1)
        own.configure(OWN)
        own.gate.send(signal.SIGHUP)
        wait_until(lambda: len(own.gate.events("config.reloaded")) == 2, "reloaded once more")
        assert _say(own) == [DELIVERED]
        assert len(own.fake.taken) == 2


def _refused(pair: Pair, problem: str) -> bool:
    return any(problem in one for event in pair.gate.events("config.refused") for one in event["problems"])


def test_sighup_with_a_bad_configuration(own: Pair) -> None:
    good, pid = own.gate.config.read_text(), own.gate.pid
    for text, problem in (
        (good.replace("[mailman]", "[mailman]\nconections = 3"), "mailman.conections: unknown key (did you mean"),
        (good.replace('"12s"', '"soon"'), "relay.budget: "),
        ("not = [toml", "not TOML"),
    ):
        own.gate.config.write_text(text)
        own.gate.send(signal.SIGHUP)
        wait_until(partial(_refused, own, problem), f"the log says {problem}")
        assert (own.gate.pid, _say(own)) == (pid, [DELIVERED])
    own.gate.config.write_text(good)


def test_a_frozen_mailman(own: Pair) -> None:
    """SIGSTOP: it accepts connections and says nothing. (Another gate plays it.)"""
    with started() as behind:
        frozen = {"mailman": {"lmtp": f"{behind.gate.lmtp[0]}:{behind.gate.lmtp[1]}"}}
        own.configure(merged(IMPATIENT, frozen))
        own.gate.restart()
        try:
            assert " delivered: " in _say(own)[0]
            behind.gate.send(signal.SIGSTOP)
            begun = time.monotonic()
            assert _say(own, A, B) == [SPOOLED] * 2
            assert time.monotonic() - begun < 15  # of the twenty that the budget has
            begun = time.monotonic()
            assert [_say(own) for _ in range(5)] == [[SPOOLED]] * 5
            assert time.monotonic() - begun < 8  # of the ten that as many time-outs take
            behind.gate.send(signal.SIGCONT)
            behind.fake.wait_taken(7)
            own.wait_drained()
            assert (len(behind.fake.arrived(A)), len(behind.fake.arrived(B))) == (7, 1)
        finally:
            behind.gate.send(signal.SIGCONT)
            own.configure(OWN)
            own.gate.restart()
