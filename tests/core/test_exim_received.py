"""The Received field of our own Exim: each form that Exim 4.96 was seen to write, and what strangers make of it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailgate.core.exim_received import values
from tests.core.cuts import made_of

EID = "1xV0Ys-0004sm-35"


def field(came: str, protocol: str = "esmtp ", eid: str = EID) -> bytes:
    """A header block as Exim 4.96 begins it. `came` is what it writes between `from` and `by`, with its line end."""
    text = (
        f"Received: {came}by mx.lists.test with {protocol}(Exim 4.96)\n\t(envelope-from <a@example.net>)\n\tid {eid}\n"
        "\tfor list@lists.test;\n\tSun, 22 Nov 2026 10:44:52 +0000\nFrom: a@example.net\n\n"
    )
    return text.replace("\n", "\r\n").encode("utf-8", "surrogateescape")


def said(head: bytes) -> tuple[str, ...]:
    """Address, host, HELO, user, cipher; nothing if the field is not Exim's."""
    return tuple(values(head).values())


NAME = "mx.example.net"


@pytest.mark.parametrize(
    ("came", "expected"),
    [
        ("from [192.0.2.7]\n\t", ("192.0.2.7", "", "", "", "")),
        ("from [192.0.2.7] (helo=mx.example.net)\n\t", ("192.0.2.7", "", NAME, "", "")),
        ("from [192.0.2.7] (helo=[192.0.2.8])\n\t", ("192.0.2.7", "", "[192.0.2.8]", "", "")),
        ("from [192.0.2.7] (helo=mx.example.net ident=bob)\n\t", ("192.0.2.7", "", NAME, "", "")),
        ("from [192.0.2.7] (ident=bob)\n\t", ("192.0.2.7", "", "", "", "")),
        ("from [192.0.2.7] (port=4711 helo=mx.example.net)\n\t", ("192.0.2.7", "", NAME, "", "")),
        ("from [192.0.2.7] (port=4711)\n\t", ("192.0.2.7", "", "", "", "")),
        ("from [2001:db8::7] (port=4711 helo=a ident=b)\n\t", ("2001:db8::7", "", "a", "", "")),
        ("from [2001:db8::7]\n\t", ("2001:db8::7", "", "", "", "")),
        ("from mx.example.net ([192.0.2.7])\n\t", ("192.0.2.7", NAME, NAME, "", "")),
        ("from mx.example.net ([192.0.2.7] ident=bob)\n\t", ("192.0.2.7", NAME, NAME, "", "")),
        ("from mx.example.net ([192.0.2.7]:4711)\n\t", ("192.0.2.7", NAME, NAME, "", "")),
        ("from mx.example.net\n\t([192.0.2.7] helo=a.example.net)\n\t", ("192.0.2.7", NAME, "a.example.net", "", "")),
        ("from mx.example.net\n\t([192.0.2.7]:47 helo=a ident=b (c))\n\t", ("192.0.2.7", NAME, "a", "", "")),
        ("from mx.example.net ([2001:db8::7])\n\t", ("2001:db8::7", NAME, NAME, "", "")),
    ],
)
def test_from_a_client(came: str, expected: tuple[str, ...]) -> None:
    assert said(field(came)) == expected
    assert said(field(came, "esmtpsa  (TLS1.3) tls TLS_AES_256_GCM_SHA384\n\t")) == (
        *expected[:4],
        "TLS1.3:TLS_AES_256_GCM_SHA384",
    )
    assert said(field(came, "esmtps  (TLS1.2)")) == (*expected[:4], "TLS1.2")
    assert said(field(came, eid="1xV540-00000000abc-0Zxy")) == expected


@pytest.mark.parametrize(
    ("came", "protocol", "user", "helo"),
    [
        ("from bob ", "local", "bob", ""),
        ('from "www-data \\"x\\"" ', "local", 'www-data "x"', ""),
        ("from bob (helo=mx)\n\t", "local-esmtp", "bob", "mx"),
        ("from bob (helo=mx)\n\t", "local-bsmtp", "bob", "mx"),
        ("", "local", "", ""),
    ],
)
def test_from_a_program_on_exims_host(came: str, protocol: str, user: str, helo: str) -> None:
    assert said(field(came, f"{protocol} ")) == ("", "", helo, user, "")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\r\n",
        b"Subject: from [192.0.2.7]\r\n\r\n",
        field("from [192.0.2.7]\n\t", eid="1xV540"),
        field("from [192.0.2.7]\n\t").replace(b"\r\n\tid ", b" id "),
        field("from [192.0.2]\n\t").replace(b"[192.0.2]", b"192.0.2.7"),
        field("from [192.0.2.7]x\n\t"),
        field("from mx.example.net (mx.example.net [192.0.2.7])\n\t"),
        field("from mx (192.0.2.7)\n\t"),
        field("from m[x] ([192.0.2.7])\n\t"),
        field("from two words ([192.0.2.7])\n\t"),
        field("from mx.example.net ", "esmtp "),
        field("from bob (helo=mx)\n\t", "scanned "),
        field("(from [192.0.2.7])\n\t"),
        b"Received: by 2002:a05:6402 with SMTP id abc\r\n\tid 1xV0Ys-0004sm-35;\r\n\tnow\r\n\r\n",
        b"Received: from [198.51.100.1] by relay id 1\r\n" + field("from [192.0.2.7]\n\t"),
    ],
)
def test_what_our_exim_did_not_write(head: bytes) -> None:
    assert said(head) == ()


def test_only_the_topmost_counts() -> None:
    below = field("from [198.51.100.1]\n\t", eid="1xV0Ys-0004sm-36")
    assert said(field("from [192.0.2.7]\n\t")[:-2] + below)[0] == "192.0.2.7"


def test_a_format_of_the_sites_own_still_tells_the_address() -> None:
    head = b"Received: from [192.0.2.7] (helo=a) by mx (Exim 4.96)\r\n\tid 1xV0Ys-0004sm-35; now\r\n\r\n"
    assert said(head) == ("192.0.2.7", "", "", "", "")


HELOS = st.one_of(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])),
    made_of(b"x", b" ", b")", b"(", b"[198.51.100.1]", b" by mx with local", b"ident=", b"helo=", b"\\", b'"').map(
        bytes.decode
    ),
)


@given(HELOS)
@example("x) by evil [198.51.100.1]")
@example("])\tby mx.lists.test with local (Exim 4.96)")
@example(" (TLS1.3) tls FORGED")
def test_no_helo_is_taken_for_what_exim_knows(helo: str) -> None:
    for came, host in (
        (f"from [192.0.2.7] (helo={helo})\n\t", ""),
        (f"from {NAME}\n\t([192.0.2.7] helo={helo})\n\t", NAME),
    ):
        found = values(field(came))
        assert (found["ip"], found["host"], found["user"], found["tls"]) == ("192.0.2.7", host, "", "")
        assert all(text.isprintable() for text in found.values())


PARTS = (
    b"from ",
    b"[192.0.2.7]",
    b"mx",
    b" ",
    b"(",
    b")",
    b"\r\n\t",
    b"by mx with local ",
    b"helo=",
    b'"',
    b"\\",
    b"\xff",
)


@given(st.one_of(st.binary(max_size=300), made_of(*PARTS)))
@example(b'from "' + b"\\" * 4000)
@example(b"from " + b"a" * 4000)
@example(b"from [192.0.2.7] (" + b"helo= ident=" * 300)
@example(b"from [" + b":" * 45 + b"]")
def test_reading_ends_with_printable_text_or_nothing(octets: bytes) -> None:
    found = values(b"Received: " + octets + b"\r\n\tid 1xV0Ys-0004sm-35;\r\n\tnow\r\n\r\n")
    assert all(text.isprintable() for text in found.values())
    assert not found or len(found) == 5
    assert not found or not found["ip"] or set(found["ip"]) <= set("0123456789abcdefABCDEF.:")


def test_the_address_is_whatever_exim_wrote() -> None:
    for text in ("192.0.2.7", "2001:db8::7", "::1", "fe80::1"):
        assert ipaddress.ip_address(values(field(f"from [{text}]\n\t"))["ip"]) == ipaddress.ip_address(text)
