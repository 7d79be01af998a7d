"""Mailman goes and comes back, so does the gate: mail is taken all the while, and all of it arrives, once."""

import signal
import threading
from collections import Counter

import pytest

from tests.stack.gate import Gate
from tests.stack.mails import big, mails
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until
from tests.whole.posts import arrived, expected, numbered, post, wait_arrived, wait_spool_empty, waiting


@pytest.fixture
def lists(stack: Stack) -> list[str]:
    """Three new lists."""
    return [stack.new_list() for _ in range(3)]


def test_mailman_is_stopped_and_mail_goes_on_being_taken(stack: Stack, gate: Gate, lists: list[str]) -> None:
    before, early, later, last = (numbered(mark, 3, lists) for mark in ("before", "early", "later", "last"))
    post(stack, before)
    wait_arrived(stack, before)

    stack.stop_mailman()
    post(stack, early)
    stack.exim.wait_empty()
    assert waiting(gate) == dict.fromkeys(expected(early), "pending")
    assert gate.metric("mailgate_recipients_total", outcome="spooled") == expected(early).total()
    assert gate.metric("mailgate_spool_messages", state="pending") == len(early)
    assert gate.metric("mailgate_breaker_open", upstream="mailman") == 1

    gate.restart()
    assert waiting(gate) == dict.fromkeys(expected(early), "pending")
    post(stack, later)
    stack.exim.wait_empty()
    gate.kill()
    gate.start()
    assert waiting(gate) == dict.fromkeys(expected([*early, *later]), "pending")

    stack.start_mailman()
    post(stack, last)
    everything = [*before, *early, *later, *last]
    wait_arrived(stack, everything)
    wait_spool_empty(gate)
    assert arrived(stack, lists) == expected(everything)
    spooled = expected([*early, *later]).total() + gate.metric("mailgate_recipients_total", outcome="spooled")
    assert gate.metric("mailgate_replays_total", outcome="delivered") == spooled
    assert gate.metric("mailgate_upstream_up", upstream="mailman") == 1
    assert stack.exim.queue() == []
    assert stack.exim.bounces() == []


def test_mailman_is_frozen_and_nothing_is_repeated_that_it_never_saw(stack: Stack, lists: list[str]) -> None:
    gate = stack.start_gate({"mailman": {"connect_timeout": "1s", "reply_timeout": "1s"}})
    posts = numbered("frozen", 6, lists)
    stack.mailman.freeze()
    post(stack, posts)
    stack.exim.wait_empty()
    assert waiting(gate) == dict.fromkeys(expected(posts), "pending")
    stack.mailman.thaw()
    wait_arrived(stack, posts)
    wait_spool_empty(gate)
    assert arrived(stack, lists) == expected(posts)


def test_mailman_freezes_on_a_message_and_each_repeat_was_shown_uncertain(stack: Stack, lists: list[str]) -> None:
    gate = stack.start_gate({"mailman": {"reply_timeout": "4s"}})  # a busy Mailman needs some time for a big post
    known = numbered("known", 3, lists)
    mail = big(5 * 2**20).at(lists[0]).marked("caught")  # big, so that Mailman is at it for a while
    post(stack, [mail])
    wait_until(lambda: stack.to_mailman.with_id(mail.message_id), "the final dot has passed")
    stack.mailman.freeze()
    assert stack.to_mailman.with_id(mail.message_id)[0].replies == []
    stack.exim.wait_empty()
    shown = waiting(gate)
    assert shown == {(lists[0], mail.message_id): "uncertain"}
    post(stack, known)
    stack.mailman.thaw()
    everything = [mail, *known]
    wait_arrived(stack, everything)
    wait_spool_empty(gate)
    repeats = arrived(stack, lists) - expected(everything)
    assert set(repeats) <= set(shown)
    assert repeats.total() <= 1


def test_the_gate_is_stopped_and_exim_keeps_the_mail(stack: Stack, gate: Gate, lists: list[str]) -> None:
    posts = numbered("stopped", 4, lists)
    stack.to_gate.refuse()
    gate.stop()
    post(stack, posts)
    stack.exim.wait_for_log(r"Connection refused|== ", count=len(posts))
    assert len(stack.exim.queue()) == len(posts)
    gate.start()
    stack.to_gate.accept()
    stack.exim.run_queue()
    wait_arrived(stack, posts)
    assert arrived(stack, lists) == expected(posts)
    assert stack.exim.bounces() == []


def test_the_gate_is_frozen_and_goes_on_where_it_was(stack: Stack, gate: Gate, lists: list[str]) -> None:
    posts = numbered("thawed", 4, lists)
    gate.send(signal.SIGSTOP)
    post(stack, posts)
    wait_until(lambda: len(stack.to_gate.dialogues) >= len(posts), "Exim is waiting for the gate")
    assert len(stack.exim.queue()) == len(posts)
    gate.send(signal.SIGCONT)
    wait_arrived(stack, posts)
    stack.exim.wait_empty()
    assert arrived(stack, lists) == expected(posts)


def test_an_operator_pauses_and_resumes_while_mail_flows(stack: Stack, gate: Gate, lists: list[str]) -> None:
    flowing, paused = numbered("flowing", 20, lists), numbered("paused", 6, lists)
    poster = threading.Thread(target=post, args=(stack, flowing), name="poster")
    poster.start()
    wait_until(lambda: stack.to_mailman.transactions, "mail flows")
    gate.cli("pause", "--reason", "the archive is moved")
    wait_until(lambda: gate.metric("mailgate_paused") == 1, "the gate has noticed")
    poster.join(60)
    assert not poster.is_alive()
    stack.exim.wait_empty()
    sent = len(stack.to_mailman.transactions)
    post(stack, paused)
    stack.exim.wait_empty()
    assert len(stack.to_mailman.transactions) == sent
    shown = waiting(gate)
    assert expected(paused).keys() <= shown.keys()
    assert set(shown.values()) == {"pending"}
    gate.cli("resume")
    wait_arrived(stack, [*flowing, *paused])
    wait_spool_empty(gate)
    assert arrived(stack, lists) == expected([*flowing, *paused])


def test_a_list_that_does_not_exist_is_refused_under_the_gate_id(stack: Stack, gate: Gate) -> None:
    mail = mails()["plain"].at("nosuch@lists.test")
    post(stack, [mail])
    event = gate.wait_for_event("message.rejected")
    words = rf"550 5\.1\.1 {event['id']} Requested action not taken: mailbox unavailable"
    stack.exim.wait_for_log(rf"{event['exim_id']} \*\* nosuch@lists.test .*{words}")
    assert event["id"].encode() in wait_until(stack.exim.bounces, "a bounce")[0]
    assert waiting(gate) == {}


def test_a_list_deleted_while_its_mail_is_spooled(stack: Stack, gate: Gate, lists: list[str]) -> None:
    """What it was accepted for is gone: the mail is neither lost nor tried for ever, and goes when the list is back."""
    gone = lists[1]
    posts = numbered("deleted", 3, lists)
    stack.to_mailman.refuse()
    post(stack, posts)
    stack.exim.wait_empty()
    stack.mailman.delete_list(gone)
    stack.to_mailman.accept()
    failed = {(gone, mail.message_id) for mail in posts if gone in mail.recipients}
    left = Counter(expected(posts))
    for key in failed:
        del left[key]
    wait_until(lambda: arrived(stack, lists) == left, "what can arrive has arrived")
    wait_until(lambda: waiting(gate) == dict.fromkeys(failed, "failed"), "the rest has failed and is kept")
    assert gate.metric("mailgate_spool_messages", state="failed") == len(failed)
    replies = {one["reply"] for row in gate.rows("queue", "list") for one in row["recipients"]}
    assert replies == {"550 Requested action not taken: mailbox unavailable"}
    assert stack.exim.bounces() == []  # no backscatter: it had been accepted
    assert stack.mailman.create_list(gone.partition("@")[0]) == gone
    gate.cli("queue", "replay", "--state", "failed")
    wait_arrived(stack, posts)
    wait_spool_empty(gate)
    assert arrived(stack, lists) == expected(posts)
