"""Who vouches for a sender, from the client's host to Mailman: Exim, gate and Mailman in a row, and a DNS server.

Mailman can't check SPF, since it never sees the client: of the gate that it trusts it takes over what it says.
"""

from collections.abc import Iterator

import pytest

from tests.stack.dns import DnsServer
from tests.stack.mails import Mail, dns, mails
from tests.stack.passed_on import post_from, take_from_front
from tests.stack.stack import Stack

AUTHORS_HOST, STRANGER = "192.0.2.7", "192.0.2.66"


@pytest.fixture(scope="module")
def names() -> Iterator[DnsServer]:
    """The author's domain lets one host send for it, has the key of its signature, and wants all else rejected."""
    with DnsServer() as server:
        server.add("example.org", "TXT", f'"v=spf1 ip4:{AUTHORS_HOST} -all"')
        server.add("_dmarc.example.org", "TXT", '"v=DMARC1; p=reject"')
        for name, text in dns().items():
            server.add(name, "TXT", text.encode())
        yield server


@pytest.fixture(scope="module")
def trusting(stack_with_long_lines: Stack, names: DnsServer) -> Iterator[Stack]:
    """Exim asks the gate's verdict door, and Mailman believes the gate."""
    stack = stack_with_long_lines
    stack.restore()
    auth = dict.fromkeys(("spf", "dkim", "dmarc", "arc"), True)
    enforced = {"match": "strict-*@*", "dmarc_enforce": "reject"}
    stack.start_gate({"auth": auth | {"nameservers": [str(names.at)], "lists": [enforced]}}, asked=True)
    take_from_front(stack)
    yield stack
    stack.direct()


def posted(stack: Stack, mail: Mail, host: str) -> str:
    """What the only field of results says that the archive has, after a post that Exim took."""
    assert post_from(stack, mail, host).codes == [250]
    arrival = stack.mailman.wait_arrived(mail.recipients[0], mail.message_id)
    head = arrival.octets.partition(b"\n\n")[0].decode("utf-8", "replace").replace("\n\t", " ").replace("\n ", " ")
    found = [line for line in head.splitlines() if line.lower().startswith("authentication-results:")]
    assert len(found) == 1, found
    return " ".join(found[0].split())


def test_mailman_takes_over_what_the_gate_found_out(trusting: Stack) -> None:
    said = posted(trusting, mails()["dkim"].at(trusting.new_list()), AUTHORS_HOST)
    assert said.startswith("Authentication-Results: mailman.lists.test; ")
    assert "spf=pass smtp.mailfrom=committee@example.org" in said
    assert "dkim=pass header.d=example.org" in said
    assert "dmarc=pass header.from=example.org" in said


def test_it_believes_nobody_else(trusting: Stack) -> None:
    plain = mails()["dkim"].at(trusting.new_list()).marked("sender-forged")
    forged = b"Authentication-Results: gate.lists.test; spf=pass smtp.mailfrom=forged@example.org\r\n"
    mail = Mail(**{**vars(plain), "octets": forged + plain.octets})
    said = posted(trusting, mail, STRANGER)
    assert "forged" not in said
    assert "spf=fail smtp.mailfrom=committee@example.org" in said
    assert "dkim=fail" in said
    assert "dmarc=fail" in said


def test_a_strict_list_refuses_in_the_session(trusting: Stack) -> None:
    plain = mails()["dkim"].at(trusting.mailman.create_list("strict-one")).marked("sender-strict")
    result = post_from(trusting, plain, STRANGER)
    assert result.codes == [550]
    assert "the domain in From wants this rejected (DMARC)" in result.final[0].text
    trusting.exim.wait_empty()
    assert trusting.exim.bounces() == []
