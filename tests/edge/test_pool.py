"""The client to Mailman over many messages: connections, turns, the breaker, recovery; no reply for the wrong one."""

import itertools
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.edge.failures import DELIVERED, SPOOLED, A, B
from tests.edge.pair import IMPATIENT, Pair, at_once, mail, started
from tests.stack.client import Result
from tests.stack.fake_script import Act, Stage, drop, hang
from tests.stack.fake_session import Manner
from tests.stack.gate import merged
from tests.stack.waiting import PATIENCE, wait_until

_numbers = itertools.count(1)
ONE_AT_A_TIME = {"mailman": {"connections": 1}, "replay": {"concurrency": 1}}


def _words(result: Result) -> list[str]:
    """The final replies without gate id."""
    return [re.sub(r"(?<=\d )[0-9a-z]{18}", "…", str(reply)) for reply in result.final]


def _send(pair: Pair, *recipients: str, message_id: str = "") -> list[str]:
    return _words(pair.send(*(recipients or (A,)), octets=mail(message_id or f"<{next(_numbers)}@example.net>")))


def _mails(pair: Pair) -> int:
    return sum(command.startswith("MAIL") for command in list(pair.fake.commands))


@contextmanager
def _by_hand(pair: Pair, *features: str) -> Iterator[socket.socket]:
    """Be Mailman by hand: the next connection, greeted, its LHLO answered with these features."""
    pair.fake.refuse()
    with pair.fake.port.listener() as listener, at_once(1) as pool:
        listener.settimeout(PATIENCE)
        listener.setblocking(True)
        sending = pool.submit(_send, pair, A, B)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            connection.sendall(b"220 by hand\r\n")
            _read(connection, b"LHLO")
            connection.sendall("".join(f"250-{one}\r\n" for one in ("me", *features)).encode() + b"250 HELP\r\n")
            yield connection
        assert sending.result() == [SPOOLED] * 2


def _read(connection: socket.socket, until: bytes) -> bytes:
    """What comes, up to the end of the line in which `until` stands."""
    got = b""
    while until not in got or not got.endswith(b"\r\n"):
        got += connection.recv(4096)
    return got


def test_messages_share_a_connection(pair: Pair) -> None:
    before = pair.fake.connections
    with pair.client() as client:
        for n in range(10):
            assert client.deliver("", [A, B], mail(f"<first-{n}@example.net>")).codes == [250, 250]
    assert [_send(pair) for _ in range(10)] == [[DELIVERED]] * 10
    assert len(pair.fake.taken) == 20
    assert pair.fake.connections == before + 1


def test_no_more_connections_than_configured_and_all_are_served() -> None:
    with started({"mailman": {"connections": 2}, "replay": {"concurrency": 1}}) as pair:
        pair.fake.on(Stage.DOT, Act(pause=0.1))
        with at_once(12) as clients:
            assert list(clients.map(lambda _: _send(pair), range(12))) == [[DELIVERED]] * 12
        assert pair.fake.connections == 2
        assert len({taken.connection for taken in pair.fake.taken}) == 2


def test_it_pipelines_when_that_is_offered(pair: Pair) -> None:
    with _by_hand(pair, "PIPELINING") as mailman:
        group = _read(mailman, b"DATA")
        assert [line.split()[0] for line in group.splitlines()] == [b"MAIL", b"RCPT", b"RCPT", b"DATA"]


def test_it_does_not_pipeline_when_that_is_not_offered(pair: Pair) -> None:
    with _by_hand(pair, "8BITMIME") as mailman:
        for verb in (b"MAIL", b"RCPT", b"RCPT", b"DATA"):
            assert len(_read(mailman, verb).splitlines()) == 1
            mailman.settimeout(0.15)
            with pytest.raises(TimeoutError):
                mailman.recv(1)
            mailman.settimeout(PATIENCE)
            mailman.sendall(b"354 go on\r\n" if verb == b"DATA" else b"250 ok\r\n")
        assert _read(mailman, b"\r\n.\r\n").endswith(b"A line.\r\n.\r\n")


@pytest.mark.parametrize("how", ["closed while idle", "closed at MAIL"])
def test_a_stale_connection_costs_nothing(pair: Pair, how: str) -> None:
    assert _send(pair) == [DELIVERED]
    before, troubles = pair.fake.connections, len(pair.gate.events("upstream.down"))
    if how == "closed at MAIL":
        pair.fake.on(Stage.MAIL, drop(), times=1)
    else:
        pair.mailman_is(pair.fake.manner)
    assert _send(pair) == [DELIVERED]
    assert pair.fake.connections == before + 1
    assert len(pair.fake.taken) == 2
    assert len(pair.gate.events("upstream.down")) == troubles


def test_while_mailman_is_down_mail_is_spooled_at_once_and_nobody_connects() -> None:
    with started(merged(IMPATIENT, {"mailman": {"probe_interval": "60s"}})) as pair:
        pair.fake.on(Stage.GREETING, hang())
        assert _send(pair) == [SPOOLED]
        wait_until(lambda: pair.fake.connections == 2, "one for the message, one to probe")
        begun = time.monotonic()
        assert [_send(pair) for _ in range(10)] == [[SPOOLED]] * 10
        assert time.monotonic() - begun < 10  # of the twenty that as many time-outs take
        assert pair.fake.connections == 2
        assert pair.gate.metric("mailgate_breaker_open", upstream="mailman") == 1
        assert pair.gate.metric("mailgate_upstream_up", upstream="mailman") == 0


def test_it_probes_and_opens_slowly_and_lets_fresh_mail_go_first(pair: Pair) -> None:
    pair.fake.refuse()
    wanted = [f"<old-{n}@example.net>" for n in range(12)]
    assert [_send(pair, message_id=one) for one in wanted] == [[SPOOLED]] * 12
    pair.fake.on(Stage.DOT, Act(pause=2), times=1)
    pair.fake.accept()
    pair.fake.wait_taken(1)  # and its reply is two seconds away
    assert pair.fake.taken[0].message_id in wanted[:4]  # four are fetched side by side
    assert _mails(pair) == 1  # the three others wait for their turn
    assert _send(pair, B) == [DELIVERED]  # fresh mail does not wait for a replay
    pair.wait_drained()
    assert [taken.recipients for taken in pair.fake.taken].index((B,)) <= 3  # the second, but for a busy machine
    assert sorted(pair.fake.arrived(A)) == sorted(wanted)
    told = [event["event"] for event in pair.gate.events() if event["event"].startswith("upstream.")]
    assert told[-2:] == ["upstream.down", "upstream.up"]


def test_one_at_a_time_is_exactly_oldest_first() -> None:
    with started(ONE_AT_A_TIME) as pair:
        pair.fake.refuse()
        wanted = [f"<old-{n}@example.net>" for n in range(10)]
        for one in wanted:
            _send(pair, message_id=one)
        pair.fake.accept()
        pair.fake.wait_taken(10)
        assert pair.fake.arrived(A) == wanted


def test_fresh_mail_is_not_starved_while_the_spool_drains() -> None:
    backlog = 300
    with started({"mailman": {"connections": 6}, "replay": {"concurrency": 4}}) as pair:
        pair.fake.refuse()
        with at_once(10) as clients:
            words = list(clients.map(lambda _: _send(pair), range(backlog)))
        assert words == [[SPOOLED]] * backlog
        pair.fake.on(Stage.DOT, Act(pause=0.02))
        pair.fake.accept()
        pair.fake.wait_taken(1)
        most, fresh = 0, 0
        while (before := len(pair.fake.taken)) - fresh < backlog // 2:
            assert _send(pair, B) == [DELIVERED]
            most, fresh = max(most, len(pair.fake.taken) - before), fresh + 1
        assert fresh >= 5
        assert most < backlog // 2  # of the old ones went before: it did not wait for all of them
        pair.wait_drained()
        assert len(set(pair.fake.arrived(A))) == len(pair.fake.arrived(A)) == backlog
        assert len(pair.fake.arrived(B)) == fresh


@pytest.mark.parametrize("offers", [("8BITMIME",), ("8BITMIME", "PIPELINING")], ids=["", "pipelining"])
def test_a_reply_too_many_is_credited_to_nobody(offers: tuple[str, ...]) -> None:
    """It comes when the next message is under way: each reply seems to be the one before it. A (no list) seems to be
    taken, and B (a list) refused.
    """
    with started(ONE_AT_A_TIME, Manner(offers, frozenset({B}))) as pair:
        pair.fake.on(Stage.DOT, Act(extra=("250 Ok",), pause=1), times=1)
        assert _send(pair, B) == [DELIVERED]
        assert _send(pair, A, B, message_id="<next@example.net>") == [SPOOLED, SPOOLED]
        wait_until(lambda: pair.states("<next@example.net>") == {A: "failed", B: "delivered"}, "both settled")
        assert pair.fake.arrived(B).count("<next@example.net>") == 1
        assert pair.fake.arrived(A) == []


def test_who_gets_no_turn_in_time_is_spooled_untried() -> None:
    settings = {"relay": {"budget": "2s"}, "mailman": {"connect_timeout": "1s", "reply_timeout": "30s"}}
    with started(merged(ONE_AT_A_TIME, settings)) as pair:
        pair.fake.on(Stage.DOT, hang(), times=1)
        with at_once(2) as clients:
            begun = time.monotonic()
            slow = clients.submit(_send, pair, A, message_id="<slow@example.net>")
            wait_until(lambda: _mails(pair) == 1, "the first is under way")
            assert _send(pair, B, message_id="<turn@example.net>") == [SPOOLED]
            assert slow.result() == [SPOOLED]
            assert time.monotonic() - begun < 20  # relay.budget (and a busy machine); mailman.reply_timeout is longer
        kept = pair.gate.wait_for_event("message.spooled", message_id="<turn@example.net>")
        assert "no connection to Mailman became free in time" in kept["recipients"][B]
        kept = pair.gate.wait_for_event("message.spooled", message_id="<slow@example.net>")
        assert "uncertain" in kept["recipients"][A]


def test_mailman_on_a_unix_socket() -> None:
    """The next hop is another gate's unix socket."""
    with started() as behind, started({"mailman": {"lmtp": f"unix:{behind.gate.socket}"}}) as pair:
        (word,) = _send(pair, A, message_id="<unix@example.net>")
        assert re.fullmatch(r"250 2\.0\.0 … delivered: [0-9a-z]{18} delivered: Ok", word)
        assert behind.fake.arrived(A) == ["<unix@example.net>"]
        behind.gate.stop()
        assert _send(pair, A, message_id="<later@example.net>") == [SPOOLED]
        behind.gate.start()
        behind.fake.wait_taken(2)
        assert behind.fake.arrived(A) == ["<unix@example.net>", "<later@example.net>"]
