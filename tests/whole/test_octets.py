"""Exim → mailgate → Mailman with every mail of fixtures/: what comes out is what went in, behind the gate's own fields.

All are posted once, in one run; each test looks at one of them. Envelopes and octets are compared on the wire.
"""

import dkim
import pytest

from tests.stack.client import Client
from tests.stack.gate import Gate
from tests.stack.mails import Mail, big, dns, mails
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until
from tests.whole import passage
from tests.whole.passage import Passage, as_posted, expected_arrivals, field_in_front, gates_own, without_client_field

_PLAIN = [name for name, mail in mails().items() if not mail.refused and not mail.long_lines]
ALL = [*_PLAIN, "big", "long-line"]
_ASCII_PATHS = {"utf8-sender": "xn--jrg-sna@example.org"}  # as Exim writes them for Mailman (utf8_downconvert)


@pytest.fixture(scope="module")
def passed(_session_stack: Stack, stack_with_long_lines: Stack) -> dict[str, Passage]:
    """Every mail that a Mailman takes, after its passage; the one with long lines to the Mailman that takes those."""
    found: dict[str, Passage] = {}
    most = [*(mails()[name] for name in _PLAIN), big()]
    for stack, posts in ((_session_stack, most), (stack_with_long_lines, [mails()["long-line"]])):
        stack.restore()
        stack.start_gate()
        found |= passage.passages(stack, posts)
        stack.exim.wait_empty()
        assert stack.exim.bounces() == []
        stack.direct()
    return found


@pytest.mark.parametrize("name", ALL)
def test_octets_are_the_same_behind_the_gates_own_fields(passed: dict[str, Passage], name: str) -> None:
    one = passed[name]
    received, gate_id, rest = gates_own(one.behind.octets)
    assert received.startswith("from mx.lists.test ([127.0.0.1]) by gate.lists.test (mailgate) with")
    assert f" id {gate_id}" in received
    assert rest == without_client_field(one.in_front.octets)
    of_exim, rest = field_in_front(rest, "Received")
    assert of_exim.startswith(f"from [{one.mail.client}] (helo=client.example.net) by mx.lists.test")
    assert rest == as_posted(one.mail)


@pytest.mark.parametrize("name", ALL)
def test_the_envelope_is_the_same(passed: dict[str, Passage], name: str) -> None:
    one = passed[name]
    assert one.behind.sender == one.in_front.sender == _ASCII_PATHS.get(name, one.mail.sender)
    assert one.behind.accepted == one.in_front.accepted == list(one.mail.recipients)
    assert (b"BODY=8BITMIME" in one.behind.mail) == (b"BODY=8BITMIME" in one.in_front.mail)
    assert f"SIZE={len(one.behind.octets)}".encode() in one.behind.mail


@pytest.mark.parametrize("name", ALL)
def test_each_recipient_has_it_exactly_once_and_was_answered_so(passed: dict[str, Passage], name: str) -> None:
    one = passed[name]
    assert one.arrived == expected_arrivals(one.mail)
    gate_id = gates_own(one.behind.octets)[1]
    assert one.in_front.replies == [f"250 2.0.0 {gate_id} delivered: Ok".encode()] * len(one.mail.recipients)


def test_the_dkim_signature_verifies_behind_the_gate(passed: dict[str, Passage]) -> None:
    def txt(name: bytes, timeout: int = 5) -> bytes:
        return dns()[name.decode().rstrip(".")].encode()

    octets = passed["dkim"].behind.octets
    assert dkim.verify(octets, dnsfunc=txt)
    subject = octets.partition(b"\r\nSubject: ")[2].partition(b"\r\n")[0]
    assert not dkim.verify(octets.replace(subject, subject + b" "), dnsfunc=txt)


def test_a_stock_mailman_refuses_long_lines_and_exim_is_told_so(stack: Stack, gate: Gate, a_list: str) -> None:
    mail = mails()["long-line"].at(a_list)
    assert stack.post(mail).codes == [250]
    gate_id = gate.wait_for_event("message.rejected")["id"]
    bounce = wait_until(stack.exim.bounces, "a bounce")[0]
    assert f"500 5.6.0 {gate_id} Line too long (see RFC5321 4.5.3.1.6)".encode() in bounce
    assert not stack.mailman.arrived(a_list)
    stack.exim.wait_empty()


def test_exim_writes_a_utf8_reverse_path_in_ascii_as_it_does_without_the_gate(stack: Stack, a_list: str) -> None:
    mail = mails()["utf8-sender"].at(a_list)
    assert stack.post(mail.marked("without-gate")).codes == [250]
    without = stack.to_mailman.wait_for("<without-gate@example.org>")
    gate = stack.start_gate()
    assert stack.post(mail).codes == [250]
    behind = stack.to_mailman.wait_for(mail.message_id)
    assert behind.sender == without.sender == "xn--jrg-sna@example.org"
    assert gate.wait_for_event("message.delivered")
    stack.mailman.wait_arrived(a_list, mail.message_id)


def test_a_utf8_recipient_is_no_list_and_exim_is_told_so(stack: Stack, gate: Gate) -> None:
    mail = mails()["utf8-recipient"]
    assert stack.post(mail.at("none@lists.test")).codes == [250]
    event = gate.wait_for_event("message.rejected")
    words = rf"550 5\.1\.1 {event['id']} Requested action not taken"
    stack.exim.wait_for_log(rf"{event['exim_id']} \*\* .*{words}")
    assert event["id"].encode() in wait_until(stack.exim.bounces, "a bounce")[0]


@pytest.mark.parametrize(
    ("sender", "recipient", "reply"),
    [
        ("jörg@example.org", "list@lists.test", "550 5.6.7 {id} the list server takes no non-ASCII reverse-path"),
        ("ida@example.org", "gärten@lists.test", "553 5.6.7 {id} the list server takes no non-ASCII recipient"),
    ],
)
def test_utf8_addresses_that_come_to_the_gate_are_refused_with_their_own_code(
    stack: Stack, gate: Gate, sender: str, recipient: str, reply: str
) -> None:
    """An Exim without utf8_downconvert would hand them over so."""
    with Client(gate.lmtp, lmtp=True) as client:
        [said] = client.deliver(sender, [recipient], mails()["utf8-sender"].octets, "SMTPUTF8").final
    assert str(said) == reply.format(id=gate.wait_for_event("message.rejected")["id"])
    assert stack.to_mailman.transactions == []


def test_forged_fields_are_cut_and_foreign_ones_stay(stack: Stack, gate: Gate, a_list: str) -> None:
    forged = (
        b"X-Mailgate-Client: ip=192.0.2.66\r\n",
        b"x-SPAM-score: -99\r\n\t(very\r\n\tgood)\r\n",
        b"X-Spam-Flag : NO\r\n",
        b"X-Mailgate-Id: 0000000000\r\n",
        b"Authentication-Results: (folded\r\n\tcomment) gate.lists.test; dkim=pass header.d=example.org\r\n",
    )
    foreign = (
        b"Authentication-Results: mx.example.net; spf=pass smtp.mailfrom=example.org\r\n",
        b"X-Spam-Scanner: elsewhere\r\n",
    )
    plain = mails()["plain"].at(a_list)
    mail = Mail("forged", "", plain.sender, plain.recipients, plain.client, b"".join(forged + foreign) + plain.octets)
    assert stack.post(mail).codes == [250]
    in_front = stack.to_gate.wait_for(mail.message_id).octets
    assert all(field in in_front for field in forged[1:])  # the first is cut by Exim, which writes its own
    behind = stack.to_mailman.wait_for(mail.message_id).octets
    _, gate_id, rest = gates_own(behind)
    assert field_in_front(rest, "Received")[1] == b"".join(foreign) + plain.octets
    assert gate_id == gate.wait_for_event("message.delivered")["id"]
    assert "X-Mailgate-Client" not in behind.decode()


def test_a_client_field_is_cut_whoever_wrote_it(stack: Stack, gate: Gate, a_list: str) -> None:
    """Exim cuts the forged one and adds its own; were it set up without headers_remove, both would come to the gate."""
    mail = mails()["plain"].at(a_list)
    with Client(gate.lmtp, lmtp=True) as client:
        octets = b"X-MAILGATE-CLIENT: ip=192.0.2.66\r\n" + mail.octets
        assert client.deliver(mail.sender, mail.recipients, octets).codes == [250]
    assert b"x-mailgate-client" not in stack.to_mailman.wait_for(mail.message_id).octets.lower()
