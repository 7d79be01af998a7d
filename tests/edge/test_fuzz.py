"""Whatever a client says: a reply to each command, N to each message, no fault of ours, and the next one is served.
And memory and service under many who are idle, slow, or too many.
"""

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.edge.failures import DELIVERED, A, B
from tests.edge.pair import Pair, at_once, mail, started
from tests.edge.test_door import LMTP, SMTP, at, words
from tests.stack.client import Client
from tests.stack.dialogue import Dialogue, stuffed
from tests.stack.fake_script import Act, Stage, say
from tests.stack.waiting import wait_until

MiB = 2**20
_SHARED = [HealthCheck.function_scoped_fixture]  # the gate is the same for all examples, and is meant to be

_odd_addresses = [b"<>", b'<"a b"@example.net>', b"<b\xc3\xb6b@example.net>", b"<\xff@x>", b"<a", b"", b"<@a:b@c>"]
_addresses = st.one_of(
    st.sampled_from([b"<a@lists.test>", b"<b@lists.test>"]),
    st.sampled_from(_odd_addresses),
    st.binary(max_size=20).map(lambda octets: b"<" + octets + b">"),
)
_parameters = st.sampled_from([b"", b" BODY=8BITMIME", b" SIZE=100", b" SIZE=-1", b" SMTPUTF8", b" X=Y", b" =", b"  "])
_plain = [b"DATA", b"RSET", b"NOOP", b"LHLO x", b"EHLO x", b"HELO x", b"VRFY a", b"HELP", b"AUTH PLAIN", b"DATA x"]
_commands = st.one_of(
    st.builds(lambda a, p: b"MAIL FROM:" + a + p, _addresses, _parameters),
    st.builds(lambda a, p: b"RCPT TO:" + a + p, _addresses, _parameters),
    st.sampled_from(_plain),
    st.binary(max_size=30),
)
_ends = [b"x", b".", b"\r", b"\n", b"\r\n", b"\r\n.", b"\n.\n", b"\r\n\r\n", b"\0", b"\xff"]
_pieces = st.sampled_from([*_ends, b"Subject: y\r\n", b"a: b\r\n", b"DATA\r\n"])
_bodies = st.lists(_pieces, max_size=20).map(b"".join)
_transactions = st.builds(
    lambda recipients, octets: (
        b"MAIL FROM:<bob@example.net>\r\n"
        + b"".join(b"RCPT TO:" + one + b"\r\n" for one in recipients)
        + b"DATA\r\n"
        + stuffed(octets)
    ),
    st.lists(_addresses, max_size=4),
    _bodies,
)
_dialogues = st.lists(_commands.map(lambda line: line + b"\r\n") | _transactions, max_size=12)


def _say_all(client: Client, octets: bytes, cuts: list[int]) -> bytes:
    """Say it in pieces, cut at these places, then end; all that is answered. The gate may hang up before the end."""
    client._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    start, answer = 0, b""
    with suppress(BrokenPipeError, ConnectionResetError):
        for end in [*sorted({cut % (len(octets) + 1) for cut in cuts}), len(octets)]:
            client.send(octets[start:end])
            start = end
    with suppress(OSError):
        client._socket.shutdown(socket.SHUT_WR)
    with suppress(ConnectionResetError):
        while more := client._socket.recv(65536):
            answer += more
    return answer


@pytest.mark.parametrize("door", [LMTP, SMTP])
@given(parts=_dialogues, cuts=st.lists(st.integers(0, 10_000), max_size=4))
@settings(
    max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_each_command_has_its_reply(pair: Pair, door: str, parts: list[bytes], cuts: list[int]) -> None:
    pair.fake.on(Stage.DOT, say(*["250 Ok"] * 4))
    said = (b"LHLO fuzz\r\n" if door == LMTP else b"EHLO fuzz\r\n") + b"".join(parts)
    with at(pair, door, hello=False) as client:
        answer = _say_all(client, said, cuts)
    dialogue = Dialogue()
    dialogue.client(said)
    dialogue.server(answer)
    sent_away = answer.rpartition(b"\r\n")[0].rpartition(b"\r\n")[2].startswith((b"421 4.7.0", b"221 "))
    assert sent_away or (not dialogue._awaited and not dialogue.unasked)
    assert all(re.fullmatch(rb"[2-5]\d\d[ -][ -~]*", line) for line in answer.split(b"\r\n")[:-1])
    for transaction in dialogue.transactions:
        assert len(transaction.replies) == (len(transaction.accepted) if door == LMTP else 1) == transaction.owed
    assert b"trouble of our own" not in answer
    assert pair.gate.running


def test_none_of_it_was_a_fault_of_ours(pair: Pair) -> None:
    """The gate of the test above has said nothing of faults, and works."""
    with at(pair, LMTP) as client:
        assert words(client.deliver("", [A, B], mail("<after@example.net>")).final) == [DELIVERED] * 2
    assert not [event for event in pair.gate.events() if "trace" in event]
    assert not pair.gate.noise()


@pytest.fixture(scope="module")
def crowded() -> Iterator[Pair]:
    """A gate that many come to."""
    limits = {"max_message_size": "8MiB", "max_in_flight": "16MiB", "max_connections": 300}
    with started({"relay": limits}) as pair:
        yield pair


def _resident(pair: Pair) -> int:
    """Octets of memory that the daemon holds."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pair.gate.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def _serves(pair: Pair) -> None:
    with at(pair, LMTP) as client:
        assert words(client.deliver("", [A], mail("<served@example.net>")).final) == [DELIVERED]


def test_two_hundred_idle_and_fifty_slow(crowded: Pair) -> None:
    """Bound: 16 MiB more than before, which is 64 KiB for each of the 250."""
    for _ in range(20):
        _serves(crowded)
    before = _resident(crowded)
    octets = mail("<drip@example.net>", b"drip drop\r\n" * 30)
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(at(crowded, LMTP))
        slow = [stack.enter_context(at(crowded, LMTP)) for _ in range(50)]
        for client in slow:
            assert client.pipeline(["MAIL FROM:<>", f"RCPT TO:<{B}>", "DATA"])[-1].code == 354
        step = len(octets) // 20 + 1
        for start in range(0, len(octets), step):
            for client in slow:
                client.send(octets[start : start + step])
            if start % 4 == 0:
                _serves(crowded)
        wait_until(lambda: crowded.connections() == 250, "only these are there")
        assert _resident(crowded) - before < 16 * MiB
        for client in slow:
            client.send(b".\r\n")
        assert [client.reply().code for client in slow] == [250] * 50
    assert crowded.fake.arrived(B) == ["<drip@example.net>"] * 50
    crowded.settle()


def test_what_is_half_sent_takes_no_more_than_it_may(crowded: Pair) -> None:
    """Thirty send 7 MiB each and do not end: bound 16 MiB in flight, and 1 MiB for what each one's pieces need."""
    _serves(crowded)
    before = _resident(crowded)
    octets = mail("<half@example.net>", (b"x" * 898 + b"\r\n") * (7 * MiB // 900))
    with ExitStack() as stack:
        clients = [stack.enter_context(at(crowded, LMTP)) for _ in range(30)]
        begun = [client for client in clients if _half(client, octets)]
        assert len(begun) >= 2
        assert _resident(crowded) - before < (16 + len(clients)) * MiB
        for client in begun:
            client.send(b"\r\n.\r\n")
        codes = [client.reply().code for client in begun]
        assert 452 in codes
        assert set(codes) <= {250, 452}
    crowded.settle()
    _serves(crowded)
    assert _resident(crowded) - before < (16 + 30) * MiB


def _half(client: Client, octets: bytes) -> bool:
    """Begin a message and don't end it; False if the gate has no room for it from the start."""
    if client.command("MAIL FROM:<>").code == 452:
        return False
    assert [reply.code for reply in client.pipeline([f"RCPT TO:<{A}>", "DATA"])] == [250, 354]
    client.send(octets)
    return True


def test_a_flood_of_commands_keeps_nobody_waiting(pair: Pair) -> None:
    """All that the gate has buffered is worked through with others in between."""
    reply, flood = b"250 2.0.0 OK\r\n", 80_000
    pair.fake.on(Stage.DOT, Act(pause=0.3), times=1)
    with at(pair, LMTP) as client, at(pair, LMTP) as other:
        assert client.pipeline(["MAIL FROM:<>", f"RCPT TO:<{A}>", "DATA"])[-1].code == 354
        client.send(mail("<flood@example.net>") + b".\r\n" + b"NOOP\r\n" * flood)
        client.reply()
        read = 0
        with at_once(1) as pool:
            answered = pool.submit(other.command, "NOOP")
            while not answered.done():
                read += len(client._socket.recv(4096))
        assert read < len(reply) * flood // 2
