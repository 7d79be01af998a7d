"""The domains of a message's authors, whatever the From fields look like."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.author import domains
from mailgate.core.domains import ascii_form, within


def of(value: str) -> tuple[str, ...] | None:
    return domains(b"To: x@other.test\r\nFrom: " + value.encode() + b"\r\nSubject: b@c.test\r\n\r\n")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a@example.org", ("example.org",)),
        ("A@Example.ORG.", ("example.org",)),
        ("Anna <a@example.org>", ("example.org",)),
        ("<a@example.org>", ("example.org",)),
        ("a@example.org (b@c.test)", ("example.org",)),
        ("(b@c.test (nested) ) a@example.org", ("example.org",)),
        ("a@example(why).org", ("example.org",)),
        ("a @ example . org", ("example.org",)),
        ('"b@c.test" <a@example.org>', ("example.org",)),
        (r'"b\"@c.test" <a@example.org>', ("example.org",)),
        ('"b@c.test"@example.org', ("example.org",)),
        ('"Anna, <b@c.test>" <a@example.org>', ("example.org",)),
        ("b@c.test <a@example.org>", ("example.org",)),
        ("=?utf-8?q?b=40c=2Etest?= <a@example.org>", ("example.org",)),
        ("=?utf-8?B?YkBjLnRlc3Q=?=", ()),
        ("a@example.org, b@example.net", ("example.org", "example.net")),
        ("a@example.org, b@EXAMPLE.org", ("example.org",)),
        ("Friends: a@example.org, Bob <b@example.net>;", ("example.org", "example.net")),
        ("Nobody:;", ()),
        ("<@relay.test,@other.test:a@example.org>", ("example.org",)),
        ("Anna\r\n <a@example.org>", ("example.org",)),
        ("a@m\u00fcller.example", ("xn--mller-kva.example",)),
        ("a@stra\u00dfe.example", ("xn--strae-oqa.example",)),
        ("a@\uff45xample\u3002org", ("example.org",)),
        ("a@xn--mller-kva.example", ("xn--mller-kva.example",)),
        ("a@[192.0.2.1]", ()),
        ("root", ()),
        ("", ()),
        ("a@", ()),
        ("a@-", ()),
        ("a@b..c", ()),
        ("<a@example.org", ("example.org",)),
        ("<a@example.org, <b@example.net>", ("example.org", "example.net")),
        ("<b@c.test> <a@example.org>", ("c.test", "example.org")),
        ("<<a@example.org>>", ("example.org",)),
        ('"Anna <a@example.org>', ("example.org",)),
        ("(Anna <a@example.org>", ("example.org",)),
        ("a@example.org b", ("example.org",)),
        ("a@c.test@example.org", ("example.org",)),
        ("a@example.org; b@example.net", ("example.org", "example.net")),
        ("a@" + "x" * 64 + ".test", ()),
    ],
)
def test_the_domains_in_a_from_field(value: str, found: tuple[str, ...]) -> None:
    assert of(value) == found


def test_all_from_fields_count_and_nothing_else() -> None:
    head = b"from : a@one.test\r\nX-From: b@no.test\r\nFROM:\tb@two.test\r\nFromage: c@no.test\r\n\r\n"
    assert domains(head) == ("one.test", "two.test")
    assert domains(b"From\r\n : a@one.test\r\nFrom \r\n \r\n\t: b@two.test\r\n\r\n") == ("one.test", "two.test")
    assert domains(b"Sender: a@one.test\r\n\r\n") == ()
    assert domains(b"From: a@\xff\xfe.test, b@two.test\r\n\r\n") == ("two.test",)


WORD = st.text("abcXYZ019._-", min_size=1, max_size=8)
DOMAIN = st.lists(st.text("abcxyz019", min_size=1, max_size=6), min_size=1, max_size=4).map(".".join)
SPECIALS = st.text(' "\\()<>@,;:a.\r\n\t\u00fc', max_size=12)


@given(st.lists(st.tuples(SPECIALS, WORD, DOMAIN), min_size=1, max_size=3))
def test_a_well_formed_field_names_its_domains_whatever_the_names(mailboxes: list[tuple[str, str, str]]) -> None:
    def quoted(name: str) -> str:
        flat = name.replace("\r", "").replace("\n", "")
        return '"' + flat.replace("\\", "\\\\").replace('"', '\\"') + '"'

    value = ", ".join(f"{quoted(name)} <{local.strip('.') or 'a'}@{domain}>" for name, local, domain in mailboxes)
    assert of(value) == tuple(dict.fromkeys(domain for _, _, domain in mailboxes))


@given(st.binary(max_size=200))
def test_whatever_stands_there_ends_with_names_or_none(value: bytes) -> None:
    for name in domains(b"From: " + value + b"\r\n\r\n") or ():
        assert name == ascii_form(name)


def test_more_than_any_mailbox_takes_is_not_read() -> None:
    assert of(" " * 32_000 + "a@example.org") == ("example.org",)
    assert of("a@example.org" + "," * 32_768) is None


@pytest.mark.parametrize("piece", ["(", "<", '"', '\\"', "(()", "a@b,", "<@", "@", ".", ' "\\', ":;", "a@b.test, "])
def test_the_largest_field_is_read_in_linear_time(piece: str) -> None:
    started = time.process_time()
    of(piece * (2**15 // len(piece)))
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("name", "above", "is_within"),
    [("a.test", "a.test", True), ("b.a.test", "a.test", True), ("ba.test", "a.test", False), ("test", "a.test", False)],
)
def test_what_is_within_a_domain(name: str, above: str, is_within: bool) -> None:
    assert within(name, above) is is_within
