"""The promises that mailgate makes (README), one test of that name for each that holds by now.

Each is short and fails when its promise is broken. What is proved at length elsewhere is named: the kill test
(test_kill.py), the full disk (test_disk.py), every failure of Mailman (tests/edge), the octets of every fixture
(test_octets.py).
"""

import sqlite3
import time
from contextlib import closing

import pytest

from tests.edge.pair import Pair, mail, started
from tests.stack.dialogue import stuffed
from tests.stack.fake_script import Act, Stage, Then, hang, say
from tests.stack.waiting import wait_until
from tests.verdict.asking import EXIM_ID, ask, lines, open_counter, received

A, B, C, D = (f"{name}@lists.test" for name in "abcd")


def post(pair: Pair, message_id: str, *recipients: str) -> list[str]:
    """The replies after the final dot, without the gate ids."""
    replies = pair.send(*recipients, octets=mail(message_id)).final
    return [" ".join([str(reply).split()[0], *reply.text.split()[:1], *reply.text.split()[2:]]) for reply in replies]


def test_promise_1_a_250_means_that_mailman_took_it_or_that_it_is_synced_to_disk() -> None:
    """Both are looked at the moment the 250 is there: what Mailman has, and what a gate killed at that moment has."""
    with started() as pair:
        assert post(pair, "<taken@example.net>", A) == ["250 2.0.0 delivered: Ok"]
        assert pair.fake.arrived(A) == ["<taken@example.net>"]
        pair.fake.refuse()
        assert post(pair, "<kept@example.net>", A) == ["250 2.0.0 spooled"]
        pair.gate.kill()
        pair.fake.accept()
        pair.gate.start()
        wait_until(lambda: pair.fake.arrived(A) == ["<taken@example.net>", "<kept@example.net>"], "both are there")


def test_promise_1_there_is_no_250_before_the_commit_has_returned() -> None:
    with started() as pair, pair.client() as client, closing(sqlite3.connect(pair.gate.spool)) as other:
        pair.fake.refuse()
        other.execute("BEGIN IMMEDIATE")  # the gate can't commit as long as we hold this
        client.pipeline(["MAIL FROM:<bob@example.net>", f"RCPT TO:<{A}>", "DATA"])
        client.send(stuffed(mail("<waits@example.net>")))
        assert client.silent(0.7)
        other.rollback()
        assert str(client.reply()).startswith("250 2.0.0 ")


@pytest.mark.parametrize("trouble", ["no spool", "full spool", "spool taken away"])
def test_promise_2_trouble_of_our_own_is_a_4xx(trouble: str) -> None:
    settings = {
        "no spool": {"spool": {"url": "sqlite:////proc/none/spool.db"}},
        "full spool": {"spool": {"max_bytes": "1KiB"}},
    }
    with started(settings.get(trouble)) as pair:
        pair.fake.refuse()
        if trouble == "spool taken away":
            pair.gate.spool.unlink()
        codes = pair.send(A, B, octets=mail("<trouble@example.net>", b"x" * 900 + b"\r\n" + b"x" * 900 + b"\r\n")).codes
        assert codes == [452 if trouble == "full spool" else 451] * 2


def test_promise_2_who_is_there_when_we_end_is_sent_away_with_a_4xx() -> None:
    with started() as pair, pair.client() as client:
        pair.gate.stop()
        assert str(client.reply()).startswith("421 4.3.2 ")
        with pytest.raises(EOFError):
            client.reply()


def test_promise_3_n_accepted_recipients_get_n_replies_in_order() -> None:
    settings = {"relay": {"max_message_size": "1MiB", "max_in_flight": "1MiB"}, "spool": {"max_bytes": "64KiB"}}
    with started(settings) as pair:
        pair.fake.on(Stage.RCPT, say("550 no such list"), only=B)
        pair.fake.on(Stage.RCPT, say("450 not now"), only=C)
        different = post(pair, "<each@example.net>", A, B, C, D, B)
        assert [reply.split()[-1] for reply in different] == ["Ok", "list", "spooled", "Ok", "list"]
        too_large = pair.send(A, B, C, octets=mail("<large@example.net>", b"line\r\n" * 200_000))
        assert too_large.codes == [552, 552, 552]
        pair.fake.refuse()
        no_room = pair.send(A, B, C, octets=mail("<room@example.net>", b"line\r\n" * 50_000))
        assert no_room.codes == [452, 452, 452]


def test_promise_4_the_message_is_never_serialised_again() -> None:
    """What a parser would mend: odd folding, 8-bit octets, an empty field, no MIME at all, blanks at line ends."""
    header = (
        b"subject:no blank\r\nX-Empty:\r\nX-Odd: \xff\xe9 \t\r\n\t\r\n folded  \r\nDate: soon\r\nFROM: b\xc3\xb6b\r\n"
    )
    octets = header + b"\r\n.\r\n..dots  \r\n\x00\xfe bare\r\nno MIME, and =3D stays\r\n \r\n"
    with started() as pair:
        assert pair.send(A, octets=octets).codes == [250]
        [taken] = pair.fake.wait_taken()
        assert taken.octets.endswith(octets)
        assert (
            taken.octets.removesuffix(octets).count(b"\r\n") == 6
        )  # Received in four lines, X-Mailgate-Scan, X-Mailgate-Id


def test_promise_5_at_least_once_and_what_may_be_repeated_is_called_uncertain() -> None:
    with started() as pair:
        pair.fake.on(Stage.DOT, Act(lines=1, then=Then.CLOSE, took=True), times=1)
        assert post(pair, "<twice@example.net>", A, B) == ["250 2.0.0 delivered: Ok", "250 2.0.0 spooled"]
        wait_until(lambda: len(pair.fake.arrived(B)) == 2, "it is delivered again")
        pair.wait_drained()
        assert pair.fake.arrived(A) == ["<twice@example.net>"]
        assert pair.people("<twice@example.net>")[B].uncertain
        assert "uncertain" in pair.gate.wait_for_event("message.spooled")["recipients"][B]


def test_promise_5_what_a_crash_left_in_the_middle_is_called_uncertain() -> None:
    with started() as pair:
        pair.fake.refuse()
        assert post(pair, "<crash@example.net>", A) == ["250 2.0.0 spooled"]
        pair.fake.on(Stage.DOT, Act(lines=0, then=Then.HANG, took=True))
        pair.fake.accept()
        wait_until(lambda: pair.fake.arrived(A), "Mailman has it and has not said so")
        pair.gate.kill()
        pair.fake.behave()
        pair.gate.start()
        pair.wait_drained()
        assert len(pair.fake.arrived(A)) == 2
        assert pair.people("<crash@example.net>")[A].uncertain
        pair.gate.wait_for_event("spool.opened", uncertain=1)


def test_promise_6_no_wait_without_a_deadline() -> None:
    """Mailman falls silent at any stage; only `relay.budget` ends it, since all other deadlines are far away."""
    budget = 1.5
    settings = {"relay": {"budget": f"{budget}s"}, "mailman": {"connect_timeout": "1.4s", "reply_timeout": "60s"}}
    with started(settings) as pair:
        for stage in (Stage.GREETING, Stage.LHLO, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT):
            pair.fake.behave()
            pair.fake.on(stage, hang())
            began = time.monotonic()
            assert post(pair, f"<{stage}@example.net>", A) == ["250 2.0.0 spooled"], stage
            assert time.monotonic() - began < budget + 20, stage
            pair.fake.behave()
            pair.wait_drained()
            wait_until(pair.up, "Mailman is reached again")


def test_promise_7_every_input_is_bounded_and_the_bound_answers() -> None:
    settings = {"relay": {"max_connections": 3, "max_message_size": "2MiB", "max_in_flight": "2MiB"}}
    with started(settings) as pair:
        clients = [pair.client() for _ in range(3)]
        with pair.client(hello=False) as one_more:
            assert one_more.reply().code == 421
        for client in clients:
            client.quit()
        wait_until(lambda: pair.connections() == 0, "the connections are gone")
        with pair.client() as client:
            assert client.command("NOOP " + "x" * 100_000).code == 500
            assert client.command("MAIL FROM:<bob@example.net> SIZE=3000000").code == 552
            too_many = client.pipeline(["MAIL FROM:<bob@example.net>", *[f"RCPT TO:<{A}>"] * 1001, "RSET"])
            assert [reply.code for reply in too_many] == [250] * 1001 + [452, 250]
        long = b"x" * 1000 + b"\r\n"
        assert pair.send(A, octets=b"X-Field: " + b"y\r\n " * 400_000 + b"\r\n\r\n").codes == [552]
        assert pair.send(A, octets=mail("<large@example.net>", long * 3000)).codes == [552]
        assert pair.send(A, octets=b"Received: x\r\n" * 101 + mail("<loop@example.net>")).codes == [554]
        assert post(pair, "<alive@example.net>", A) == ["250 2.0.0 delivered: Ok"]


def test_promise_8_what_is_not_wanted_is_refused_before_it_is_accepted_or_not_at_all() -> None:
    """The same message at both doors: to refuse it behind Exim's queue would be a bounce to a forged sender."""
    with open_counter() as counter:
        counter.scores(9.0)
        assert lines(ask(counter.door, counter.post()[1]))["Message"].startswith("550 5.7.1 ")
        counter.send(head=received(EXIM_ID))  # what an Exim does that has not asked, or has not obeyed
        assert counter.said == ["250 2.0.0 held"]
