"""The real Mailman, seen from behind: its queues, its runners, its REST interface; and when it stands still."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mailgate.core.mailman_queues import QUEUES
from tests.stack.gate import Gate
from tests.stack.mailman import NEEDED, REST_SECRET
from tests.stack.mails import Mail, mails
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until


def watching_gate(stack: Stack, secret: bytes, **settings: object) -> Gate:
    """A gate that watches the stack's Mailman, with that user and password for its REST interface."""
    file = stack.directory / "rest.secret"
    file.write_bytes(secret)
    file.chmod(0o644)
    return stack.start_gate({"mailman": {**stack.mailman.watched, "rest_secret_file": str(file), **settings}})


@pytest.fixture
def watching(stack: Stack) -> Iterator[Gate]:
    """One that is soon out of patience."""
    yield watching_gate(stack, REST_SECRET, stalled_after="3s", spool_when_stalled=True)
    stack.mailman.thaw()


def behind(gate: Gate) -> dict[str, Any]:
    """What `mailgate status` has of Mailman."""
    tree: dict[str, Any] = json.loads(gate.page("/status")[1])["mailman_behind"]
    return tree


def post(stack: Stack, a_list: str, name: str) -> Mail:
    """Post one."""
    mail = mails()["plain"].at(a_list).marked(name)
    stack.post(mail)
    return mail


def test_a_mailman_that_works(stack: Stack, watching: Gate, a_list: str) -> None:
    wait_until(lambda: behind(watching)["version"], "Mailman said its version")
    wait_until(lambda: set(behind(watching)["runners"]) == set(NEEDED), "the runners are seen")
    assert all(behind(watching)["runners"].values())
    drained = watching.metric("mailgate_mailman_drained_total", queue="in")
    mail = post(stack, a_list, "works")
    stack.mailman.wait_arrived(a_list, mail.message_id)
    assert watching.metric("mailgate_mailman_rest_up") == 1
    assert watching.metric("mailgate_mailman_stalled") == 0
    assert watching.metric("mailgate_mailman_runners", runner="in") == 1
    samples = {f'mailgate_mailman_queue_files{{queue="{name}"}}' for name in QUEUES}
    assert {sample for sample in watching.metrics() if "queue_files" in sample} == samples
    assert watching.metric("mailgate_mailman_drained_total", queue="in") >= drained


def test_a_mailman_that_takes_mail_and_does_nothing(stack: Stack, watching: Gate, a_list: str) -> None:
    stack.mailman.freeze("in")
    first = post(stack, a_list, "first")
    watching.wait_for_event("message.delivered", message_id=first.message_id)
    event = watching.wait_for_event("mailman.stalled")
    assert event["cause"].startswith("nothing leaves the queue in: 1 file, the oldest since ")
    assert watching.metric("mailgate_mailman_stalled") == 1
    assert watching.metric("mailgate_mailman_queue_files", queue="in") == 1
    assert watching.metric("mailgate_mailman_queue_oldest_seconds", queue="in") > 1
    second = post(stack, a_list, "second")
    told = watching.wait_for_event("message.spooled", message_id=second.message_id)
    assert "Mailman stands still: nothing leaves the queue in" in str(told["recipients"])
    tree = json.loads(watching.page("/readyz")[1])
    assert (tree["ready"], tree["mailman"]) == (True, "up")
    assert tree["stalled"].startswith("nothing leaves the queue in")
    stack.mailman.thaw()
    for mail in (first, second):
        stack.mailman.wait_arrived(a_list, mail.message_id)
    watching.wait_for_event("mailman.flows")
    wait_until(lambda: not watching.metric("mailgate_mailman_stalled"), "it flows again")
    third = post(stack, a_list, "third")
    watching.wait_for_event("message.delivered", message_id=third.message_id)


def test_a_mailman_that_refuses_the_password(stack: Stack, a_list: str) -> None:
    gate = watching_gate(stack, b"restadmin:wrong")
    event = gate.wait_for_event("mailman.unseen", what="rest")
    assert "401 Unauthorized" in event["cause"]
    assert "wrong" not in gate.log.read_text()
    assert gate.metric("mailgate_mailman_rest_up") == 0
    assert gate.metric("mailgate_mailman_queue_files", queue="in") == 0
    mail = post(stack, a_list, "no-rest")
    stack.mailman.wait_arrived(a_list, mail.message_id)
