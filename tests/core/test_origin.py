"""The client of a message, from the header that Exim's transport adds: as Exim writes it, and as nobody should."""

from __future__ import annotations

import hmac
import ipaddress
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailgate.core.envelope import SOURCES, Client
from mailgate.core.origin import Origin, joined, origin, read, told, written

NOBODY = Origin(Client(), "")
seen = partial(Client, source="header")
EID = "1xV0Ys-0004sm-35"
SEEN = (
    b'X-Mailgate-Client: ip=192.0.2.7; host=mx.example.net; helo="mx.example.net"; user=; tls=; '
    b"eid=1xV0Ys-0004sm-35\r\n"
)


def of(value: str) -> Origin:
    return origin(b"From: a@example.org\r\nX-Mailgate-Client: " + value.encode() + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("value", "client", "eid"),
    [
        ("ip=192.0.2.7", seen("192.0.2.7"), ""),
        ("ip=192.0.2.7;", seen("192.0.2.7"), ""),
        (";; ip=192.0.2.7", seen("192.0.2.7"), ""),
        ("IP=192.0.2.7 ;Helo=mx", seen("192.0.2.7", "mx"), ""),
        ("ip=2001:DB8::7", seen("2001:db8::7"), ""),
        ("ip=::ffff:192.0.2.7", seen("192.0.2.7"), ""),
        ('ip="192.0.2.7"', seen("192.0.2.7"), ""),
        ("ip=192.0.2.7; ip=192.0.2.8", seen("192.0.2.7"), ""),
        ("ip=192.0.2.7; mac=0123abcd; new-key=1", seen("192.0.2.7"), ""),
        ("ip=; host=; helo=; user=; tls=; eid=", seen(), ""),
        ("ip=192.0.2; helo=mx", Client(), ""),
        ("ip=192.0.2.7/32", Client(), ""),
        ("ip=3221225991", Client(), ""),
        (r'helo="a\"b\\c"; ip=192.0.2.7', seen("192.0.2.7", 'a"b\\c'), ""),
        (
            r'ip=192.0.2.7; helo="x; ip=198.51.100.1; user=root"',
            seen("192.0.2.7", "x; ip=198.51.100.1; user=root"),
            "",
        ),
        (r'ip=192.0.2.7; helo="x\"; user=root; y=\""', seen("192.0.2.7", 'x"; user=root; y="'), ""),
        (r'ip=192.0.2.7; helo="a\nb"; user=bob', seen("192.0.2.7", "a b", "", "bob"), ""),
        ('ip=192.0.2.7; helo="[192.0.2.7]"', seen("192.0.2.7", "[192.0.2.7]"), ""),
        ('ip=192.0.2.7; user="bob@example.org"; host=mx', seen("192.0.2.7", "", "mx", "bob@example.org"), ""),
        ('ip=192.0.2.7; helo="unfinished; user=root', seen("192.0.2.7"), ""),
        ('ip=192.0.2.7; helo=half"quoted"; user=root', seen("192.0.2.7"), ""),
        ("ip=192.0.2.7 helo=mx", Client(), ""),
        ("tls=TLS1.3:AES:256; ip=192.0.2.7", seen("192.0.2.7", tls="TLS1.3:AES:256"), ""),
        (f"ip=192.0.2.7; eid={EID}", seen("192.0.2.7"), EID),
        ("ip=192.0.2.7; eid=1tAbCd-0000000012A-34Bc", seen("192.0.2.7"), "1tAbCd-0000000012A-34Bc"),
        ("ip=192.0.2.7; eid=1xV0Ys", seen("192.0.2.7"), ""),
        (f'ip=192.0.2.7; eid="{EID} x"', seen("192.0.2.7"), ""),
        ("", Client(), ""),
        ("nonsense", Client(), ""),
    ],
)
def test_what_the_header_says(value: str, client: Client, eid: str) -> None:
    assert of(value) == Origin(client, eid)


def test_as_exim_writes_it() -> None:
    assert origin(SEEN + b"\r\n") == Origin(seen("192.0.2.7", "mx.example.net", "mx.example.net"), EID)


def test_the_last_one_counts() -> None:
    forged = b"X-Mailgate-Client: ip=198.51.100.1; user=root\r\n"
    assert origin(forged + SEEN + b"Subject: a\r\n X-Mailgate-Client: ip=198.51.100.1\r\n\r\n") == origin(SEEN)


@pytest.mark.parametrize("head", [b"\r\n", b"", b"X-Mailgate-Clients: ip=192.0.2.7\r\n\r\n"])
def test_without_one_nothing_is_known(head: bytes) -> None:
    assert origin(head) == NOBODY


def test_it_may_be_folded() -> None:
    assert origin(b"x-mailgate-client:\r\n ip=192.0.2.7;\r\n\thelo=mx\r\n") == Origin(seen("192.0.2.7", "mx"), "")


def test_octets_that_are_no_text() -> None:
    assert origin(b'X-Mailgate-Client: ip=192.0.2.7; helo="\xff\xc3\xbc\x00"\r\n').client.helo == "\ufffd\xfc\\x00"


VALUES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=40)
ADDRESSES = st.one_of(st.just(""), st.ip_addresses(v=4).map(str))


@given(st.builds(Client, ADDRESSES, VALUES, VALUES, VALUES, VALUES, st.sampled_from(SOURCES)))
def test_what_is_kept_of_a_client_comes_back(client: Client) -> None:
    assert read(written(client)) == client


@given(VALUES, VALUES)
def test_no_helo_can_speak_for_another_key(helo: str, host: str) -> None:
    text = written(seen("192.0.2.7", helo, host, "bob"))
    assert read(text) == seen("192.0.2.7", helo, host, "bob")


@given(st.one_of(st.binary(), st.text('ipheloustr="; \\.:0192ab\n').map(str.encode)))
@example(b'"' + b"\\" * 4000)
@example(b"a=;" * 2000)
@example(b"; " * 3000)
@example(b"a=" + b" " * 4000 + b"x")
def test_reading_ends_with_an_address_or_none(octets: bytes) -> None:
    found = origin(b"X-Mailgate-Client: " + octets.replace(b"\n", b"\r\n ") + b"\r\n\r\n")
    if found.client.ip:
        assert str(ipaddress.ip_address(found.client.ip)) == found.client.ip
    for text in (found.client.helo, found.client.host, found.client.user):
        assert text.isprintable()


# all sources together


SECRET = b"0123456789abcdef"
RECEIVED = (
    b"Received: from [203.0.113.9] (helo=a)\r\n\tby mx.lists.test with esmtp (Exim 4.96)\r\n"
    b"\tid 1xV0Ys-0004sm-35;\r\n\tSun, 22 Nov 2026 10:00:00 +0000\r\n"
)
OTHERS = RECEIVED.replace(EID.encode(), b"1xV0Ys-0004sm-36")
BY_RECEIVED = Origin(Client("203.0.113.9", "a", source="received"), EID)
BY_HEADER = Origin(seen("192.0.2.7", "a"), EID)
BY_NOBODY = Origin(Client(), EID)
VALUE = b"ip=192.0.2.7; host=; helo=a; user=; tls=; eid=1xV0Ys-0004sm-35"


def signed(value: bytes, secret: bytes = SECRET) -> bytes:
    """A field with the MAC that Exim would give it."""
    return b"X-Mailgate-Client: %b; mac=%b\r\n" % (value, hmac.digest(secret, value, "sha1").hex().encode())


def test_the_mac_is_exims() -> None:
    # As exim4 4.96 says it: exim4 -be '${hmac{sha1}{0123456789abcdef}{ip=192.0.2.7; eid=1xV0Ys-0004sm-35}}'
    mac = b"; mac=" + b"919452c12a81c4cb964c91224846602a77d54972" + b"\r\n\r\n"
    head = b"X-Mailgate-Client: ip=192.0.2.7; eid=1xV0Ys-0004sm-35" + mac
    assert origin(RECEIVED + head, secret=SECRET) == Origin(seen("192.0.2.7"), EID)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (RECEIVED + signed(VALUE), BY_HEADER),
        (RECEIVED + b"x-mailgate-CLIENT: ip=198.51.100.1\r\n" + signed(VALUE), BY_HEADER),
        (RECEIVED + signed(VALUE).replace(b"X-Mailgate-Client:", b"X-MAILGATE-CLIENT :\r\n"), BY_HEADER),
        # Not Exim's: another secret, no MAC, a part of one, changed, not the last, folded elsewhere than Exim had it.
        (RECEIVED + signed(VALUE, b"guess"), BY_NOBODY),
        (RECEIVED + signed(VALUE, b""), BY_NOBODY),
        (RECEIVED + b"X-Mailgate-Client: " + VALUE + b"\r\n", BY_NOBODY),
        (RECEIVED + b"X-Mailgate-Client: " + VALUE + b"; mac=\r\n", BY_NOBODY),
        (RECEIVED + signed(VALUE)[:-3] + b"\r\n", BY_NOBODY),
        (RECEIVED + signed(VALUE).upper(), BY_NOBODY),
        (RECEIVED + signed(VALUE).replace(b"192.0.2.7", b"192.0.2.8"), BY_NOBODY),
        (RECEIVED + signed(VALUE).replace(b"user=", b"user=root"), BY_NOBODY),
        (RECEIVED + signed(VALUE)[:-2] + b"; user=root\r\n", BY_NOBODY),
        (RECEIVED + signed(VALUE) + b"X-Mailgate-Client: ip=198.51.100.1\r\n", BY_NOBODY),
        (RECEIVED + signed(VALUE).replace(b"; host", b";\r\n  host"), BY_NOBODY),
        # The MAC of another message, or of none.
        (OTHERS + signed(VALUE), Origin(Client(), "1xV0Ys-0004sm-36")),
        (RECEIVED + signed(b"ip=192.0.2.7"), BY_NOBODY),
        (signed(VALUE), NOBODY),
        (signed(b"ip=192.0.2.7"), NOBODY),
        (RECEIVED, BY_NOBODY),
        (b"", NOBODY),
    ],
)
def test_with_a_secret_only_exim_is_believed(head: bytes, expected: Origin) -> None:
    assert origin(head + b"\r\n", secret=SECRET) == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (RECEIVED + b"X-Mailgate-Client: " + VALUE + b"\r\n", BY_HEADER),
        (RECEIVED + signed(VALUE, b"guess"), BY_HEADER),
        (RECEIVED + b"X-Mailgate-Client: ip=192.0.2.7; helo=a\r\n", BY_HEADER),
        (b"X-Mailgate-Client: " + VALUE + b"\r\n" + RECEIVED, BY_HEADER),
        (OTHERS + b"X-Mailgate-Client: " + VALUE + b"\r\n", Origin(BY_RECEIVED.client, "1xV0Ys-0004sm-36")),
        (RECEIVED + b"X-Mailgate-Client: ip=192.0.2; helo=b\r\n", BY_RECEIVED),
        (RECEIVED + b"X-Mailgate-Client: helo=b\r\n", BY_RECEIVED),
        (RECEIVED + b"X-Mailgate-Client: ip=; user=cron\r\n", Origin(seen(user="cron"), EID)),
        (RECEIVED.replace(b"[203.0.113.9] (helo=a)", b"[203.0.113]"), Origin(Client(), EID)),
        (RECEIVED.replace(b"203.0.113.9", b"::ffff:203.0.113.9"), BY_RECEIVED),
    ],
)
def test_the_best_source_counts(head: bytes, expected: Origin) -> None:
    assert origin(head + b"\r\n") == expected


def test_of_a_stranger_nothing_is_believed() -> None:
    stranger = Client("198.51.100.1", "b", source="proxy")
    for secret in (b"", SECRET):
        assert origin(RECEIVED + signed(VALUE) + b"\r\n", stranger, secret) == Origin(stranger, "")


def test_what_the_verdict_door_was_not_told_the_message_tells() -> None:
    asked = Client("192.0.2.7", "a", source="verdict")
    found = seen("192.0.2.7", "b", "mx.example.net", "bob", "TLS1.3")
    assert joined(asked, found) == Client("192.0.2.7", "a", "mx.example.net", "bob", "TLS1.3", "verdict")
    assert joined(asked, seen("192.0.2.8", "b", "mx.example.net")) == asked
    assert joined(asked, Client()) == asked
    assert joined(Client(), found) == found


def test_what_is_logged_of_a_client() -> None:
    assert told(Client()) == {"client": "", "origin": "unknown"}
    assert told(seen("192.0.2.7", user="bob")) == {"client": "192.0.2.7", "origin": "header", "user": "bob"}
