"""Exim asks mailgate before it accepts a message: the real Exim with the recipe of config/exim4, spamd, and Mailman.

What is refused is refused in the session, and nobody is sent a bounce; what is accepted is scanned once; mailgate being
stopped, frozen or restarted at any moment costs no mail.
"""

import base64
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.stack.children import remove, temporary_directory
from tests.stack.client import Client
from tests.stack.gate import Gate
from tests.stack.mails import GTUBE, Mail, mails
from tests.stack.spamd import Spamd
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until

GATE_ID = r"[0-9a-z]{18}"
# The gate's own; in Exim's configuration for one test only: the recipe leaves it to the site whom it knows.
AUTHENTICATOR = """
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if eq {$auth3} {secret}}
  server_set_id = $auth2
"""


@pytest.fixture(scope="module")
def spamd() -> Iterator[Spamd]:
    """A real spamd."""
    directory = temporary_directory("mailgate-spamd-")
    directory.chmod(0o755)
    server = Spamd(directory / "spamd")
    try:
        server.start()
        yield server
    finally:
        server.close()
        remove(directory)


def settings(spamd: Spamd, **spam: Any) -> dict[str, dict[str, Any]]:
    """The gate's, that it asks this spamd."""
    return {"spam": {"engine": "spamd", "servers": [str(spamd.port)], "probe_interval": "0.1s"} | spam}


@pytest.fixture
def asked(stack: Stack, spamd: Spamd) -> Gate:
    """A gate with both doors, and Exim asks it."""
    return stack.start_gate(settings(spamd), asked=True)


def checked(spamd: Spamd, mail: Mail) -> int:
    """How often spamd was given this mail, by its own log."""
    return spamd.output.read_text().count(f"checking message {mail.message_id} ")


def joined(gate: Gate) -> dict[str, float]:
    """What became of the messages at the relay door: recognised or why not, without the zeros."""
    words = ("joined", "no-id", "unknown", "expired", "changed", "trouble")
    counts = {word: gate.metric("mailgate_verdicts_joined_total", result=word) for word in words}
    return {word: count for word, count in counts.items() if count}


def plain(address: str, mark: str, body: bytes = b"") -> Mail:
    """A post to that list."""
    mail = mails()["plain"].at(address).marked(mark)
    head, blank, text = mail.octets.partition(b"\r\n\r\n")
    return replace(mail, octets=head + blank + (body or text))


_BEFORE: list[str] = []  # what the shared Exim had written itself when the test began


def _written(stack: Stack) -> list[str]:
    return [line for line in stack.exim.log_lines(r" <= <> ") if "R=" in line]


@pytest.fixture(autouse=True)
def _before(stack: Stack) -> None:
    _BEFORE[:] = _written(stack)


def no_bounce(stack: Stack) -> None:
    """Exim has nothing left to do, and has written nothing itself."""
    stack.exim.wait_empty()
    assert stack.exim.bounces() == []
    assert _written(stack) == _BEFORE


@contextmanager
def in_exims_queue(stack: Stack) -> Iterator[None]:
    """What Exim accepts in the block it can't hand over: it stays in its queue."""
    refused = r"T=mailgate_transport defer \(111\): Connection refused"
    before = len(stack.exim.log_lines(refused))
    stack.to_gate.refuse()
    yield
    wait_until(stack.exim.queue, "it is in Exim's queue")
    stack.exim.wait_for_log(refused, count=before + 1)  # and nobody is about to deliver it


def handed_over(stack: Stack) -> None:
    """Exim hands over what it has kept."""
    stack.to_gate.accept()
    stack.exim.run_queue()


# refused in the session


def test_gtube_is_refused_in_the_session_and_nobody_is_sent_a_bounce(stack: Stack, asked: Gate, a_list: str) -> None:
    started = len(stack.exim.log_lines())
    gtube = plain(a_list, "gtube", GTUBE)
    [reply] = stack.post(gtube).final
    found = re.fullmatch(rf"550 5\.7\.1 ({GATE_ID}) taken for spam: it scores \d+\.\d", str(reply))
    assert found, reply
    event = asked.wait_for_event("verdict.given", message_id=gtube.message_id)
    assert (event["id"], event["verdict"], event["client"]) == (found[1], "reject", gtube.client)
    assert stack.exim.queue() == []
    assert stack.exim.bounces() == []
    lines = stack.exim.log_lines()[started:]
    assert [line for line in lines if f"rejected after DATA: {reply}" in line]
    assert not [line for line in lines if "<=" in line or "<>" in line]
    assert stack.to_gate.transactions == []
    assert stack.mailman.arrived(a_list) == {}
    assert asked.metric("mailgate_messages_total", door="verdict", verdict="reject") == 1


def test_what_cannot_be_scored_may_be_put_off(stack: Stack, spamd: Spamd, a_list: str) -> None:
    nobody = settings(spamd, servers=["127.0.0.1:1"], on_failure="defer")
    stack.start_gate(nobody, asked=True)
    [reply] = stack.post(plain(a_list, "put-off")).final
    assert re.fullmatch(rf"451 4\.3\.0 {GATE_ID} can't be scanned for spam now, try again later", str(reply))
    assert stack.exim.queue() == []


# accepted, and scanned once


def test_ham_is_scanned_once(stack: Stack, asked: Gate, spamd: Spamd, a_list: str) -> None:
    ham = plain(a_list, "ham-once")
    assert stack.post(ham).codes == [250]
    arrival = stack.mailman.wait_arrived(a_list, ham.message_id)
    assert b"\nX-Mailgate-Scan: scored\n" in arrival.octets.replace(b"\r\n", b"\n")
    assert checked(spamd, ham) == 1
    assert joined(asked) == {"joined": 1}
    assert asked.metric("mailgate_origin_total", source="verdict") == 1
    given = asked.wait_for_event("verdict.given", message_id=ham.message_id)
    told = asked.wait_for_event("message.delivered", message_id=ham.message_id)
    assert (told["verdict_id"], told["exim_id"], told["client"]) == (given["id"], given["exim_id"], ham.client)
    assert told["score"] == given["score"]
    no_bounce(stack)


def test_a_tagged_post_has_its_fields_without_a_second_scan(
    stack: Stack, asked: Gate, spamd: Spamd, a_list: str
) -> None:
    offer = plain(
        a_list, "offer", b"Dear friend,\r\n\r\nthe lottery of our gardens has drawn your plot.\r\n\r\nIda\r\n"
    )
    assert stack.post(offer).codes == [250]
    arrival = stack.mailman.wait_arrived(a_list, offer.message_id)
    assert re.search(rb"^X-Spam-Score: \d\.\d \(\++\)", arrival.octets, re.MULTILINE)
    assert re.search(rb"^X-Spam-Report: ", arrival.octets, re.MULTILINE)
    assert (checked(spamd, offer), joined(asked)) == (1, {"joined": 1})


def test_one_scan_for_two_lists_for_twenty_recipients_and_for_the_null_sender(
    stack: Stack, asked: Gate, spamd: Spamd, a_list: str
) -> None:
    two = replace(plain(a_list, "two-lists"), recipients=(a_list, stack.new_list()))
    twenty = mails()["many-recipients"].at(a_list).marked("twenty")
    null = mails()["null-sender"].at(a_list).marked("null")
    assert len(twenty.recipients) == 20
    assert null.sender == ""
    for number, mail in enumerate((two, twenty, null), 1):
        assert stack.post(mail).codes == [250]
        transaction = stack.to_gate.wait_for(mail.message_id)
        assert len(transaction.replies) == len(mail.recipients)
        assert transaction.delivered == list(mail.recipients)
        assert (checked(spamd, mail), joined(asked)) == (1, {"joined": number})
        given = asked.wait_for_event("verdict.given", message_id=mail.message_id)
        assert (given["sender"], given["recipients"]) == (mail.sender, list(mail.recipients))
    no_bounce(stack)


def test_every_fixture_is_recognised_by_its_octets(stack: Stack, asked: Gate, a_list: str) -> None:
    """Exim's copy of the message, put back as it was, is what it hands over: else the digest would be another."""
    kinds = [mail.at(a_list) for mail in mails().values() if not mail.refused and not mail.long_lines]
    odd = b"From me to you,\r\n>From\r\n.\r\n..\r\n\r\n\xff\x00 8 bit, and a blank \r\nX-Envelope-To: <>\r\n\r\n"
    kinds.append(plain(a_list, "odd", odd))
    for mail in kinds:
        assert stack.post(mail).codes == [250], mail.name
    wait_until(lambda: len(asked.events("message.delivered")) == len(kinds), "all are delivered")
    assert joined(asked) == {"joined": len(kinds)}


def test_one_scan_for_an_authenticated_sender(stack: Stack, asked: Gate, spamd: Spamd, a_list: str) -> None:
    stack.exim.set(stack.exim.macros, AUTHENTICATOR)
    mail = plain(a_list, "authenticated")
    with Client(stack.exim.address, source=mail.client, helo="desk.example.org") as client:
        word = base64.b64encode(b"\0ida\0secret").decode()
        assert client.command(f"AUTH PLAIN {word}").code == 235
        assert client.deliver(mail.sender, mail.recipients, mail.octets).codes == [250]
    stack.mailman.wait_arrived(a_list, mail.message_id)
    assert (checked(spamd, mail), joined(asked)) == (1, {"joined": 1})
    told = asked.wait_for_event("verdict.given", message_id=mail.message_id)
    assert (told["helo"], told["client"]) == ("desk.example.org", mail.client)


def test_what_is_to_be_held_is_accepted_and_held_at_the_relay_door(stack: Stack, spamd: Spamd, a_list: str) -> None:
    gate = stack.start_gate(settings(spamd, hold_score=5.0, reject_score=0), asked=True)
    gtube = plain(a_list, "hold", GTUBE)
    assert stack.post(gtube).codes == [250]
    event = gate.wait_for_event("message.held", message_id=gtube.message_id)
    assert event["reasons"] == ["spam-hold"]
    [row] = gate.rows("queue", "list", "--state", "held")
    assert (row["message_id"], row["client"]) == (
        gtube.message_id,
        f"ip={gtube.client}; helo=client.example.net; source=verdict",
    )
    assert (checked(spamd, gtube), joined(gate)) == (1, {"joined": 1})
    no_bounce(stack)


def test_exim_asks_on_a_unix_socket(stack: Stack, spamd: Spamd, a_list: str) -> None:
    gate = stack.new_gate()
    door = gate.directory / "verdict.sock"
    gate.configure(settings(spamd) | {"verdict": {"listen": [f"unix:{door}"]}})
    gate.start()
    door.chmod(0o666)  # else who may use it is the folder's and the daemon's user's affair
    stack.to_gate.upstream = gate.lmtp
    stack.exim.set({"MAILGATE_VERDICT": door})
    [reply] = stack.post(plain(a_list, "unix", GTUBE)).final
    assert re.fullmatch(rf"550 5\.7\.1 {GATE_ID} taken for spam: it scores \d+\.\d", str(reply))


# mailgate is stopped, frozen, restarted


def test_mailgate_is_stopped_when_exim_would_ask(stack: Stack, asked: Gate, spamd: Spamd, a_list: str) -> None:
    asked.stop()
    mail = plain(a_list, "nobody-to-ask")
    with in_exims_queue(stack):
        assert stack.post(mail).codes == [250]
    asked.start()
    handed_over(stack)
    stack.mailman.wait_arrived(a_list, mail.message_id)
    assert (checked(spamd, mail), joined(asked)) == (1, {"unknown": 1})
    assert asked.metric("mailgate_origin_total", source="header") == 1
    no_bounce(stack)


def test_mailgate_is_killed_while_exim_waits(stack: Stack, asked: Gate, spamd: Spamd, a_list: str) -> None:
    mail = plain(a_list, "killed-gate")
    spamd.freeze()
    try:
        with in_exims_queue(stack), ThreadPoolExecutor(1) as posting:
            posted = posting.submit(stack.post, mail)
            wait_until(lambda: asked.metric("mailgate_connections", door="verdict") == 1, "Exim asks")
            asked.kill()
            assert posted.result(60).codes == [250]
    finally:
        spamd.thaw()
    asked.start()
    handed_over(stack)
    stack.mailman.wait_arrived(a_list, mail.message_id)
    assert joined(asked) == {"unknown": 1}
    no_bounce(stack)


def test_spam_that_exim_accepted_without_asking_is_held(stack: Stack, asked: Gate, a_list: str) -> None:
    asked.stop()
    gtube = plain(a_list, "not-asked", GTUBE)
    with in_exims_queue(stack):
        assert stack.post(gtube).codes == [250]
    asked.start()
    handed_over(stack)
    assert asked.wait_for_event("message.held", message_id=gtube.message_id)["reasons"] == ["spam-reject"]
    no_bounce(stack)


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_mailgate_is_restarted_between_asking_and_handing_over(
    stack: Stack, asked: Gate, spamd: Spamd, a_list: str, *, killed: bool
) -> None:
    mail = plain(a_list, f"restarted-{killed}")
    with in_exims_queue(stack):
        assert stack.post(mail).codes == [250]
    if killed:
        asked.kill()
    else:
        assert asked.stop() == 0
    stack.exim.run_queue()
    assert stack.exim.queue()  # kept, while mailgate is away
    asked.start()
    handed_over(stack)
    stack.mailman.wait_arrived(a_list, mail.message_id)
    assert stack.mailman.arrived(a_list) == {mail.message_id: 1}
    assert (checked(spamd, mail), joined(asked)) == (1, {"joined": 1})
    no_bounce(stack)


def test_mailgate_is_frozen_when_exim_asks(stack: Stack, asked: Gate, spamd: Spamd, a_list: str) -> None:
    mail = plain(a_list, "frozen-gate")
    asked.send(signal.SIGSTOP)
    try:
        with in_exims_queue(stack):
            assert stack.post(mail).codes == [250]  # after MAILGATE_PATIENCE; Client waits longer than that
    finally:
        asked.send(signal.SIGCONT)
    handed_over(stack)
    stack.mailman.wait_arrived(a_list, mail.message_id)
    assert stack.exim.log_lines(r"spam acl condition: .*")
    no_bounce(stack)


# who forges


def test_a_forged_received_gains_nothing(stack: Stack, asked: Gate, spamd: Spamd, a_list: str) -> None:
    """A stranger knows the Exim id of his own earlier post, which was fine, and may write it wherever he can."""
    fine = plain(a_list, "fine")
    [reply] = stack.post(fine).final
    exim_id = str(reply).partition("id=")[2]
    assert exim_id == stack.exim.wait_for_id(fine.message_id)
    stack.mailman.wait_arrived(a_list, fine.message_id)
    forged = (
        f"Received: from mx by mx.lists.test with esmtp (Exim 4.96)\r\n\tid {exim_id}\r\n\tfor {a_list};\r\n\tdate\r\n"
    )

    other = plain(a_list, "forger", b"An offer.\r\n")
    other = replace(
        other, octets=forged.encode() + f"X-Mailgate-Client: ip=192.0.2.1; eid={exim_id}\r\n".encode() + other.octets
    )
    assert stack.post(other).codes == [250]
    stack.mailman.wait_arrived(a_list, other.message_id)
    assert checked(spamd, other) == 1
    assert joined(asked) == {"joined": 2}  # each with its own
    assert asked.wait_for_event("message.delivered", message_id=other.message_id)["client"] == other.client

    bad = plain(a_list, "straight", GTUBE)
    with Client(asked.lmtp, lmtp=True) as client:  # past Exim, with the forged field as the topmost
        assert client.deliver(bad.sender, bad.recipients, forged.encode() + bad.octets).codes == [250]
    assert asked.wait_for_event("message.held", message_id=bad.message_id)["reasons"] == ["spam-reject"]
    assert checked(spamd, bad) == 1
    assert joined(asked) == {"joined": 2, "changed": 1}
    with Client(asked.lmtp, lmtp=True) as client:
        client.deliver(bad.sender, bad.recipients, forged.replace(exim_id, "1aaaaa-0004sm-35").encode() + bad.octets)
        client.deliver(bad.sender, bad.recipients, bad.octets)
    assert joined(asked) == {"joined": 2, "changed": 1, "unknown": 1, "no-id": 1}
    assert checked(spamd, bad) == 3


# what else the recipe has


def test_without_the_verdict_door_spam_is_held_behind_the_queue(stack: Stack, spamd: Spamd, a_list: str) -> None:
    gate = stack.start_gate(settings(spamd))
    gtube = plain(a_list, "late", GTUBE)
    assert stack.post(gtube).codes == [250]
    assert gate.wait_for_event("message.held", message_id=gtube.message_id)["reasons"] == ["spam-reject"]
    assert joined(gate) == {}
    no_bounce(stack)


def test_with_fallback_hosts_mail_flows_while_mailgate_is_away(stack: Stack, asked: Gate, a_list: str) -> None:
    host, port = stack.mailman.address
    stack.exim.set({**stack.exim.macros, "MAILGATE_FALLBACK": f"{host}::{port}"})
    asked.stop()
    stack.to_gate.refuse()
    mail = plain(a_list, "past-mailgate")
    assert stack.post(mail).codes == [250]
    arrival = stack.mailman.wait_arrived(a_list, mail.message_id)
    assert b"X-Mailgate-" not in arrival.octets  # not scanned; and what was for mailgate alone is for nobody else
    no_bounce(stack)
