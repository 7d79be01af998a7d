"""Whatever a peer says, and however: one line of protocol back, no fault of ours, and the next one is served."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.cuts import made_of
from tests.edge.pair import mail
from tests.stack.waiting import wait_until
from tests.verdict.asking import Counter, answer, ask, connect, lines, open_counter, received, rspamc, spamc

MiB = 2**20
NO_VERDICT = re.compile(r"R?SPAMD/1\.\d 7[56] EX_\w+ [ -~]+\r\n")
QUESTION = rspamc(received() + mail("<hostile@example.net>"))
HEAD = QUESTION[: QUESTION.index(b"\r\n\r\n") + 4]
LATE = "not now"


@pytest.fixture(scope="module")
def tight() -> Iterator[Counter]:
    """A gate in which all bounds are small, and the score of any mail is 7.2."""
    bounds = {"budget": "4s", "max_connections": 20, "max_in_flight": "4MiB"}
    relay = {"max_message_size": "3MiB", "max_in_flight": "4MiB", "trusted_peers": ["127.0.0.1/32"]}
    with open_counter({"verdict": bounds, "relay": relay}) as counter:
        counter.scores(7.2)
        yield counter


@pytest.fixture
def serves(tight: Counter) -> Iterator[Counter]:
    """The same; behind the test it must serve as if nothing had been, and hold nothing of it."""
    yield tight
    wait_until(lambda: tight.gate.metric("mailgate_connections", door="verdict") == 0, "the test's have ended")
    assert lines(ask(tight.door, QUESTION))["Action"] == "reject"
    wait_until(lambda: tight.gate.metric("mailgate_connections", door="verdict") == 0, "all connections have ended")
    assert tight.gate.events("session.failed") == tight.gate.events("verdict.failed") == []


def _refused(counter: Counter, cause: str) -> bool:
    return any(cause in event["cause"] for event in counter.gate.events("verdict.refused"))


@pytest.mark.parametrize(
    ("question", "cause"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not a question: GET / HTTP/1.1"),
        (b"EHLO mx.example.net\r\n", "broke off"),
        (b"\0" * 100_000, "broke off"),
        (b"CHECK RSPAMC/1.3\r\n" + b"X: y\r\n" * 100_000, "a question without end"),
        (b"CHECK RSPAMC/1.3\r\nX: " + b"y" * MiB, "a question without end"),
        (HEAD.replace(b"Number: 1", b"Number: 2") + b"x", "1 recipients, not 2"),
        (HEAD[:-30] + b"From MAILER-DAEMON today\nReceived: from x\n\n" + b"x\n" * 100, "a line without CRLF"),
        (HEAD + b"x", "broke off"),
        (HEAD, "broke off"),
        (b"PROCESS SPAMC/1.2\r\nContent-length: 3\r\n\r\nabc", "PROCESS is not spoken here"),
    ],
    ids=range(10),
)
def test_what_is_no_question(serves: Counter, question: bytes, cause: str) -> None:
    said = ask(serves.door, question, half=True)
    assert NO_VERDICT.fullmatch(said)
    assert cause in said
    wait_until(lambda: _refused(serves, cause), f"the log says {cause}")


def test_a_question_that_exim_could_not_send_whole_is_refused_at_once(serves: Counter) -> None:
    """Exim sends the question by one send(2) and doesn't look how much of it went; then it waits for an answer."""
    with connect(serves.door) as connection:
        connection.sendall(HEAD[:-30] + b"From MAILER-DAEMON today\nReceived: from x\n\nx\n")
        assert "a line without CRLF" in answer(connection)  # and not that it was too slow


def test_a_peer_that_says_nothing_and_goes(serves: Counter) -> None:
    before = serves.gate.metric("mailgate_reasons_total", reason="bad-question")
    assert ask(serves.door, b"", half=True) == ""
    assert serves.gate.metric("mailgate_reasons_total", reason="bad-question") == before


@pytest.mark.parametrize("question", [b"", HEAD[:20], HEAD, QUESTION[:-1]], ids=["nothing", "a part", "head", "most"])
def test_a_peer_that_is_slow(serves: Counter, question: bytes) -> None:
    started = time.monotonic()
    with connect(serves.door) as connection:
        connection.sendall(question)
        assert answer(connection).endswith("75 EX_TEMPFAIL too slow\r\n")
    assert 1.5 < time.monotonic() - started < 20


def test_a_peer_that_does_not_read(serves: Counter) -> None:
    """It must neither be waited for nor stand in the way of others."""
    with connect(serves.door) as connection:
        connection.sendall(QUESTION)
        wait_until(lambda: serves.gate.metric("mailgate_connections", door="verdict") == 0, "it is given up")
        assert lines(answer_or_reset(connection)).get("Action", "reject") == "reject"


def answer_or_reset(connection: socket.socket) -> str:
    """The answer, as far as it came before the other side reset the connection."""
    try:
        return answer(connection)
    except ConnectionResetError:
        return ""


def test_a_stranger(serves: Counter) -> None:
    assert ask(serves.door, b"", source="127.0.0.9").endswith(f"EX_TEMPFAIL {LATE}\r\n")
    event = serves.gate.wait_for_event("peer.refused", peer="127.0.0.9")
    assert (event["door"], event["cause"]) == ("verdict", "is not one of our trusted peers")


def test_more_connections_than_allowed(serves: Counter) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(serves.door)).sendall(b"CHECK")
        wait_until(lambda: serves.gate.metric("mailgate_connections", door="verdict") == 20, "all are in")
        assert ask(serves.door, b"").endswith(f"EX_TEMPFAIL {LATE}\r\n")
        # Exim sends all of a message before it reads: it must not find the connection reset.
        for question in (QUESTION, rspamc(received() + mail("<big@example.net>", (b"x" * 898 + b"\r\n") * 3000))):
            assert ask(serves.door, question).endswith(f"EX_TEMPFAIL {LATE}\r\n")
    serves.gate.wait_for_event("peer.refused", cause="max_connections")


def test_more_mail_in_flight_than_allowed(serves: Counter) -> None:
    """Fifteen that send 2 MiB each and do not end, where 4 MiB may be kept: who finds no room is told at once."""
    octets = received() + mail("<half@example.net>", (b"x" * 898 + b"\r\n") * (2 * MiB // 900))
    question = rspamc(octets)
    ask(serves.door, question)
    before = _resident(serves)
    with ExitStack() as stack:
        begun = [stack.enter_context(connect(serves.door)) for _ in range(15)]
        for connection in begun:
            try:
                connection.sendall(question[:-1])
            except (ConnectionResetError, BrokenPipeError):
                continue  # there was no room for it
        assert _resident(serves) - before < 15 * MiB
        said = [answer_or_reset(connection) for connection in begun]
    wait_until(lambda: _refused(serves, "too much mail in flight"), "the log says so")
    assert any("too slow" in one for one in said)
    assert all(NO_VERDICT.fullmatch(one) for one in said if one)


def test_a_message_that_is_far_too_large_is_refused_and_not_kept(serves: Counter) -> None:
    before = _resident(serves)
    with connect(serves.door) as connection:
        connection.sendall(b"CHECK RSPAMC/1.3\r\nContent-length: %d\r\n\r\n" % (16 * MiB))
        for _ in range(16):
            connection.sendall(b"x\n" * (MiB // 2))
        said = lines(answer(connection))
    assert (said["Action"], said["Message"].split()[:2]) == ("reject", ["552", "5.3.4"])
    assert _resident(serves) - before < 12 * MiB


def _resident(counter: Counter) -> int:
    """Octets of memory that the gate uses. proc(5)."""
    status = Path(f"/proc/{counter.gate.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024


_WORDS = made_of(
    b"CHECK RSPAMC/1.3\r\n", b"REPORT SPAMC/1.2\r\n", b"PING SPAMC/1.5\r\n", b"\r\n", b"\n", b"\r", b"Content-length: ",
    b"0\r\n", b"7\r\n", b"40\r\n", b"Queue-Id: 1xV0Ys-0004sm-35\r\n", b"From: <a@b>\r\n", b"Recipient-Number: 1\r\n",
    b"Rcpt: <l@lists.test>\r\n", b"IP: ::1\r\n", b"From x y\n", b"X-Envelope-To: a@b\n", b"Subject: x\n", b"\n\n",
    b"\0\xff", most=16,
)  # fmt: skip


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=_WORDS | st.binary(max_size=300))
def test_anything(serves: Counter, question: bytes) -> None:
    said = ask(serves.door, question, half=True)
    assert not question or re.fullmatch(
        r"R?SPAMD/1\.\d (?:0 PONG|0 EX_OK|7[56] EX_\w+ [ -~]+)\r\n(?:[ -~]*\r\n)*", said
    )


@settings(deadline=None, max_examples=75, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    message=made_of(b"From: a@b\n", b"\n", b"\r", b"\r\n", b" folded", b":", b"\0", b"\xff", b"Received: x\n", most=40)
)
def test_any_message(serves: Counter, message: bytes) -> None:
    for question in (rspamc(message), spamc(message)):
        said = ask(serves.door, question)
        assert "7.2000" in said
        assert "Message: 550 5.7.1" in said
