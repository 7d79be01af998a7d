"""The client of a message, from the header that Exim's transport adds: as Exim writes it, and as nobody should."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailgate.core.envelope import Client
from mailgate.core.origin import Origin, origin, read, written

NOBODY = Origin(Client(), "")
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
        ("ip=192.0.2.7", Client("192.0.2.7"), ""),
        ("ip=192.0.2.7;", Client("192.0.2.7"), ""),
        (";; ip=192.0.2.7", Client("192.0.2.7"), ""),
        ("IP=192.0.2.7 ;Helo=mx", Client("192.0.2.7", "mx"), ""),
        ("ip=2001:DB8::7", Client("2001:db8::7"), ""),
        ("ip=::ffff:192.0.2.7", Client("192.0.2.7"), ""),
        ('ip="192.0.2.7"', Client("192.0.2.7"), ""),
        ("ip=192.0.2.7; ip=192.0.2.8", Client("192.0.2.7"), ""),
        ("ip=192.0.2.7; mac=0123abcd; new-key=1", Client("192.0.2.7"), ""),
        ("ip=; host=; helo=; user=; tls=; eid=", Client(), ""),
        ("ip=192.0.2; helo=mx", Client("", "mx"), ""),
        ("ip=192.0.2.7/32", Client(), ""),
        ("ip=3221225991", Client(), ""),
        (r'helo="a\"b\\c"; ip=192.0.2.7', Client("192.0.2.7", 'a"b\\c'), ""),
        (
            r'ip=192.0.2.7; helo="x; ip=198.51.100.1; user=root"',
            Client("192.0.2.7", "x; ip=198.51.100.1; user=root"),
            "",
        ),
        (r'ip=192.0.2.7; helo="x\"; user=root; y=\""', Client("192.0.2.7", 'x"; user=root; y="'), ""),
        (r'ip=192.0.2.7; helo="a\nb"; user=bob', Client("192.0.2.7", "a b", "", "bob"), ""),
        ('ip=192.0.2.7; helo="[192.0.2.7]"', Client("192.0.2.7", "[192.0.2.7]"), ""),
        ('ip=192.0.2.7; user="bob@example.org"; host=mx', Client("192.0.2.7", "", "mx", "bob@example.org"), ""),
        ('ip=192.0.2.7; helo="unfinished; user=root', Client("192.0.2.7"), ""),
        ('ip=192.0.2.7; helo=half"quoted"; user=root', Client("192.0.2.7"), ""),
        ("ip=192.0.2.7 helo=mx", Client(), ""),
        ("tls=TLS1.3:ECDHE_RSA__AES_256_GCM:256; ip=192.0.2.7", Client("192.0.2.7"), ""),
        (f"ip=192.0.2.7; eid={EID}", Client("192.0.2.7"), EID),
        ("ip=192.0.2.7; eid=1tAbCd-0000000012A-34Bc", Client("192.0.2.7"), "1tAbCd-0000000012A-34Bc"),
        ("ip=192.0.2.7; eid=1xV0Ys", Client("192.0.2.7"), ""),
        (f'ip=192.0.2.7; eid="{EID} x"', Client("192.0.2.7"), ""),
        ("", Client(), ""),
        ("nonsense", Client(), ""),
    ],
)
def test_what_the_header_says(value: str, client: Client, eid: str) -> None:
    assert of(value) == Origin(client, eid)


def test_as_exim_writes_it() -> None:
    assert origin(SEEN + b"\r\n") == Origin(Client("192.0.2.7", "mx.example.net", "mx.example.net"), EID)


def test_the_last_one_counts() -> None:
    forged = b"X-Mailgate-Client: ip=198.51.100.1; user=root\r\n"
    assert origin(forged + SEEN + b"Subject: a\r\n X-Mailgate-Client: ip=198.51.100.1\r\n\r\n") == origin(SEEN)


@pytest.mark.parametrize("head", [b"\r\n", b"", b"X-Mailgate-Clients: ip=192.0.2.7\r\n\r\n"])
def test_without_one_nothing_is_known(head: bytes) -> None:
    assert origin(head) == NOBODY


def test_it_may_be_folded() -> None:
    assert origin(b"x-mailgate-client:\r\n ip=192.0.2.7;\r\n\thelo=mx\r\n") == Origin(Client("192.0.2.7", "mx"), "")


def test_octets_that_are_no_text() -> None:
    assert origin(b'X-Mailgate-Client: ip=192.0.2.7; helo="\xff\xc3\xbc\x00"\r\n').client.helo == "\ufffd\xfc\\x00"


VALUES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=40)
ADDRESSES = st.one_of(st.just(""), st.ip_addresses(v=4).map(str))


@given(st.builds(Client, ADDRESSES, VALUES, VALUES, VALUES))
def test_what_is_kept_of_a_client_comes_back(client: Client) -> None:
    assert read(written(client)) == client


@given(VALUES, VALUES)
def test_no_helo_can_speak_for_another_key(helo: str, host: str) -> None:
    text = written(Client("192.0.2.7", helo, host, "bob"))
    assert read(text) == Client("192.0.2.7", helo, host, "bob")


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
