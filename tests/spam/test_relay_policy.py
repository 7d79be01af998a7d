"""What a score, or none, does to a message at the relay door: the decision, the reply, the fields, metrics and log."""

import time

import pytest

from mailgate.edge.spool import Database
from mailgate.edge.spool.listing import Selection
from mailgate.edge.spool.verbs import release
from tests.edge.pair import mail
from tests.spam.desk import LIST, Desk, marks, open_desk
from tests.stack.fake_scorer import Act
from tests.stack.fake_script import Stage, say
from tests.stack.waiting import wait_until

DELIVERED, HELD, SPOOLED = "250 2.0.0 delivered: Ok", "250 2.0.0 held", "250 2.0.0 spooled"
NO_SCORE = {"X-Mailgate-Scan": "unscored; reason=unavailable"}


# a score


def test_ham_is_delivered_and_says_so(desk: Desk) -> None:
    desk.scores(0.3)
    sent = desk.send()
    assert desk.said == [DELIVERED]
    assert marks(desk.taken(sent)) == {
        "X-Spam-Status": "No, score=0.3 required=1.0",
        "X-Mailgate-Scan": "scored",
    }
    event = desk.event(sent)
    assert (event["event"], event["scan"], event["score"], event["reasons"]) == (
        "message.delivered", "scored", 0.3, [],
    )  # fmt: skip
    assert event["scorer"] == str(desk.scorer.port)


def test_a_tagged_message_is_delivered_with_the_fields_of_spam(desk: Desk) -> None:
    desk.scores(3.2)
    sent = desk.send()
    assert desk.said == [DELIVERED]
    found = desk.taken(sent)
    assert list(marks(found)) == [
        "X-Spam-Score", "X-Spam-Report", "X-Spam-Flag", "X-Spam-Status", "X-Mailgate-Scan",
    ]  # fmt: skip
    assert found["X-Spam-Score"] == "3.2 (+++)"
    assert "OFFER" in found["X-Spam-Report"]
    assert found["X-Spam-Status"] == "Yes, score=3.2 required=1.0"
    assert desk.event(sent)["reasons"] == ["spam-tag"]


@pytest.mark.parametrize(
    ("points", "tag", "held"), [(1.0, False, False), (1.1, True, False), (6.0, True, False), (6.1, True, True)]
)
def test_the_boundaries_are_exims(desk: Desk, points: float, *, tag: bool, held: bool) -> None:
    desk.scores(points)
    sent = desk.send()
    assert desk.said == [HELD if held else DELIVERED]
    if not held:
        assert ("X-Spam-Score" in desk.taken(sent)) is tag


def test_spam_that_exim_has_accepted_is_held(desk: Desk) -> None:
    desk.scores(7.2)
    before = desk.gate.metric("mailgate_recipients_total", outcome="held")
    sent = desk.send(LIST, "other@lists.test")
    assert desk.said == [HELD, HELD]
    assert not desk.arrived(sent)
    assert desk.state(sent) == {"held"}
    assert desk.replies(sent) == {"spam-reject (score 7.2)"}
    assert desk.gate.metric("mailgate_recipients_total", outcome="held") == before + 2
    assert desk.event(sent)["event"] == "message.held"
    assert desk.gate.metric("mailgate_messages_total", verdict="hold") >= 1
    _released(desk, sent)
    assert desk.wait_taken(sent)["X-Spam-Score"] == "7.2 (+++++++)"


def test_spam_is_discarded_only_when_the_operator_says_so(desk: Desk) -> None:
    desk.policy(late="discard")
    desk.scores(7.2)
    sent = desk.send(LIST, "other@lists.test")
    assert desk.said == ["250 2.0.0 discarded"] * 2
    assert desk.state(sent) == set()
    assert desk.gate.metric("mailgate_recipients_total", outcome="discarded") == 2
    event = desk.event(sent)
    assert (event["event"], event["level"], event["reasons"]) == ("message.discarded", "warning", ["spam-reject"])
    assert not desk.arrived(sent)


def test_spam_is_refused_only_when_the_operator_says_so(desk: Desk) -> None:
    desk.policy(late="reject")
    desk.scores(7.2)
    sent = desk.send()
    assert desk.said == ["550 5.7.1 taken for spam: it scores 7.2"]
    assert desk.event(sent)["event"] == "message.rejected"
    assert not desk.arrived(sent)


def test_a_score_between_is_held(desk: Desk) -> None:
    desk.policy(hold_score=3.0)
    desk.scores(3.1)
    sent = desk.send()
    assert desk.said == [HELD]
    assert desk.replies(sent) == {"spam-hold (score 3.1)"}


def test_a_list_with_scores_of_its_own(desk: Desk) -> None:
    desk.policy(lists=[{"match": "private-*@lists.test", "hold_score": 2.0, "tag_score": 0}])
    desk.scores(2.1)
    desk.send("private-a@lists.test")
    assert desk.said == [HELD]
    desk.send(LIST)
    assert desk.said == [DELIVERED]
    desk.send(LIST, "private-a@lists.test")
    assert desk.said == [HELD, HELD]


def test_never_is_never(desk: Desk) -> None:
    desk.policy(tag_score=0, reject_score=0)
    desk.scores(1000)
    sent = desk.send()
    assert desk.said == [DELIVERED]
    assert marks(desk.taken(sent)) == {"X-Spam-Status": "No, score=1000.0", "X-Mailgate-Scan": "scored"}


def test_forged_fields_are_cut_and_every_other_octet_stays(desk: Desk) -> None:
    desk.scores(0.3)
    forged = (
        b"X-Spam-Score: -9 (-----)\r\nx-spam-flag:NO\r\nX-Spam-Status: No,\r\n\tscore=0\r\nX-Spam-Flag: NO\r\n"
        b"X-Mailgate-Scan: scored\r\nX-Spam-Report: fine\r\nX-SPAM-LEVEL: *\r\n"
    )
    kept = b"X-Spam: kept\r\nSubject:   two  blanks \r\n"
    sent = desk.send(head=forged + kept, body=b" a\r\n.\r\n\xff\x00 b")
    [octets] = [one.octets for one in desk.fake.taken if one.message_id == sent]
    ours, mark, theirs = octets.partition(kept)
    assert mark + theirs == kept + mail(sent, b" a\r\n.\r\n\xff\x00 b\r\n")
    names = [line.partition(b":")[0] for line in ours.splitlines() if line[:1] not in b" \t"]
    assert names == [b"Received", b"X-Spam-Status", b"X-Mailgate-Scan", b"X-Mailgate-Id"]


# what is not scored


def _scans(desk: Desk, sent: str) -> str:
    return str(marks(desk.taken(sent)).get("X-Mailgate-Scan"))


def test_a_message_over_max_size(desk: Desk) -> None:
    desk.policy(max_size="4KiB")
    desk.scores(9)
    room = 4096 - len(mail("<0@example.net>", b""))
    for spare, said in ((1, HELD), (0, HELD), (-1, DELIVERED)):
        body = (b"x" * 100 + b"\r\n") * 100
        desk.send(octets=mail("<0@example.net>", body[: room - spare - 2] + b"\r\n"))
        assert (spare, desk.said) == (spare, [said])
    assert desk.asked("<0@example.net>") == 2
    assert desk.gate.metric("mailgate_spam_scans_total", result="skipped") >= 1


def test_a_trusted_network_by_the_header_of_exims_transport(desk: Desk) -> None:
    desk.policy(skip_networks=["192.0.2.0/24"])
    desk.scores(9)
    client = b"X-Mailgate-Client: ip=198.51.100.9; helo=a; eid=1xV0Ys-0004sm-35\r\n"
    desk.send(head=client)
    assert desk.said == [HELD]
    sent = desk.send(head=client + b"X-Mailgate-Client: ip=192.0.2.9; helo=a; eid=1xV0Ys-0004sm-36\r\n")
    assert desk.said == [DELIVERED]
    assert marks(desk.taken(sent)) == {"X-Mailgate-Scan": "skipped; reason=trusted-network"}
    event = desk.event(sent)
    assert (event["scan"], event["scan_reason"], event["client"], event["exim_id"]) == (
        "skipped", "trusted-network", "192.0.2.9", "1xV0Ys-0004sm-36",
    )  # fmt: skip
    assert b"192.0.2.9" not in b"".join(one.octets for one in desk.fake.taken if one.message_id == sent)


def test_only_exempt_recipients(desk: Desk) -> None:
    desk.scores(9)
    sent = desk.send("Postmaster@lists.test", "abuse@lists.test")
    assert desk.said == [DELIVERED, DELIVERED]
    assert _scans(desk, sent) == "skipped; reason=exempt-recipients"
    desk.send("postmaster@lists.test", LIST)
    assert desk.said == [HELD, HELD]


def test_the_scorer_is_told_whom_the_message_is_from(desk: Desk) -> None:
    desk.send(LIST, head=b'X-Mailgate-Client: ip=192.0.2.9; host=mx.example.net; helo="[192.0.2.9]"; user=bob\r\n')
    asked = desk.scorer.heads[-1].decode().lower().split("\r\n")
    for field in ("ip: 192.0.2.9", "helo: [192.0.2.9]", "hostname: mx.example.net", "user: bob"):
        assert field in asked, asked
    assert desk.gate.metric("mailgate_origin_total", source="header") >= 1


# no score


def test_unscored_is_delivered_marked_counted_and_said(desk: Desk) -> None:
    desk.fails()
    before = desk.gate.metric("mailgate_unscored_total", reason="unavailable")
    sent = desk.send()
    assert desk.said == [DELIVERED]
    assert marks(desk.taken(sent)) == NO_SCORE
    assert desk.gate.metric("mailgate_unscored_total", reason="unavailable") == before + 1
    told = desk.event(sent, "spam.unscored")
    assert (told["text"], told["reason"], told["level"]) == ("all spamd servers failed", "unavailable", "warning")
    event = desk.event(sent)
    assert (event["scan"], event["scan_reason"], event["reasons"]) == ("unscored", "unavailable", ["unscored"])


def test_unscored_may_be_deferred(desk: Desk) -> None:
    desk.policy(on_failure="defer")
    desk.fails()
    sent = desk.send()
    assert desk.said == ["451 4.3.0 can't be scanned for spam now, try again later"]
    assert not desk.arrived(sent)
    assert desk.event(sent)["event"] == "message.deferred"


@pytest.mark.parametrize("then", ["hang", "close"])
def test_a_scorer_that_does_not_answer_costs_a_bounded_time(desk: Desk, then: str) -> None:
    desk.scorer.scan = Act(then=then)  # type: ignore[arg-type]
    started = time.monotonic()
    sent = desk.send()
    assert time.monotonic() - started < 15  # of the twenty that the budget has
    assert desk.said == [DELIVERED]
    reason = {"hang": "timeout", "close": "closed"}[then]
    assert marks(desk.taken(sent)) == {"X-Mailgate-Scan": f"unscored; reason={reason}"}


def test_the_scan_leaves_mailman_half_of_the_budget() -> None:
    with open_desk({"relay": {"budget": "9s"}, "spam": {"timeout": "8.9s"}}) as desk:
        desk.scorer.scan = Act(then="hang")
        started = time.monotonic()
        sent = desk.send()
        assert 2.9 < time.monotonic() - started < 5.9  # 3 s are the spool's, 3 s Mailman's
        assert desk.said == [DELIVERED]
        assert marks(desk.taken(sent)) == {"X-Mailgate-Scan": "unscored; reason=timeout"}


# spooled unscored, scored before it is replayed


def _mailman_down(desk: Desk) -> None:
    desk.fake.refuse()
    desk.send()
    wait_until(lambda: not desk.pair.up(), "the gate knows that Mailman is down")


def _released(desk: Desk, message_id: str) -> None:
    database = Database(desk.gate.spool, "gate.lists.test", serve=False)
    try:
        assert list(release(database, Selection(ids=(message_id,)), time.time()))
    finally:
        database.close()


def test_what_was_spooled_unscored_is_scored_before_it_is_replayed(desk: Desk) -> None:
    desk.fails()
    _mailman_down(desk)
    sent = desk.send(LIST, "other@lists.test")
    assert desk.said == [SPOOLED, SPOOLED]
    desk.scores(3.2)
    desk.comes_back()
    wait_until(desk.believed_alive, "the scorer is back")
    desk.fake.accept()
    found = desk.wait_taken(sent)
    assert found["X-Spam-Score"] == "3.2 (+++)"
    assert found.get_all("X-Mailgate-Scan") == ["scored"]
    assert found["X-Spam-Flag"] == "YES"
    assert found.get_payload() == "A line.\r\n"
    assert [name for name in found if name.lower().startswith("x-mailgate-")] == ["X-Mailgate-Scan", "X-Mailgate-Id"]
    told = desk.event(sent, "replay.delivered")
    assert (told["scan"], told["score"]) == ("scored", 3.2)


def test_without_a_scorer_it_is_replayed_unscored(desk: Desk) -> None:
    desk.fails()
    _mailman_down(desk)
    sent = desk.send()
    desk.fake.accept()
    assert marks(desk.wait_taken(sent)) == NO_SCORE


@pytest.mark.parametrize(("late", "state"), [("hold", "held"), ("reject", "failed"), ("discard", "dropped")])
def test_spam_that_was_spooled_unscored(desk: Desk, late: str, state: str) -> None:
    desk.policy(late=late)
    desk.fails()
    _mailman_down(desk)
    sent = desk.send()
    desk.scores(7.2)
    desk.comes_back()
    wait_until(desk.believed_alive, "the scorer is back")
    desk.fake.accept()
    wait_until(lambda: desk.state(sent) == {state}, f"it is {state}")
    assert not desk.arrived(sent)
    assert desk.event(sent, f"replay.{state}")["score"] == 7.2
    asked = desk.asked(sent)
    if state == "held":  # an operator's release is the last word: it is not judged again
        _released(desk, sent)
        assert desk.wait_taken(sent)["X-Spam-Score"] == "7.2 (+++++++)"
        assert desk.asked(sent) == asked == 1


def test_a_score_is_kept_while_mailman_defers(desk: Desk) -> None:
    desk.fails()
    _mailman_down(desk)
    sent = desk.send()
    desk.scores(3.2)
    desk.comes_back()
    wait_until(desk.believed_alive, "the scorer is back")
    desk.fake.on(Stage.RCPT, say("450 busy"), times=3)
    desk.fake.accept()
    assert desk.wait_taken(sent)["X-Spam-Score"] == "3.2 (+++)"
    assert desk.asked(sent) == 1


def test_a_replay_by_hand_scores_as_well(desk: Desk) -> None:
    desk.fails()
    _mailman_down(desk)
    sent = desk.send()
    desk.gate.stop()
    desk.scores(3.2)
    desk.comes_back()
    desk.fake.accept()
    desk.gate.cli("queue", "replay", "--all")
    assert desk.taken(sent)["X-Spam-Score"] == "3.2 (+++)"
    desk.gate.start()


# held until it can be scored


def test_what_is_held_unscored_goes_on_by_itself_when_a_scorer_is_back(desk: Desk) -> None:
    desk.policy(on_failure="hold")
    desk.fails()
    sent = desk.send(LIST, "other@lists.test")
    assert desk.said == [HELD, HELD]
    assert desk.state(sent) == {"held"}
    assert desk.replies(sent) == {"unscored: held until it can be scored"}
    desk.scores(3.2)
    desk.comes_back()
    found = desk.wait_taken(sent)
    assert found["X-Spam-Score"] == "3.2 (+++)"
    assert found.get_all("X-Mailgate-Scan") == ["scored"]
    wait_until(lambda: desk.state(sent) == {"delivered"}, "it is settled")


def test_what_turns_out_to_be_spam_is_kept(desk: Desk) -> None:
    desk.policy(on_failure="hold")
    desk.fails()
    sent = desk.send()
    desk.scores(7.2)
    desk.comes_back()
    wait_until(lambda: desk.replies(sent) == {"spam-reject (score 7.2)"}, "it has been judged")
    assert desk.state(sent) == {"held"}
    assert not desk.arrived(sent)


def test_after_hold_at_most_it_goes_on_unscored(desk: Desk) -> None:
    desk.policy(on_failure="hold", hold_at_most="1s")
    desk.fails()
    started = time.monotonic()
    sent = desk.send()
    assert desk.said == [HELD]
    assert marks(desk.wait_taken(sent)) == NO_SCORE
    assert time.monotonic() - started >= 1


def test_while_no_scorer_is_back_it_stays_held_unless_an_operator_releases_it(desk: Desk) -> None:
    desk.policy(on_failure="hold")
    desk.fails()
    stays, released = desk.send(), desk.send()
    _released(desk, released)
    assert marks(desk.wait_taken(released)) == NO_SCORE
    assert desk.state(stays) == {"held"}
    assert not desk.arrived(stays)


def test_a_scorer_that_is_back_and_fails_again_lets_nothing_slip_through(desk: Desk) -> None:
    desk.policy(on_failure="hold")
    desk.fails()
    sent = [desk.send() for _ in range(6)]
    desk.scorer.scan = Act(then="close")  # answers probes, and no question
    desk.comes_back()
    asked = desk.scorer.scans
    wait_until(lambda: desk.scorer.scans > asked, "it has been asked")
    assert [desk.state(one) for one in sent] == [{"held"}] * 6
    assert not any(map(desk.arrived, sent))
    desk.scores(0.3)
    for one in sent:
        assert _scans_when_taken(desk, one) == "scored"


def _scans_when_taken(desk: Desk, sent: str) -> str:
    return str(desk.wait_taken(sent)["X-Mailgate-Scan"])


def test_what_is_held_survives_the_gate(desk: Desk) -> None:
    desk.policy(on_failure="hold")
    desk.fails()
    sent = desk.send()
    desk.gate.kill()
    desk.scores(0.3)
    desk.comes_back()
    desk.gate.start()
    assert _scans_when_taken(desk, sent) == "scored"
