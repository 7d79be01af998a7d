"""The stack proves itself: the real Exim hands to the real Mailman, and what the recorders kept is what passed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.children import members
from tests.stack.client import Client
from tests.stack.mails import Mail, big, mails
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until

ROOT = Path(__file__).parents[1]
TAKEN_BY_STOCK_MAILMAN = [mail for mail in mails().values() if not mail.refused and not mail.long_lines]


def as_handed_over(given: bytes) -> bytes:
    """What Exim was given: its Received field, in front, and our transport's client header, the last, taken away."""
    header, blank, body = given.partition(b"\r\n\r\n")
    lines = header.split(b"\r\n")
    assert lines[0].startswith(b"Received: from ")
    assert lines[-1].startswith(b"X-Mailgate-Client: ip=127.0.9.")
    first = next(place for place, line in enumerate(lines) if place and line[:1] not in b" \t")
    return b"\r\n".join(lines[first:-1]) + blank + body


@pytest.mark.parametrize("mail", TAKEN_BY_STOCK_MAILMAN, ids=str)
def test_each_fixture_arrives_unchanged(stack: Stack, a_list: str, mail: Mail) -> None:
    posted = mail.at(a_list)
    assert stack.post(posted).codes == [250]
    seen = wait_until(lambda: stack.to_mailman.transactions, "the message on the wire")[0]
    wait_until(lambda: seen.answered, "Mailman's replies")
    assert seen.delivered == list(posted.recipients)
    assert as_handed_over(seen.octets) == (mail.octets if b"\r\n\r\n" in mail.octets else mail.octets + b"\r\n")
    for recipient in posted.recipients:
        wait_until(lambda at=recipient: stack.mailman.arrived(at), f"arrival at {recipient}")  # type: ignore[misc]
    stack.exim.wait_empty()
    assert stack.exim.bounces() == []


def test_a_big_post(stack: Stack, a_list: str) -> None:
    mail = big().at(a_list)
    assert stack.post(mail).codes == [250]
    seen = stack.to_mailman.wait_for(mail.message_id)
    assert seen.delivered == [a_list]
    assert as_handed_over(seen.octets) == mail.octets
    stack.mailman.wait_arrived(a_list, mail.message_id)


def test_twenty_recipients_in_one_transaction_each_counted_where_it_went(stack: Stack, a_list: str) -> None:
    mail = mails()["many-recipients"].at(a_list).marked("stack-many")
    assert stack.post(mail).codes == [250]
    seen = stack.to_mailman.wait_for(mail.message_id)
    assert len(seen.replies) == 20
    local, _, domain = a_list.partition("@")
    expected = {"bounces": 9, "request": 1, "join": 2, "leave": 2, "confirm": 4}
    for word, count in expected.items():
        assert stack.mailman.arrived(f"{local}-{word}@{domain}")[mail.message_id] == count, word


def test_a_list_that_does_not_exist_bounces(stack: Stack) -> None:
    mail = mails()["plain"].at("nosuch@lists.test").marked("stack-nosuch")
    stack.post(mail)
    bounce = wait_until(stack.exim.bounces, "a bounce")[0]
    assert b"550 Requested action not taken: mailbox unavailable" in bounce


def test_the_plugin_has_mailman_take_long_lines(stack_with_long_lines: Stack) -> None:
    stack = stack_with_long_lines
    mail = mails()["long-line"].at(stack.new_list()).marked("stack-long")
    stack.post(mail)
    seen = stack.to_mailman.wait_for(mail.message_id)
    assert as_handed_over(seen.octets) == mail.octets
    arrival = stack.mailman.wait_arrived(mail.recipients[0], mail.message_id)
    assert max(len(line) for line in arrival.octets.splitlines()) == 10240


def test_frozen_mailman_answers_when_thawed(stack: Stack, a_list: str) -> None:
    mail = mails()["plain"].at(a_list).marked("frozen")
    stack.mailman.freeze()
    stack.post(mail)
    exim_id = stack.exim.wait_for_id(mail.message_id)
    with Client(stack.mailman.address, lmtp=True, hello=False) as client:
        assert client.silent(0.5)
    assert stack.exim.queue() == [exim_id]
    stack.mailman.thaw()
    stack.mailman.wait_arrived(a_list, mail.message_id)


def test_stopped_mailman_is_refused_and_takes_all_when_it_is_back(stack: Stack, a_list: str) -> None:
    mail = mails()["plain"].at(a_list).marked("stopped")
    stack.stop_mailman()
    stack.post(mail)
    stack.exim.wait_for_log(r"Connection refused")
    assert stack.exim.queue()
    stack.start_mailman()
    stack.exim.run_queue()
    stack.mailman.wait_arrived(a_list, mail.message_id)
    assert stack.mailman.arrived(a_list) == {mail.message_id: 1}


def test_killed_mailman_keeps_what_it_took(stack: Stack, a_list: str) -> None:
    mail = mails()["plain"].at(a_list).marked("killed")
    stack.mailman.freeze("in")  # it has taken the post, and not looked at it
    stack.post(mail)
    assert stack.to_mailman.wait_for(mail.message_id).delivered == [a_list]
    stack.mailman.kill()
    stack.mailman.start()
    stack.mailman.wait_arrived(a_list, mail.message_id)


def test_exim_restarts_at_the_same_address(stack: Stack, a_list: str) -> None:
    address = stack.exim.address
    stack.exim.stop()
    with pytest.raises(ConnectionRefusedError):
        Client(address)
    stack.exim.start()
    assert stack.exim.address == address
    mail = mails()["plain"].at(a_list).marked("restarted")
    assert stack.post(mail).codes == [250]
    stack.mailman.wait_arrived(a_list, mail.message_id)


def test_the_gate_is_driven(stack: Stack, a_list: str) -> None:
    gate = stack.start_gate({"log": {"level": "debug"}})
    mail = mails()["plain"].at(a_list).marked("driven")
    stack.post(mail)
    event = gate.wait_for_event("message.delivered", message_id=mail.message_id)
    assert stack.to_mailman.wait_for(mail.message_id).delivered == [a_list]
    assert event["id"].encode() in stack.to_gate.wait_for(mail.message_id).replies[0]
    assert gate.metric("mailgate_recipients_total", outcome="delivered") == 1
    assert gate.metric("mailgate_recipients_total", outcome="no such thing") == 0
    with Client(gate.socket, lmtp=True) as client:
        assert "PIPELINING" in client.extensions
    gate.kill()
    assert not gate.running
    with pytest.raises(ConnectionRefusedError):
        Client(gate.lmtp)
    gate.start()
    assert gate.stop() == 0
    assert gate.noise() == ""


SECOND_STACK = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's & has us ignore
from tests.stack.stack import Stack
from tests.stack.children import members
from tests.stack.waiting import wait_until
stack = Stack()
try:
    stack.mailman.begin()
    stack.exim.start()
    wait_until(lambda: len(members(stack.mailman._child.pid)) > 1, "Mailman's master has started others")
    stack.mailman.freeze()  # a stopped process can't end itself
    print(stack.directory, stack.exim._child.pid, stack.mailman._child.pid, flush=True)
    sys.stdin.read()
finally:
    stack.close()
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_nothing_is_left_of_a_run_that_is_ended(end: signal.Signals) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", SECOND_STACK], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with run:
        assert run.stdout is not None
        directory, *groups = run.stdout.readline().split()
        assert any(members(int(group)) for group in groups)
        run.send_signal(end)
        run.wait(60)
    assert run.returncode != 0
    wait_until(lambda: not any(members(int(group)) for group in groups), f"the end of {groups}")
    assert [process for process in Path("/proc").glob("[0-9]*") if directory in _command_line(process)] == []
    wait_until(lambda: not Path(directory).exists(), "the end of its files")


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except FileNotFoundError:  # it ended while we looked
        return ""
