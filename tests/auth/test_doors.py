"""What both doors make of a message's sender: the header, the verdict, the log, and that it is found out once."""

import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dkim
import pytest

from tests.spam.desk import LIST
from tests.stack.dns import DnsServer
from tests.stack.gate import merged
from tests.stack.waiting import wait_until
from tests.verdict.asking import Counter, ask, lines, open_counter, received, rspamc

KEY = Path(__file__).parents[2] / "fixtures" / "dkim.key.pem"
PUBLIC = (KEY.parent / "dns.toml").read_text(encoding="utf-8").split('"')[3].encode()
STRICT = "strict@lists.test"
ON = {"spf": True, "dkim": True, "dmarc": True, "arc": True, "timeout": "4s"}
SENDER, CLIENT, STRANGER = "ann@author.test", "192.0.2.7", "192.0.2.66"
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def names() -> Iterator[DnsServer]:
    """The domain of an author who says who may send for him, and wants all else rejected."""
    with DnsServer() as server:
        server.add("author.test", "TXT", f'"v=spf1 ip4:{CLIENT} -all"')
        server.add("_dmarc.author.test", "TXT", '"v=DMARC1; p=reject"')
        server.add("key._domainkey.author.test", "TXT", PUBLIC)
        yield server


@pytest.fixture(scope="module")
def _counter(names: DnsServer) -> Iterator[Counter]:
    strict = {"match": STRICT, "dmarc_enforce": "reject"}
    with open_counter({"auth": ON | {"nameservers": [str(names.at)], "lists": [strict]}}) as counter:
        yield counter


@pytest.fixture
def counter(_counter: Counter, names: DnsServer) -> Counter:
    """A gate with both doors that asks `names`."""
    _counter.put_in_order()
    _counter.scores(0.0)
    names.behave()
    return _counter


def post(head: bytes = b"") -> tuple[str, bytes]:
    """A message of the author's: its Message-ID and its octets."""
    message_id = f"<{next(NUMBERS)}@author.test>"
    fields = f"From: Ann <{SENDER}>\r\nTo: {LIST}\r\nSubject: A post\r\nMessage-ID: {message_id}\r\n"
    return message_id, head + fields.encode() + b"\r\nA line.\r\n"


def sent(counter: Counter, octets: bytes, *recipients: str, ip: str = CLIENT, more: str = "") -> None:
    """Hand it over as Exim does for this client."""
    told = f'X-Mailgate-Client: ip={ip}; helo="mx.author.test"; {more}\r\n'.encode()
    counter.result = counter.pair.send(*(recipients or (LIST,)), octets=told + octets, sender=SENDER)


def asked(counter: Counter, octets: bytes, recipient: str, ip: str) -> tuple[str, dict[str, str]]:
    """Exim asks about it: its id there, and what it is told."""
    exim_id = f"1z{next(NUMBERS):04}-0004sm-35"
    question = rspamc(received(exim_id) + octets, SENDER, (recipient,), exim_id)
    return exim_id, lines(ask(counter.door, question.replace(b"IP: 192.0.2.7", f"IP: {ip}".encode())))


def results(counter: Counter, message_id: str) -> str:
    """What the first Authentication-Results that Mailman got says, which is the first field of all."""
    message = counter.wait_taken(message_id)
    assert message.keys()[0] == "Authentication-Results"
    return " ".join(str(message["Authentication-Results"]).split())


def counted(counter: Counter) -> dict[str, float]:
    """The metric, without the zeros."""
    name = "mailgate_auth_results_total"
    return {key.removeprefix(name): one for key, one in counter.gate.metrics().items() if key.startswith(name) and one}


def test_the_first_field_says_who_vouches_for_it(counter: Counter) -> None:
    forged = b"Authentication-Results: GATE.lists.test; dmarc=pass header.from=bank.test\r\n"
    other = b"Authentication-Results: elsewhere.test; spf=pass\r\n"
    message_id, octets = post(forged + other)
    before = counted(counter)
    sent(counter, octets)
    assert results(counter, message_id) == (
        "gate.lists.test; spf=pass (ip4:192.0.2.7 matches 192.0.2.7) smtp.mailfrom=ann@author.test;"
        " spf=none (no record) smtp.helo=mx.author.test; dkim=none (not signed);"
        " dmarc=pass (p=reject at author.test; spf vouches for author.test)"
        " header.from=author.test policy.dmarc=reject;"
        " arc=none (no ARC set); iprev=pass (plain.example.test) policy.iprev=192.0.2.7"
    )
    taken = counter.taken(message_id)
    assert [one.split(";")[0] for one in taken.get_all("Authentication-Results", [])] == [
        "gate.lists.test",
        "elsewhere.test",
    ]
    assert taken.keys()[1] == "Received"
    event = counter.event(message_id)
    assert (event["spf_mailfrom"], event["dkim"], event["dmarc"], event["author"]) == (
        "pass",
        [],
        "pass",
        "author.test",
    )
    added = {key: one - before.get(key, 0) for key, one in counted(counter).items() if one != before.get(key)}
    assert added == {
        '{method="spf",result="pass"}': 1,
        '{method="spf",result="none"}': 1,
        '{method="dkim",result="none"}': 1,
        '{method="dmarc",result="pass"}': 1,
        '{method="arc",result="none"}': 1,
        '{method="iprev",result="pass"}': 1,
    }


def test_a_signature_is_of_the_octets_as_received_not_of_what_is_left(counter: Counter) -> None:
    message_id, octets = post(b"X-Spam-Flag: NO\r\n")
    signature = dkim.sign(octets, b"key", b"author.test", KEY.read_bytes(), include_headers=[b"from", b"x-spam-flag"])
    sent(counter, signature + octets, ip=STRANGER)
    said = results(counter, message_id)
    assert (
        "dkim=pass (2048 bit key) header.d=author.test header.s=key header.a=rsa-sha256 header.i=@author.test" in said
    )
    assert "dkim vouches for author.test" in said
    assert "X-Spam-Flag" not in counter.taken(message_id)


def test_by_default_it_is_a_reason_and_no_more(counter: Counter) -> None:
    message_id, octets = post()
    sent(counter, octets, ip=STRANGER)
    assert counter.said == ["250 2.0.0 delivered: Ok"]
    assert counter.event(message_id)["reasons"] == ["dmarc-tag", "spf-tag"]
    assert "dmarc=fail (p=reject at author.test; nothing vouches for this domain)" in results(counter, message_id)


def test_what_a_strict_list_does_not_want_is_refused_in_the_session(counter: Counter) -> None:
    message_id, octets = post()
    _, told = asked(counter, octets, STRICT, STRANGER)
    assert told["Action"] == "reject"
    assert told["Message"] == f"550 5.7.1 {told['Id']} the domain in From wants this rejected (DMARC)"
    assert counter.verdict(message_id)["reasons"] == ["dmarc-reject", "spf-tag"]


def test_after_acceptance_it_is_held_with_its_results(counter: Counter) -> None:
    message_id, octets = post()
    sent(counter, octets, STRICT, ip=STRANGER)
    assert counter.said == ["250 2.0.0 held"]
    gate_id = counter.event(message_id)["id"]
    assert counter.replies(gate_id) == {"dmarc-reject, spf-tag (score 0.0)"}
    exported = counter.gate.cli("queue", "show", gate_id, "--raw").stdout
    assert exported.startswith("Authentication-Results: gate.lists.test;")


def test_what_the_verdict_door_found_is_not_found_out_again(counter: Counter, names: DnsServer) -> None:
    message_id, octets = post()
    exim_id, told = asked(counter, octets, LIST, CLIENT)
    assert told["Action"] == "no action"
    before = counted(counter)
    names.act("servfail")
    sent(counter, received(exim_id) + octets)
    assert "dmarc=pass" in results(counter, message_id)
    assert counter.event(message_id)["dmarc"] == "pass"
    assert counted(counter) == before


def test_mail_of_the_sites_own_is_not_checked(counter: Counter, names: DnsServer) -> None:
    message_id, octets = post()
    sent(counter, octets, more="user=ann")
    assert results(counter, message_id) == "gate.lists.test; none"
    assert "dmarc" not in counter.event(message_id)
    assert names.asked == []


def test_a_client_that_nobody_knows_is_said_to_be_unknown(counter: Counter) -> None:
    message_id, octets = post()
    counter.result = counter.pair.send(LIST, octets=octets, sender=SENDER)
    said = results(counter, message_id)
    assert "spf=none (the client's address is not known)" in said
    assert "dmarc=temperror" in said
    assert counter.event(message_id)["reasons"] == []


def test_what_is_spooled_goes_to_mailman_with_its_results(counter: Counter, names: DnsServer) -> None:
    message_id, octets = post()
    counter.fake.refuse()
    sent(counter, octets)
    assert counter.said == ["250 2.0.0 spooled"]
    names.act("servfail")
    counter.fake.accept()
    assert "dmarc=pass" in results(counter, message_id)


def test_names_that_are_not_answered_for_cost_a_message_results_and_little_time(
    counter: Counter, names: DnsServer
) -> None:
    names.act("drop", "silent.test", "_dmarc.silent.test")
    message_id, octets = post()
    octets = octets.replace(b"author.test>\r\nTo", b"silent.test>\r\nTo")
    told = f"X-Mailgate-Client: ip={STRANGER}\r\n".encode()
    started = time.monotonic()
    counter.result = counter.pair.send(STRICT, octets=told + octets, sender="ann@silent.test")
    assert time.monotonic() - started < 15  # of the twenty that the budget has
    said = results(counter, message_id)
    assert "spf=temperror" in said
    assert "dmarc=temperror" in said
    assert counter.event(message_id)["reasons"] == []


def test_switched_off_it_leaves_no_trace(counter: Counter, names: DnsServer) -> None:
    took_effect(counter, {"auth": {"spf": False, "dkim": False, "dmarc": False, "arc": False, "lists": []}})
    message_id, octets = post()
    sent(counter, octets, ip=STRANGER)
    assert "Authentication-Results" not in counter.wait_taken(message_id)
    assert names.asked == []
    took_effect(counter, {})
    message_id, octets = post()
    sent(counter, octets)
    assert "dmarc=pass" in results(counter, message_id)


def took_effect(counter: Counter, settings: dict[str, Any]) -> None:
    """Have the gate take its first settings with these over them, by SIGHUP."""
    before = len(counter.gate.events("config.reloaded"))
    counter.pair.configure(merged(counter._settings, settings))
    counter.gate.send(signal.SIGHUP)
    wait_until(lambda: len(counter.gate.events("config.reloaded")) > before, "the gate has reloaded")
