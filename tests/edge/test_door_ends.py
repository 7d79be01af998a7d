"""How sessions end at the relay door: limits, time, peers that hang up. What was said with 250 arrives, and once."""

import socket
import time
from collections.abc import Iterator

import pytest

from tests.edge.failures import DELIVERED, A, B
from tests.edge.pair import Pair, at_once, mail, started
from tests.edge.test_door import LMTP, SMTP, at, words
from tests.stack.client import Client
from tests.stack.fake_script import Act, Stage, Then
from tests.stack.waiting import wait_until

MOST = 6
SLACK = 65_536 + 3276 + 16_384  # octets that are taken where max_message_size is 64 KiB
TIGHT = {
    "relay": {
        "trusted_peers": ["127.0.0.1/32"],
        "max_message_size": "64KiB",
        "max_in_flight": "200KiB",
        "max_connections": MOST,
        "idle_timeout": "2s",
        "session_timeout": "5s",
    },
    "mailman": {"reply_timeout": "6s"},
}


@pytest.fixture(scope="module")
def _tight() -> Iterator[Pair]:
    with started(TIGHT) as pair:
        yield pair


@pytest.fixture
def tight(_tight: Pair) -> Iterator[Pair]:
    """A gate with narrow limits."""
    yield _tight
    _tight.settle()


def _begin(client: Client, *recipients: str) -> None:
    """Up to DATA."""
    replies = client.pipeline(["MAIL FROM:<bob@example.net>", *(f"RCPT TO:<{one}>" for one in recipients), "DATA"])
    assert [reply.code for reply in replies] == [250] * (len(recipients) + 1) + [354]


def _ended(client: Client) -> bool:
    """Has the gate closed the connection?"""
    try:
        return client._socket.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("door", [LMTP, SMTP])
def test_a_message_too_large_is_refused_for_each(tight: Pair, door: str) -> None:
    """It is read to its end first, and the session goes on."""
    with at(tight, door) as client:
        said = words(client.deliver("", [A, B, A], mail("<large@example.net>", b"x" * 78 + b"\r\n" * 50_000)).final)
        assert said == ["552 5.3.4 … message larger than 65536 octets"] * (3 if door == LMTP else 1)
        assert words(client.deliver("", [A], mail("<small@example.net>")).final) == [DELIVERED]
        assert client.extensions["SIZE"] == str(SLACK)
        assert str(client.command(f"MAIL FROM:<> SIZE={SLACK + 1}")).startswith("552 5.3.4 ")
    assert tight.fake.arrived(A) == ["<small@example.net>"]
    assert tight.people() == {}


@pytest.mark.parametrize("door", [LMTP, SMTP])
def test_what_exim_has_accepted_is_not_a_little_too_large(tight: Pair, door: str) -> None:
    """It would bounce. Exim counts a line end as one octet, and says a size that is larger than the true one."""
    octets = mail("<near@example.net>", b"x" * 28 + b"\r\n")
    octets += (b"x" * 28 + b"\r\n") * ((2**16 - len(octets)) // 29)
    assert len(octets.replace(b"\r\n", b"\n")) <= 2**16 < len(octets)
    with at(tight, door) as client:
        result = client.deliver("", [A], octets, f"SIZE={len(octets) + 1024}")
        assert words(result.final) == [DELIVERED]
        assert str(client.command(f"MAIL FROM:<> SIZE={SLACK}")).startswith("250 ")


def test_mail_in_flight_is_bounded(tight: Pair) -> None:
    """More than max_in_flight at once is put off with 452, and there is room again afterwards."""
    tight.fake.on(Stage.DOT, Act(pause=2.5))
    octets = mail("<flight@example.net>", b"line of ten\r\n" * 4_000)

    def send(_: int) -> str:
        with at(tight, LMTP) as client:
            result = client.deliver("", [A], octets)
            return str((result.final or (result.mail,))[0])

    with at_once(MOST) as clients:
        said = list(clients.map(send, range(MOST)))
    put_off = [reply for reply in said if reply.startswith("452 4.3.1 ")]
    assert 0 < len(put_off) < MOST - 2
    assert len(tight.fake.taken) == MOST - len(put_off)
    assert " delivered: Ok" in send(0)


def test_a_peer_that_is_not_trusted_is_sent_away(tight: Pair) -> None:
    for address in (tight.gate.lmtp, tight.gate.smtp):
        with Client(address, source="127.9.9.9", hello=False) as client:
            assert str(client.reply()).startswith("421 4.7.1 127.9.9.9 ")
            assert _ended(client)
    wait_until(lambda: len(tight.gate.events("peer.refused", peer="127.9.9.9")) == 2, "both are told")
    assert tight.gate.metric("mailgate_reasons_total", reason="untrusted-peer") >= 2


def test_more_connections_than_there_may_be(tight: Pair) -> None:
    clients = [at(tight, LMTP if n % 2 else SMTP) for n in range(MOST)]
    assert tight.gate.metric("mailgate_connections", door="lmtp") == MOST // 2
    with at(tight, LMTP, hello=False) as client:
        assert str(client.reply()).startswith("421 4.3.2 ")
        assert _ended(client)
    for one in clients:
        one.quit()
    wait_until(lambda: tight.connections() == 0, "all have ended")
    with at(tight, LMTP) as client:
        assert words(client.deliver("", [A], mail("<again@example.net>")).final) == [DELIVERED]


def test_who_says_nothing_is_sent_away(tight: Pair) -> None:
    with at(tight, LMTP) as silent, at(tight, LMTP) as in_data:
        _begin(in_data, A)
        in_data.send(b"Subject: and then nothing\r\n")
        for client in (silent, in_data):
            assert str(client.reply()).startswith("421 4.4.2 ")
            assert _ended(client)
    assert tight.fake.taken == []


def test_who_says_too_little_is_sent_away_in_the_end(tight: Pair) -> None:
    """session_timeout ends what the idle timeout does not: and the others are served meanwhile."""
    begun = time.monotonic()
    with at(tight, LMTP) as chatting, at(tight, LMTP) as dripping:
        _begin(dripping, A)
        while time.monotonic() - begun < 3.5:
            chatting.command("NOOP")
            dripping.send(b"x")
            with at(tight, LMTP) as other:
                assert words(other.deliver("", [B], mail("<other@example.net>")).final) == [DELIVERED]
            time.sleep(0.4)
        for client in (chatting, dripping):
            assert str(client.reply()).startswith("421 4.4.2 ")
            assert _ended(client)
    assert time.monotonic() - begun < 30
    assert tight.fake.arrived(A) == []


def test_who_does_not_read_is_not_waited_for(tight: Pair) -> None:
    """The kernel's buffers are full, the gate can't get rid of its replies: the session ends all the same."""
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(tight.gate.lmtp)
        peer.settimeout(0.3)
        with pytest.raises((TimeoutError, ConnectionError)):  # on a busy machine its session may have ended by then
            peer.sendall(b"NOOP\r\n" * 10_000_000)
        wait_until(lambda: tight.connections() == 0, "its session has ended")


@pytest.mark.parametrize("down", [False, True], ids=["Mailman up", "Mailman down"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_peer_that_hangs_up_behind_the_dot_tears_nothing(pair: Pair, how: str, down: bool) -> None:
    pair.fake.on(Stage.DOT, Act(pause=0.2))
    if down:
        pair.fake.refuse()
    client, message_id = at(pair, LMTP), f"<torn-{how}-{down}@example.net>"
    _begin(client, A, B)
    client.send(mail(message_id) + b".\r\n")
    if how == "close":
        client.close()
    else:
        client.abort()
    word = "spooled" if down else "delivered"
    pair.gate.wait_for_event(f"message.{word}", message_id=message_id)
    pair.fake.accept()
    pair.fake.wait_taken(1)
    pair.wait_drained()
    wait_until(lambda: pair.connections() == 0, "the session has ended")
    assert pair.fake.arrived(A) == pair.fake.arrived(B) == [message_id]


def test_a_peer_that_hangs_up_within_the_replies(pair: Pair) -> None:
    client = at(pair, LMTP)
    _begin(client, *(A, B) * 400)
    client.send(mail("<mid@example.net>") + b".\r\n")
    assert client.reply().code == 250
    client.abort()
    wait_until(lambda: pair.connections() == 0, "the session has ended")
    assert pair.fake.arrived(A) == pair.fake.arrived(B) == ["<mid@example.net>"]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_half_a_message_is_none(pair: Pair, how: str) -> None:
    client = at(pair, LMTP)
    _begin(client, A)
    client.send(mail("<half@example.net>") + b".")
    if how == "close":
        client.close()
    else:
        client.abort()
    wait_until(lambda: pair.connections() == 0, "the session has ended")
    with at(pair, LMTP) as client:
        assert words(client.deliver("", [A], mail("<whole@example.net>")).final) == [DELIVERED]
    assert pair.fake.arrived(A) == ["<whole@example.net>"]


def test_connections_are_counted_down_however_they_end(pair: Pair) -> None:
    def end(how: int) -> None:
        client = at(pair, LMTP)
        if how == 0:
            client.quit()
        elif how == 1:
            client.close()
        elif how == 2:
            client.abort()
        else:
            _begin(client, A)
            client.close()

    with at(pair, LMTP), at(pair, LMTP):
        wait_until(lambda: pair.connections() == 2, "those that stay are counted")
        for n in range(20):
            end(n % 4)
        wait_until(lambda: pair.connections() == 2, "all others have ended")
    wait_until(lambda: pair.connections() == 0, "all sessions have ended")


def test_a_drop_behind_the_dot_is_announced(pair: Pair) -> None:
    """Both peers are gone: the one that asked, and Mailman. Nothing is lost, and the repeat was announced."""
    pair.fake.on(Stage.DOT, Act(lines=0, pause=0.2, then=Then.CLOSE, took=True), times=1)
    client = at(pair, LMTP)
    _begin(client, A)
    client.send(mail("<announced@example.net>") + b".\r\n")
    client.abort()
    pair.fake.wait_taken(2)
    pair.wait_drained()
    assert pair.fake.arrived(A) == ["<announced@example.net>"] * 2
    assert pair.people("<announced@example.net>")[A].uncertain
    event = pair.gate.wait_for_event("message.spooled", message_id="<announced@example.net>")
    assert event["recipients"][A].startswith("spooled: uncertain")
