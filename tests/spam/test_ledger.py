"""On every way on which a post passes unscored there are the header field, the metric, the line in the log and the
entry in the ledger; what did not pass unscored is not listed as if it had.
"""

import time
from dataclasses import dataclass

import pytest

from mailgate.edge.spool import Database, outages
from mailgate.edge.spool.listing import Selection
from mailgate.edge.spool.outages import Choice, Passed
from mailgate.edge.spool.verbs import release
from tests.edge.pair import mail
from tests.spam.desk import LIST, Desk, marks
from tests.stack.fake_scorer import Act
from tests.stack.fake_script import Stage, drop, say
from tests.stack.waiting import wait_until

OTHER = "other@lists.test"


@dataclass
class Watch:
    """Counts what the gate says of unscored mail from now on."""

    desk: Desk

    def __post_init__(self) -> None:
        self._metric = self.desk.gate.metrics()

    def counted(self) -> dict[str, float]:
        """How often, by reason."""
        name = 'mailgate_unscored_total{reason="'
        after = self.desk.gate.metrics()
        grown = {key: after[key] - self._metric.get(key, 0) for key in after if key.startswith(name)}
        return {key.removeprefix(name).removesuffix('"}'): value for key, value in grown.items() if value}


def entry(desk: Desk, message_id: str, *, everything: bool = False) -> Passed | None:
    """What the ledger has of that message."""
    database = Database(desk.gate.spool, "gate.lists.test", serve=False)
    try:
        found = [one for one in outages.posts(database, Choice(everything=everything)) if one.message_id == message_id]
    finally:
        database.close()
    assert len(found) < 2
    return found[0] if found else None


def states(desk: Desk, message_id: str, *, everything: bool = False) -> dict[str, str]:
    """Its recipients there."""
    one = entry(desk, message_id, everything=everything)
    return {person.address: person.state for person in one.recipients} if one else {}


def wait_states(desk: Desk, message_id: str, expected: dict[str, str], *, everything: bool = False) -> None:
    """Until they are so."""
    try:
        wait_until(lambda: states(desk, message_id, everything=everything) == expected, "the ledger knows")
    except TimeoutError:
        assert states(desk, message_id, everything=everything) == expected


def assert_passed_unscored(desk: Desk, watch: Watch, sent: str, reason: str, state: str = "delivered") -> None:
    """All four say that this one message, and no other, has passed unscored."""
    assert marks(desk.wait_taken(sent)) == {"X-Mailgate-Scan": f"unscored; reason={reason}"}
    assert watch.counted() == {reason: 1}
    told = desk.gate.wait_for_event("spam.unscored", message_id=sent)
    assert (told["text"], told["reason"]) == ("all spamd servers failed", reason)
    wait_states(desk, sent, {LIST: state})
    found = entry(desk, sent)
    assert found is not None
    assert (found.id, found.reason, found.detail) == (told["id"], reason, told["cause"])
    assert found.sender == "bob@example.net"


def assert_did_not_pass_unscored(desk: Desk, sent: str) -> None:
    """It has a score, and the ledger says so."""
    assert marks(desk.wait_taken(sent))["X-Mailgate-Scan"] == "scored"
    wait_states(desk, sent, {LIST: "scored"}, everything=True)
    assert states(desk, sent) == {}


def mailman_down(desk: Desk) -> None:
    """Mailman is down, and the gate knows it."""
    desk.fake.refuse()
    desk.send()
    wait_until(lambda: not desk.pair.up(), "the gate knows that Mailman is down")


def released(desk: Desk, message_id: str) -> None:
    """An operator lets it go."""
    database = Database(desk.gate.spool, "gate.lists.test", serve=False)
    try:
        assert list(release(database, Selection(ids=(message_id,)), time.time()))
    finally:
        database.close()


# what passes unscored


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (Act(then="hang"), "timeout"),
        (Act(then="close"), "closed"),
        (Act(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nspam"), "garbage"),
        (Act(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), "error"),
    ],
)
def test_straight_to_mailman(desk: Desk, act: Act, reason: str) -> None:
    watch = Watch(desk)
    desk.scorer.scan = act
    sent = desk.send()
    assert_passed_unscored(desk, watch, sent, reason)


def test_straight_to_mailman_when_nobody_listens(desk: Desk) -> None:
    desk.scorer.refuse()
    watch = Watch(desk)
    assert_passed_unscored(desk, watch, desk.send(), "refused")
    watch = Watch(desk)
    assert_passed_unscored(desk, watch, desk.send(), "unavailable")


def test_mailman_may_have_it(desk: Desk) -> None:
    """Then it is scored; but the first copy was not."""
    desk.fails()
    desk.fake.on(Stage.DOT, drop(), times=1)
    watch = Watch(desk)
    sent = desk.send()
    wait_states(desk, sent, {LIST: "uncertain"})
    assert watch.counted() == {"unavailable": 1}
    wait_until(lambda: desk.state(sent) == {"delivered"}, "it came again")
    wait_states(desk, sent, {LIST: "delivered"})  # unscored again


def test_spooled_and_replayed_unscored(desk: Desk) -> None:
    desk.fails()
    mailman_down(desk)
    watch = Watch(desk)
    sent = desk.send()
    assert states(desk, sent, everything=True) == {LIST: "pending"}
    assert states(desk, sent) == {}
    desk.fake.accept()
    assert_passed_unscored(desk, watch, sent, "unavailable")
    assert desk.event(sent, "replay.delivered")["scan"] == "unscored"


def test_spooled_and_replayed_by_hand(desk: Desk) -> None:
    desk.fails()
    mailman_down(desk)
    sent = desk.send()
    desk.gate.stop()
    desk.fake.accept()
    desk.gate.cli("queue", "replay", "--all")
    desk.gate.start()
    assert marks(desk.taken(sent))["X-Mailgate-Scan"] == "unscored; reason=unavailable"
    assert states(desk, sent) == {LIST: "delivered"}


def test_held_until_hold_at_most_has_run_out(desk: Desk) -> None:
    desk.policy(on_failure="hold", hold_at_most="2s")
    desk.fails()
    watch = Watch(desk)
    sent = desk.send()
    assert states(desk, sent, everything=True) == {LIST: "held"}
    assert states(desk, sent) == {}
    desk.wait_taken(sent)
    assert_passed_unscored(desk, watch, sent, "unavailable")


def test_held_and_released_by_an_operator(desk: Desk) -> None:
    desk.policy(on_failure="hold")
    desk.fails()
    watch = Watch(desk)
    sent = desk.send()
    released(desk, sent)
    assert_passed_unscored(desk, watch, sent, "unavailable")


def test_each_recipient_for_itself(desk: Desk) -> None:
    desk.fails()
    desk.fake.on(Stage.RCPT, say("450 busy"), only=OTHER, times=1)
    desk.fake.on(Stage.RCPT, say("550 no such list"), only="gone@lists.test", times=2)
    sent = desk.send(LIST, OTHER, "gone@lists.test")
    wait_states(desk, sent, {LIST: "delivered", OTHER: "delivered"})
    [head, *_] = desk.gate.rows("unscored", "list", "--list", OTHER, "--since", "5m")[-1:]
    assert [one["address"] for one in head["recipients"]] == [OTHER]


# what does not


def test_what_is_scored_leaves_no_entry(desk: Desk) -> None:
    watch = Watch(desk)
    sent = desk.send()
    desk.policy(skip_networks=["0.0.0.0/0"], max_size="1KiB")
    large = desk.send(octets=mail("<large@example.net>", b"x\r\n" * 1000))
    assert watch.counted() == {}
    desk.fails()
    later = desk.send()
    wait_until(lambda: entry(desk, later), "what is written down later is there")
    assert entry(desk, sent, everything=True) is None
    assert entry(desk, large, everything=True) is None


def test_what_is_scored_before_it_is_replayed(desk: Desk) -> None:
    desk.fails()
    mailman_down(desk)
    sent = desk.send()
    desk.scores(3.2)
    desk.comes_back()
    wait_until(desk.believed_alive, "the scorer is back")
    desk.fake.accept()
    assert_did_not_pass_unscored(desk, sent)
    found = entry(desk, sent, everything=True)
    assert found is not None
    assert found.score == 3.2


def test_what_is_held_until_it_is_scored(desk: Desk) -> None:
    desk.policy(on_failure="hold")
    desk.fails()
    sent, spam = desk.send(), ""
    desk.scores(0.3)
    desk.comes_back()
    assert_did_not_pass_unscored(desk, sent)
    desk.fails()
    spam = desk.send()
    desk.scores(7.2)
    desk.comes_back()
    wait_until(lambda: desk.replies(spam) == {"spam-reject (score 7.2)"}, "it has been judged")
    assert states(desk, spam, everything=True) == {LIST: "held"}
    assert states(desk, spam) == {}


def test_what_is_deferred_or_refused_leaves_no_entry(desk: Desk) -> None:
    desk.policy(on_failure="defer")
    desk.fails()
    deferred = desk.send()
    desk.policy()
    desk.fake.on(Stage.RCPT, say("550 no such list"), times=2)
    refused = desk.send()
    assert desk.said[0].startswith("550")
    after = desk.send()
    wait_states(desk, after, {LIST: "delivered"})
    assert entry(desk, deferred, everything=True) is None
    wait_until(lambda: entry(desk, refused, everything=True) is None, "it is taken back")
