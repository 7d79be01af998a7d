"""XCLIENT: what it says, in its own way of writing, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.envelope import Client
from mailgate.core.xclient import added, attributes, client


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        ("ADDR=192.0.2.7", Client("192.0.2.7", source="xclient")),
        ("addr=192.0.2.7 Name=mx.example.net", Client("192.0.2.7", host="mx.example.net", source="xclient")),
        ("ADDR=IPV6:2001:DB8::7", Client("2001:db8::7", source="xclient")),
        ("ADDR=2001:db8::7", Client("2001:db8::7", source="xclient")),
        ("ADDR=IPV6:::ffff:192.0.2.7", Client("192.0.2.7", source="xclient")),
        (
            "NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=47 PROTO=ESMTP HELO=a LOGIN=bob+40example.org",
            Client("192.0.2.7", "a", "", "bob@example.org", source="xclient"),
        ),
        ("ADDR=[UNAVAILABLE] HELO=a", Client(helo="a")),
        ("ADDR=[tempunavail]", Client()),
        ("HELO=a+20b+0D+0A+2Bc", Client(helo=r"a b\r\n+c")),
        ("HELO=+C3+BC+FF", Client(helo="\xfc\ufffd")),
        ("HELO=a HELO=b", Client(helo="b")),
        ("DESTADDR=127.0.0.1 DESTPORT=25", Client()),
    ],
)
def test_what_it_says(arg: str, expected: Client) -> None:
    assert client(attributes(arg)) == expected


@pytest.mark.parametrize(
    "arg",
    ["", " ", "ADDR", "ADDR=", "=a", "ADDR=mx.example.net", "ADDR=192.0.2.7/24", "ADDR=IPV6:", "ADDR=192.0.2.7 x",
     "COLOUR=red", "HELO=+4", "HELO=a+4xb", "HELO=\x1b", "HELO=\xfc", f"HELO={'a' * 600}"],
)  # fmt: skip
def test_what_is_none(arg: str) -> None:
    with pytest.raises(ValueError, match=r"attribute|address"):
        attributes(arg)


@pytest.mark.parametrize(
    ("said", "more", "together"),
    [
        ("NAME=a LOGIN=bob", "ADDR=192.0.2.7", "NAME=a LOGIN=bob ADDR=192.0.2.7"),
        ("ADDR=192.0.2.7", "NAME=a HELO=b", "ADDR=192.0.2.7 NAME=a HELO=b"),
        ("ADDR=192.0.2.7 LOGIN=bob", "LOGIN=bob ADDR=192.0.2.7", "ADDR=192.0.2.7 LOGIN=bob"),
        ("ADDR=192.0.2.7", "ADDR=192.0.2.8", None),
        ("ADDR=192.0.2.7", "LOGIN=bob", None),
        ("NAME=a", "NAME=b", None),
    ],
)
def test_what_a_later_command_adds(said: str, more: str, together: str | None) -> None:
    before, new = attributes(said), attributes(more)
    if together:
        assert added(before, new) == attributes(together)
        return
    with pytest.raises(ValueError, match="otherwise"):
        added(before, new)


@given(st.text())
def test_reading_ends_with_a_client_or_a_refusal(arg: str) -> None:
    try:
        found = client(attributes(arg))
    except ValueError:
        return
    assert all(text.isprintable() for text in (found.helo, found.host, found.user))
