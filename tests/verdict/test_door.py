"""The verdict door of a gate: what it says of a message, what it remembers, and what it leaves to the relay door."""

import asyncio
import os
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailgate.core.endpoint import Endpoint
from mailgate.edge.sockets import Sockets
from tests.edge.pair import mail
from tests.spam.desk import LIST, marks
from tests.stack.fake_scorer import Act
from tests.stack.waiting import wait_until
from tests.verdict.asking import EXIM_ID, Counter, answer, ask, connect, lines, open_counter, received, rspamc, spamc

SMALL = {"relay": {"max_message_size": "1MiB"}}


@pytest.fixture(scope="module")
def _counter() -> Iterator[Counter]:
    with open_counter(SMALL) as counter:
        yield counter


@pytest.fixture
def counter(_counter: Counter) -> Counter:
    """A gate with the default policy and a scorer that is well."""
    _counter.put_in_order()
    _counter.policy()
    _counter.scorer.heads.clear()
    return _counter


# what it says


def test_ham(counter: Counter) -> None:
    counter.scores(0.3)
    sent, question = counter.post()
    said = ask(counter.door, question)
    found = counter.verdict(sent)
    assert said.startswith(
        "RSPAMD/1.3 0 EX_OK\r\nMetric: default; False 0.3000 / 1.0991 / 6.0990\r\nAction: no action\r\n"
    )
    assert (lines(said)["Id"], lines(said)["Verdict"]) == (found["id"], "accept")
    assert "Message" not in lines(said)
    assert (found["level"], found["exim_id"], found["client"], found["helo"], found["sender"], found["recipients"]) == (
        "info", EXIM_ID, "192.0.2.7", "mx.example.net", "ida@example.org", [LIST],
    )  # fmt: skip
    assert (found["scan"], found["score"], found["reply"]) == ("scored", 0.3, "")


def test_spam_is_refused_with_our_text(counter: Counter) -> None:
    counter.scores(7.2)
    before = counter.gate.metric("mailgate_messages_total", door="verdict", verdict="reject")
    sent, question = counter.post()
    said = lines(ask(counter.door, question))
    found = counter.verdict(sent)
    assert said["Action"] == "reject"
    assert said["Message"] == f"550 5.7.1 {found['id']} taken for spam: it scores 7.2" == found["reply"]
    assert (found["level"], found["verdict"], found["reasons"]) == ("warning", "reject", ["spam-reject"])
    assert counter.gate.metric("mailgate_messages_total", door="verdict", verdict="reject") == before + 1
    assert counter.gate.metric("mailgate_reasons_total", reason="spam-reject") >= 1


def test_spam_is_refused_whatever_is_done_with_it_after_acceptance(counter: Counter) -> None:
    counter.policy(late="discard")
    counter.scores(7.2)
    assert lines(ask(counter.door, counter.post()[1]))["Action"] == "reject"


def test_the_scorer_sees_whom_exim_sees(counter: Counter) -> None:
    ask(counter.door, counter.post(LIST, "other@lists.test")[1])
    head = counter.scorer.heads[-1].decode().lower()
    for field in ("ip: 192.0.2.7", "helo: mx.example.net", "from: <ida@example.org>", "rcpt: <other@lists.test>"):
        assert field in head


def test_fields_that_a_stranger_forged_are_not_scored(counter: Counter) -> None:
    plain = received() + mail("<plain@example.net>")
    ask(counter.door, rspamc(plain))
    ask(counter.door, rspamc(received() + b"X-Spam-Status: No\r\nX-Mailgate-Client: ip=192.0.2.99\r\n" + plain))
    assert counter.scorer.octets[-1] == counter.scorer.octets[-2] + len(received())
    assert b"192.0.2.7" in counter.scorer.heads[-1]


def test_a_list_with_scores_of_its_own(counter: Counter) -> None:
    counter.policy(lists=[{"match": "private-*@lists.test", "reject_score": 2.0}])
    counter.scores(2.1)
    assert lines(ask(counter.door, counter.post(LIST)[1]))["Action"] == "add header"
    assert lines(ask(counter.door, counter.post(LIST, "private-a@lists.test")[1]))["Action"] == "reject"


def test_no_score_and_mail_flows(counter: Counter) -> None:
    counter.fails()
    before = counter.gate.metric("mailgate_unscored_total")
    sent, question = counter.post()
    said = lines(ask(counter.door, question))
    assert (said["Action"], said["Scan"]) == ("no action", "unscored; reason=unavailable")
    assert counter.event(sent, "verdict.given")["scan"] == "unscored"
    assert counter.gate.metric("mailgate_unscored_total") == before, "counted where it passes: at the relay door"


def test_no_score_and_the_client_tries_again(counter: Counter) -> None:
    counter.fails()
    counter.policy(on_failure="defer")
    said = lines(ask(counter.door, counter.post()[1]))
    assert said["Action"] == "soft reject"
    assert said["Message"] == f"451 4.3.0 {said['Id']} can't be scanned for spam now, try again later"


def test_no_score_and_the_relay_door_holds_it(counter: Counter) -> None:
    counter.fails()  # which it learns from a message: one that is held would be scored later, in another test
    counter.policy(on_failure="hold")
    said = lines(ask(counter.door, counter.post()[1]))
    assert (said["Action"], said["Verdict"]) == ("no action", "hold")


def test_what_is_not_scored(counter: Counter) -> None:
    counter.scores(9.0)
    for recipients, policy, reason in (
        (("postmaster@lists.test",), {}, "exempt-recipients"),
        ((LIST,), {"skip_networks": ["192.0.2.0/24"]}, "trusted-network"),
        ((LIST,), {"max_size": "100B"}, "too-large"),
    ):
        counter.policy(**policy)
        said = lines(ask(counter.door, counter.post(*recipients)[1]))
        assert (said["Action"], said["Scan"]) == ("no action", f"skipped; reason={reason}")
    assert not counter.scorer.heads


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (received() * 101 + mail("<loop@example.net>"), "554 5.4.6 routing loop: 101 Received fields, 100 are allowed"),
        (received() + b"X: y\r\n" * 60_000 + b"\r\n", "552 5.3.4 header larger than 1048576 octets or 50000 lines"),
        (mail("<large@example.net>", b"x" * 998 + b"\r\n") * 1000, "552 5.3.4 message larger than 1048576 octets"),
        (received() + b"\r\n" + b"\r\n" * 2**19, "552 5.3.4 message larger than 1048576 octets"),
    ],
    ids=["loop", "header", "size", "size with CRLF"],
)  # fmt: skip
def test_what_the_relay_door_would_refuse_is_refused_here(counter: Counter, octets: bytes, reply: str) -> None:
    said = lines(ask(counter.door, rspamc(octets)))
    code, enhanced, text = reply.split(" ", 2)
    assert (said["Action"], said["Message"]) == ("reject", f"{code} {enhanced} {said['Id']} {text}")
    assert not counter.scorer.heads


def test_a_message_of_the_largest_size(counter: Counter) -> None:
    octets = received() + mail("<full@example.net>")
    octets += b"x\r\n" * ((2**20 - len(octets)) // 3)
    assert lines(ask(counter.door, rspamc(octets)))["Scan"] == "skipped; reason=too-large"


def test_a_null_sender_and_many_recipients(counter: Counter) -> None:
    counter.scores(0.3)
    many = tuple(f"list-{n}@lists.test" for n in range(1000))
    octets = received() + mail("<many@example.net>")
    assert lines(ask(counter.door, rspamc(octets, "", many)))["Action"] == "no action"
    found = counter.verdict("<many@example.net>")
    assert (found["sender"], found["recipients"]) == ("", list(many))


# the other ways to ask


def test_ping(counter: Counter) -> None:
    for variant in ("SPAM", "RSPAM"):
        assert ask(counter.door, f"PING {variant}C/1.2\r\n\r\n".encode()).split(" ", 1) == [
            "RSPAMD/1.3" if variant == "RSPAM" else "SPAMD/1.1", "0 PONG\r\n",
        ]  # fmt: skip


def test_the_stock_variant(counter: Counter) -> None:
    counter.scores(7.2)
    octets = received("1xV0Yt-0004sm-36") + mail("<stock@example.net>")
    said = ask(counter.door, spamc(octets), half=True)
    assert said.startswith("SPAMD/1.1 0 EX_OK\r\nContent-length: ")
    assert said.partition("\r\n\r\n")[2].startswith("7.2000/1.0991\r\nMessage: 550 5.7.1 ")
    found = counter.verdict("<stock@example.net>")
    assert (found["exim_id"], found["sender"], found["recipients"], found["client"]) == (
        "1xV0Yt-0004sm-36", "ida@example.org", [LIST], "",
    )  # fmt: skip
    assert "Spam: True ; 7.2 / 1.1" in ask(counter.door, spamc(octets, "CHECK", "1.5"), half=True)
    assert "Message: 550 5.7.1 " in ask(counter.door, spamc(octets, "SYMBOLS", "1.5"), half=True)


def test_the_unix_socket(counter: Counter) -> None:
    counter.scores(7.2)
    assert lines(ask(counter.unix, counter.post()[1]))["Action"] == "reject"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder to another group")
async def test_a_unix_socket_is_for_the_group_of_its_folder(tmp_path: Path) -> None:
    """By which Exim alone may ask: the head of mailgate.service."""
    os.chown(tmp_path, -1, 12345)
    tmp_path.chmod(0o2750)
    sockets = Sockets()
    await sockets.listen(Endpoint(path=str(tmp_path / "verdict.sock")), asyncio.Protocol)
    made = (tmp_path / "verdict.sock").stat()
    assert (made.st_gid, stat.S_IMODE(made.st_mode)) == (12345, 0o660)
    sockets.close()


# one scan


def _joined(counter: Counter) -> float:
    return counter.gate.metric("mailgate_verdicts_joined_total", result="joined")


def _relayed(counter: Counter, exim_id: str, body: bytes = b"A line.\r\n") -> str:
    """The same message at the relay door, as Exim sends it there."""
    return counter.send(head=received(exim_id), body=body)


def test_a_message_is_scored_once(counter: Counter) -> None:
    counter.scores(3.2)
    before = _joined(counter)
    assert lines(ask(counter.door, counter.post(exim_id="1xV0Yu-0004sm-37")[1]))["Action"] == "add header"
    sent = _relayed(counter, "1xV0Yu-0004sm-37")
    assert marks(counter.taken(sent))["X-Spam-Score"] == "3.2 (+++)"
    assert len(counter.scorer.heads) == 1
    assert _joined(counter) == before + 1


def test_what_is_to_be_held_is_held_at_the_relay_door(counter: Counter) -> None:
    counter.policy(hold_score=3.0)
    counter.scores(3.2)
    said = lines(ask(counter.door, counter.post(exim_id="1xV0Yv-0004sm-38")[1]))
    assert (said["Action"], said["Verdict"]) == ("add header", "hold")
    _relayed(counter, "1xV0Yv-0004sm-38")
    assert [reply.split()[-1] for reply in counter.said] == ["held"]
    assert len(counter.scorer.heads) == 1


@pytest.mark.parametrize("resets", [False, True])
def test_an_exim_that_hung_up_finds_the_verdict_at_the_relay_door(counter: Counter, resets: bool) -> None:
    """Its time-out, a second before the scorer answered, must not cost a second scan."""
    counter.scores(3.2)
    counter.scorer.scan = Act(counter.scorer.scan.says, late=True)
    sent, question = counter.post(exim_id="1xV0Yw-0004sm-39")
    with connect(counter.door) as connection:
        if resets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(question)
        wait_until(lambda: len(counter.scorer.heads) == 1, "the scorer has been asked")
    counter.scorer.release()
    counter.verdict(sent)
    before = _joined(counter)
    _relayed(counter, "1xV0Yw-0004sm-39")
    assert len(counter.scorer.heads) == 1
    assert _joined(counter) == before + 1


# time and the end


def test_an_answer_comes_within_the_budget() -> None:
    settings = {"verdict": {"budget": "2s"}, "spam": {"timeout": "7s"}}
    with open_counter(settings) as counter:
        counter.scorer.scan = Act(then="hang")
        started = time.monotonic()
        said = lines(ask(counter.door, counter.post()[1]))
        assert time.monotonic() - started < 6  # of the seven that the scan has
        assert (said["Action"], said["Scan"]) == ("no action", "unscored; reason=timeout")


def test_a_stop_answers_what_was_asked() -> None:
    with open_counter({"spam": {"timeout": "7s"}}) as counter:
        counter.scores(7.2)
        counter.scorer.scan = Act(counter.scorer.scan.says, late=True)
        sent, question = counter.post()
        with connect(counter.door) as asked, connect(counter.door) as silent, connect(counter.door) as half:
            half.sendall(question[:-5])
            asked.sendall(question)
            wait_until(lambda: len(counter.scorer.heads) == 1, "the scorer has been asked")
            counter.gate.send(signal.SIGTERM)
            counter.gate.wait_for_event("daemon.draining")
            assert answer(silent) == ""
            assert answer(half) == ""
            wait_until(lambda: not _open(counter), "nobody listens any more")
            release = threading.Timer(0.2, counter.scorer.release)
            release.start()
            assert lines(answer(asked))["Action"] == "reject"
            release.join()
        assert counter.gate.ended() == 0
        assert counter.gate.events("daemon.stopped")[-1]["drained"] is True
        counter.gate.start()
        counter.scores(7.2)
        assert lines(ask(counter.unix, counter.post()[1]))["Action"] == "reject"
        assert counter.verdict(sent)["verdict"] == "reject"


def _open(counter: Counter) -> bool:
    try:
        connect(counter.door).close()
    except ConnectionRefusedError:
        return False
    return True


def test_an_address_that_is_taken_is_named() -> None:
    counter = Counter()
    try:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(counter.door)
            other.listen()
            counter.gate.begin()
            assert counter.gate.ended() == 1
        assert "verdict.listen: " in counter.gate.log.read_text()
    finally:
        counter.pair.expect_trouble()
        counter.close()
