"""The real Exim says whom each message is from, twice: in its header and in its Received. Both are read as it means
them, and nothing that a client says is taken for Exim's word.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mailgate.core.envelope import Client
from tests.origin.site import LIST, Site, open_site
from tests.stack.client import Client as Connection
from tests.stack.waiting import wait_until


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with open_site() as one:
        yield one


def both(site: Site, message_id: str) -> Client:
    """What the gate knows, once it is certain that the Received field says as much as it can of the same."""
    found = site.told(message_id)
    assert found.source == "header"
    received = site.by_received(message_id).client
    # Exim's Received has no user name; the cipher is called otherwise; a HELO that says no more than the address is
    # left out; and of one with "ident=" in it no one can tell where it ends.
    assert replace(received, user="", tls="", helo="") == replace(found, user="", tls="", helo="", source="received")
    literal = {f"[{found.ip}]", f"[IPv6:{found.ip}]"}
    assert received.helo == ("" if found.helo in literal else re.split(" ?ident=", found.helo)[0])
    assert received.tls.split(":")[0] == found.tls.split(":")[0]
    assert b"X-Mailgate-Client" not in next(one.octets for one in site.fake.taken if one.message_id == message_id)
    return found


@pytest.mark.parametrize(
    ("source", "helo"),
    [
        ("127.9.8.7", "mx.example.net"),
        ("127.1.2.3", "[127.1.2.3]"),
        ("127.1.2.4", "[127.1.2.3]"),
        ("127.255.255.254", "127.255.255.254"),
        ("127.0.0.1", "localhost"),
        ("::1", "mx.example.net"),
        ("::1", "[IPv6:::1]"),
    ],
)
def test_clients(site: Site, source: str, helo: str) -> None:
    assert both(site, site.post(source, helo)) == Client(source, helo, source="header")


JUNK = [
    "x) by evil [198.51.100.1]",
    'x"; user=root; y="',
    "x; mac=00",
    "a ident=root",
    "a\\",
    "${primary_hostname}",
    "}}",
]


@pytest.mark.parametrize("helo", [*JUNK, "]) (helo=[198.51.100.9]", "(TLS1.3) tls A", "x" * 500])
@pytest.mark.parametrize("source", ["127.9.8.7", "127.0.0.1"])
def test_whatever_a_client_calls_itself(site: Site, source: str, helo: str) -> None:
    found = both(site, site.post(source, helo))
    assert (found.ip, found.helo, found.user, found.tls) == (source, helo, "", "")


def test_what_has_waited_in_exims_queue(site: Site) -> None:
    """After an outage Exim hands over one message after the other; each says whom it is from."""
    site.wire.refuse()
    sent = [site.post("127.9.8.7", user="bob@example.org") for _ in range(4)]
    wait_until(lambda: len(site.exim.queue()) == len(sent), "all wait in Exim's queue")
    site.wire.accept()
    site.exim.run_queue()
    assert [both(site, one).user for one in sent] == ["bob@example.org"] * len(sent)


def test_tls_and_a_password(site: Site) -> None:
    found = both(site, site.post("127.9.8.7", tls=True))
    assert found.tls.startswith("TLS1.")
    found = both(site, site.post("127.9.8.7", user="bob@example.org"))
    assert (found.user, found.tls) == ("bob@example.org", "")
    found = both(site, site.post("::1", tls=True, user='a "b"; ip=198.51.100.1'))
    assert (found.ip, found.user) == ("::1", 'a "b"; ip=198.51.100.1')


# Exim lets its own user say where a message came from: addresses, names and idents that this host doesn't have.
@pytest.mark.parametrize(
    ("options", "helo", "expected"),
    [
        ((), "mx.example.net", Client("192.0.2.7", "mx.example.net")),
        (("-oMs", "mx.example.net"), "mx.example.net", Client("192.0.2.7", "mx.example.net", "mx.example.net")),
        (("-oMs", "mx.example.net"), "a.example.net", Client("192.0.2.7", "a.example.net", "mx.example.net")),
        (("-oMt", "bob (x)"), "[192.0.2.7]", Client("192.0.2.7", "[192.0.2.7]")),
        (("-oMs", "m.example.net", "-oMt", "a=b"), "m", Client("192.0.2.7", "m", "m.example.net")),
        (("-oMai", "bob"), "m", Client("192.0.2.7", "m", "", "bob")),
    ],
)
@pytest.mark.parametrize("ip", ["192.0.2.7", "2001:db8::7"])
def test_clients_from_elsewhere(site: Site, options: tuple[str, ...], helo: str, expected: Client, ip: str) -> None:
    found = both(site, site.inject("-bs", "-oMa", ip, *options, smtp=helo.replace("192.0.2.7", ip)))
    assert found == replace(expected, ip=ip, source="header", helo=helo.replace("192.0.2.7", ip))


def test_programs_on_exims_host(site: Site) -> None:
    for message_id, helo in (
        (site.inject(LIST), ""),
        (site.inject("-bs", smtp="mx.example.net"), "mx.example.net"),
        (site.inject("-oMr", "scanned", LIST), ""),
    ):
        found = site.told(message_id)
        assert (found.ip, found.source, found.helo) == ("", "header", helo)
    for message_id, helo in ((site.inject(LIST), ""), (site.inject("-bs", smtp="mx.example.net"), "mx.example.net")):
        found = site.by_received(message_id).client
        assert (found.ip, found.source, found.helo) == ("", "received", helo)
        assert found.user


FORGED = b"X-Mailgate-Client: ip=198.51.100.1; eid=1xV0Ys-0004sm-35; mac=" + b"0" * 40 + b"\r\n"
FORGERIES = {
    "one": FORGED,
    "two": FORGED * 2,
    "other case": FORGED.lower() + FORGED.upper(),
    "folded": FORGED.replace(b"; ", b";\r\n\t").replace(b": ", b":\r\n "),
    "blank before the colon": FORGED.replace(b":", b" :", 1),
    "without an address": b"X-Mailgate-Client: helo=x\r\n",
    "an empty one": b"X-Mailgate-Client:\r\n",
    "behind a field that looks folded": b"Subject: a\r\n" + FORGED + b" ip=198.51.100.1\r\n",
    "with a Received": b"Received: from [198.51.100.1]\r\n\tby mx.lists.test with esmtp (Exim 4.96)\r\n"
    b"\tid 1xV0Ys-0004sm-35;\r\n\tSun, 22 Nov 2026 10:00:00 +0000\r\n" + FORGED,
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_what_a_client_forges_exim_and_we_cut(site: Site, kind: str) -> None:
    message_id = site.post("127.9.8.7", head=FORGERIES[kind])
    assert both(site, message_id) == Client("127.9.8.7", "mx.example.net", source="header")
    taken = next(one.octets for one in site.fake.taken if one.message_id == message_id)
    assert b"x-mailgate-client" not in taken.lower()


def test_who_is_not_exim_cannot_say_whom_a_message_is_from(site: Site) -> None:
    ours, others = (site.written(site.post("127.9.8.7")) for _ in range(2))
    (field,) = re.findall(rb"X-Mailgate-Client: .*\r\n", ours)
    (of_another,) = re.findall(rb"X-Mailgate-Client: .*\r\n", others)
    without = ours.replace(field, b"")
    for head, origin in (
        (ours, "header"),
        (without[:-2] + field.replace(b"127.9.8.7", b"127.9.8.8") + b"\r\n", "unknown"),
        (without[:-2] + field.replace(b"; mac=", b"; user=root; mac=") + b"\r\n", "unknown"),
        (without[:-2] + of_another + b"\r\n", "unknown"),
        (ours[:-2] + of_another + b"\r\n", "unknown"),
        (of_another + ours, "header"),
        (without, "unknown"),  # a Received field can be written by anybody
        (field + b"Subject: of our own\r\n\r\n", "unknown"),
        (ours.replace(b"helo=", b"helo=\r\t", 1), "unknown"),  # only a stranger can have said that CR
        (FORGED + b"\r\n", "unknown"),
        (b"Subject: none\r\n\r\n", "unknown"),
    ):
        before = site.gate.metric("mailgate_origin_total", source=origin)
        event = site.gate.wait_for_event("message.delivered", id=site.hand_over(head))
        assert (event["origin"], event["client"]) == (origin, "" if origin == "unknown" else "127.9.8.7")
        assert site.gate.metric("mailgate_origin_total", source=origin) == before + 1


def test_exim_makes_folds_of_the_bare_crs_in_a_message(site: Site) -> None:
    """So of what Exim hands over, a bare CR can only stand in what it writes itself."""
    message_id = site.post("127.9.8.7", head=b"Subject: a\r" + FORGED)
    assert site.told(message_id) == Client("127.9.8.7", "mx.example.net", source="header")
    assert b"Subject: a\r\n " + FORGED in site.written(message_id)


@pytest.mark.parametrize("control", [b"\r", b"\t", b"\x7f"])
def test_control_characters_in_helo_are_refused(site: Site, control: bytes) -> None:
    """Exim, where it is told to take junk, writes them into its Received as they are."""
    _, octets = site.message()
    with Connection(site.exim.address, source="127.9.8.7") as client:
        client.command(b"EHLO a" + control + b"X-Mailgate-Client: ip=198.51.100.1")
        (reply,) = client.deliver("ida@example.org", [LIST], octets).final
    assert str(reply) == "550 5.5.2 there are control characters in your HELO"


def test_what_is_known_of_the_client_stays_with_a_spooled_message(site: Site) -> None:
    site.fake.refuse()
    message_id = site.post("127.9.8.7", "mx.example.org", tls=True, user="bob")
    event = site.gate.wait_for_event("message.spooled", message_id=message_id)
    (row,) = wait_until(lambda: site.gate.rows("queue", "list"), "a row")
    shown = site.gate.cli("queue", "show", row["id"], "--json").stdout
    site.fake.accept()
    site.pair.wait_drained()
    for text in ("127.9.8.7", "mx.example.org", "bob", event["tls"], "header"):
        assert text in shown


def test_what_goes_past_mailgate_from_exims_queue(site: Site) -> None:
    """Straight to Mailman, one message after the other: what is said to mailgate alone is in none of them.

    The last test here, since Exim remembers for a minute that mailgate was not there.
    """
    host, port = site.fake.address
    before = site.exim.extra
    site.exim.set({**before[0], "MAILGATE_FALLBACK": f"{host}::{port}"}, before[1])
    site.wire.refuse()
    site.fake.refuse()
    try:
        sent = [site.post("127.9.8.7", user="bob@example.org") for _ in range(3)]
        wait_until(lambda: len(site.exim.queue()) == len(sent), "all wait in Exim's queue")
        site.fake.accept()
        site.exim.run_queue()
        wait_until(lambda: not site.exim.queue(), "Mailman has them")
        found = [one for one in site.fake.taken if one.message_id in sent]
        assert sorted(one.message_id for one in found) == sorted(sent)
        assert not [one for one in found if b"X-Mailgate-" in one.octets]
    finally:
        site.fake.accept()
        site.wire.accept()
        site.exim.set(*before)
