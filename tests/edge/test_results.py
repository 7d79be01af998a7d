"""Authentication-Results: what is written is what is read, by authres (so by Mailman) and by Python's email."""

from __future__ import annotations

import email
import re
from email import policy
from typing import Any, get_args

import authres
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.auth import (
    Arc,
    ArcResult,
    Authenticated,
    DkimResult,
    Dmarc,
    DmarcResult,
    Iprev,
    IprevResult,
    Signature,
    Spf,
    SpfResult,
    results,
)
from mailgate.core.headers import authserv_id, cut
from mailgate.edge.results import field

ID = "lists.example.org"
SPF = Spf("pass", "mailfrom", "example.org", "a@example.org", "192.0.2.7 is allowed by ip4")
SIGNED = Signature("pass", "example.org", "s1", "@example.org", "rsa-sha256", 2048, covered=True, why="2048 bit key")


def parsed(octets: bytes) -> Any:
    return authres.AuthenticationResultsHeader.parse(octets.decode("ascii").replace("\r\n", ""))


def test_all_methods_in_a_field_with_their_properties() -> None:
    found = Authenticated(
        spf=(SPF, Spf("none", "helo", "mx.example.org", "postmaster@mx.example.org", "no record")),
        dkim=(
            SIGNED,
            Signature("fail", "lists.test", "k", "a@lists.test", "ed25519-sha256", 256, covered=False, why="body"),
        ),
        arc=Arc("pass", ("a.test", "b.test"), "2 sets"),
        dmarc=Dmarc("pass", "example.org", "example.org", "reject", testing=True, why="spf vouches for example.org"),
        iprev=Iprev("pass", "192.0.2.7", "mx.example.org", ""),
    )
    assert field(ID, found) == (
        b"Authentication-Results: lists.example.org;\r\n"
        b"\tspf=pass (192.0.2.7 is allowed by ip4) smtp.mailfrom=a@example.org;\r\n"
        b"\tspf=none (no record) smtp.helo=mx.example.org;\r\n"
        b"\tdkim=pass (2048 bit key) header.d=example.org header.s=s1\r\n"
        b"\theader.a=rsa-sha256 header.i=@example.org;\r\n"
        b"\tdkim=fail (only a part is signed; body) header.d=lists.test header.s=k\r\n"
        b"\theader.a=ed25519-sha256 header.i=a@lists.test;\r\n"
        b"\tdmarc=pass (t=y; p=reject at example.org; spf vouches for example.org)\r\n"
        b"\theader.from=example.org policy.dmarc=reject;\r\n"
        b"\tarc=pass (2 sets; sealed by a.test, b.test);\r\n"
        b"\tiprev=pass (mx.example.org) policy.iprev=192.0.2.7\r\n"
    )
    header = parsed(field(ID, found))
    assert [(one.method, one.result) for one in header.results] == [
        *(("spf", "pass"), ("spf", "none"), ("dkim", "pass"), ("dkim", "fail"), ("dmarc", "pass")),
        *(("arc", "pass"), ("iprev", "pass")),
    ]
    assert header.results[2].properties[0].value == "example.org"


@pytest.mark.parametrize("found", [None, Authenticated()])
def test_where_nothing_was_checked_it_says_none(found: Authenticated | None) -> None:
    assert field(ID, found) == b"Authentication-Results: lists.example.org; none\r\n"
    assert parsed(field(ID, found)).results == []


def test_an_unsigned_message_has_a_result_of_dkim() -> None:
    assert field(ID, Authenticated(dkim=())).endswith(b";\r\n\tdkim=none (not signed)\r\n")


@pytest.mark.parametrize(
    ("sender", "written"),
    [
        ("a.b+c=d@example.org", "a.b+c=d@example.org"),
        ("a@example.org", "a@example.org"),
        ("a=b", '"a=b"'),
        ('"a b"@example.org', '"a b"@example.org'),
        ("a b@example.org", '"a b@example.org"'),
        ('"a\\"b"@example.org', '"\\"a\\\\\\"b\\"@example.org"'),
        ("a@example.org; dkim=pass header.d=example.org", '"a@example.org; dkim=pass header.d=example.org"'),
        ("a@example.org\r\nX-Forged: yes", '"a@example.org\\\\r\\\\nX-Forged: yes"'),
        ("j\u00fcrgen@example.org", '"j\\\\xfcrgen@example.org"'),
        ("a@[192.0.2.7]", '"a@[192.0.2.7]"'),
        ("", ""),
    ],
)
def test_a_value_is_quoted_wherever_it_must_be(sender: str, written: str) -> None:
    octets = field(ID, Authenticated(spf=(Spf("none", "mailfrom", "", sender, ""),)))
    assert (
        octets
        == f"Authentication-Results: {ID};\r\n\tspf=none{' smtp.mailfrom=' if written else ''}{written}\r\n".encode()
    )


@pytest.mark.parametrize(
    ("sender", "written"),
    [
        ("a" * 242 + "@bank.test", "a" * 242 + "@bank.test"),
        ("a" * 245 + "@bank.test.example.org", "@bank.test.example.org"),
        ("\u00fc" * 200 + "@example.org", "@example.org"),
        ("a@" + "b" * 300, None),
        ("a" * 300, None),
    ],
)
def test_a_value_that_is_too_long_does_not_become_another_ones(sender: str, written: str | None) -> None:
    (found,) = parsed(field(ID, Authenticated(spf=(Spf("pass", "mailfrom", "example.org", sender, ""),)))).results
    assert [one.value for one in found.properties] == ([written] if written else [])


def test_many_signatures_are_counted_and_not_listed() -> None:
    found = parsed(field(ID, Authenticated(dkim=(SIGNED,) * 1000)))
    assert len(found.results) == 21
    assert b"(980 more signatures)" in field(ID, Authenticated(dkim=(SIGNED,) * 1000))


HOSTILE = st.one_of(
    st.text(max_size=30),
    st.text(' ;=()"\\@\r\n\t.a,:', max_size=30),
    st.sampled_from(
        ["x; dkim=pass header.d=a.test", "x) ; spf=pass (", '" ; spf=pass', "\\", "a@b.test (", "a" * 5000]
    ),
)
ONE_SPF = st.builds(Spf, st.sampled_from(get_args(SpfResult)), st.sampled_from(["mailfrom", "helo"]), *[HOSTILE] * 3)
ONE_DKIM = st.builds(
    Signature, st.sampled_from(get_args(DkimResult)), *[HOSTILE] * 4, st.just(2048), st.booleans(), HOSTILE
)
ONE_ARC = st.builds(Arc, st.sampled_from(get_args(ArcResult)), st.tuples(HOSTILE, HOSTILE), HOSTILE)
ONE_DMARC = st.builds(
    Dmarc, st.sampled_from(get_args(DmarcResult)), HOSTILE, HOSTILE, st.just("none"), st.booleans(), HOSTILE
)
ONE_IPREV = st.builds(Iprev, st.sampled_from(get_args(IprevResult)), HOSTILE, HOSTILE, HOSTILE)
FOUND = st.one_of(
    st.builds(Authenticated, spf=st.tuples(ONE_SPF, ONE_SPF), dmarc=ONE_DMARC),
    st.builds(Authenticated, dkim=st.tuples(ONE_DKIM, ONE_DKIM)),
    st.builds(Authenticated, arc=ONE_ARC, iprev=ONE_IPREV, dkim=st.just(())),
)


@given(FOUND)
def test_nobody_writes_a_result_of_his_own(found: Authenticated) -> None:
    octets = field(ID, found)
    wanted = list(results(found))
    assert [(one.method, one.result) for one in parsed(octets).results] == wanted
    message = email.message_from_bytes(octets + b"\r\nbody", policy=policy.default)
    assert message.keys() == ["Authentication-Results"]
    assert octets.isascii()
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\n(?![\t]|\Z)|\n\s*\r", octets)
    assert authserv_id(octets) == ID.encode()
    assert cut(octets + b"\r\n", ID) == b"\r\n"


@given(HOSTILE)
def test_what_was_checked_is_read_back(sender: str) -> None:
    header = parsed(field(ID, Authenticated(spf=(Spf("fail", "mailfrom", "", sender, ""),))))
    properties = [one.value for one in header.results[0].properties]
    if properties and sender.isascii() and sender.isprintable() and len(sender) < 200 and "\\" not in sender:
        assert properties[0].replace("\\", "") == " ".join(sender.split())
