"""The SMTP door behind a front that says whom it passes on: the PROXY protocol and XCLIENT, as told and as forged."""

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mailgate import config
from mailgate.edge.listener import Listener
from mailgate.edge.listener.front import FrontedSession
from tests.edge.pair import Pair, mail, started
from tests.edge.test_door import LMTP, at
from tests.stack.client import Client
from tests.stack.ports import Port
from tests.stack.waiting import wait_until

LIST = "list@lists.test"
EID = "1xV0Ys-0004sm-35"
# What a stranger would like us to believe, and what our Exim says.
CLAIMS = (
    f"Received: from [203.0.113.9] (helo=exim)\r\n\tby mx.lists.test with esmtp (Exim 4.96)\r\n\tid {EID};\r\n\tnow\r\n"
    f"X-Mailgate-Client: ip=203.0.113.9; eid={EID}\r\n"
).encode()
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# 127.8.0.0/16 are strangers, the rest of the loopback network are peers.
PEERS = ["127.0.0.0/16", "127.1.0.0/16", "::1"]


@pytest.fixture(scope="module")
def _proxied() -> Iterator[Pair]:
    with started({"relay": {"proxy_protocol": True, "xclient": True, "trusted_peers": PEERS}}) as pair:
        yield pair


@pytest.fixture
def proxied(_proxied: Pair) -> Iterator[Pair]:
    """A gate that wants a PROXY header, and offers XCLIENT."""
    yield _proxied
    _proxied.settle()


@pytest.fixture(scope="module")
def _fronted() -> Iterator[Pair]:
    with started({"relay": {"xclient": True, "trusted_peers": PEERS}}) as pair:
        yield pair


@pytest.fixture
def fronted(_fronted: Pair) -> Iterator[Pair]:
    """A gate that offers XCLIENT."""
    yield _fronted
    _fronted.settle()


def v1(source: str) -> bytes:
    """The header of version 1."""
    family = "TCP6" if ":" in source else "TCP4"
    there = "::1" if ":" in source else "127.0.0.1"
    return f"PROXY {family} {source} {there} 4711 25\r\n".encode()


def v2(source: str, command: int = 1, extra: bytes = b"") -> bytes:
    """The header of version 2, with more behind the addresses if there is any."""
    here, there = ipaddress.ip_address(source), ipaddress.ip_address("::1" if ":" in source else "127.0.0.1")
    rest = here.packed + there.packed + struct.pack("!HH", 4711, 25) + extra
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, 0x11 if here.version == 4 else 0x21, len(rest)) + rest


def said(pair: Pair, octets: bytes) -> Client:
    """A client that says this before all else, greeted and introduced."""
    client = Client(pair.gate.smtp, hello=False)
    client.send(octets)
    client.greeting = client.reply()
    return client


def sent(pair: Pair, client: Client) -> dict[str, Any]:
    """A message by that client; what the log says of it."""
    (reply,) = client.deliver("ida@example.org", [LIST], CLAIMS + mail("<m@example.net>")).final
    assert reply.code == 250
    return pair.gate.wait_for_event("message.delivered", id=reply.text.split()[1])


def whom(event: dict[str, Any]) -> tuple[str, str, str]:
    """Who the client is, by whose word, with which HELO."""
    return event["client"], event["origin"], event.get("helo", "")


@pytest.mark.parametrize(
    ("header", "ip"),
    [
        (v1("192.0.2.7"), "192.0.2.7"),
        (v1("2001:db8::7"), "2001:db8::7"),
        (v1("::ffff:192.0.2.7"), "192.0.2.7"),
        (v1("127.8.0.1"), "127.8.0.1"),
        (v2("192.0.2.7"), "192.0.2.7"),
        (v2("2001:db8::7"), "2001:db8::7"),
        (v2("192.0.2.7", extra=b"\x04\0\x03abc" * 500), "192.0.2.7"),
    ],
)
def test_a_stranger_who_is_passed_on_is_the_client(proxied: Pair, header: bytes, ip: str) -> None:
    before = proxied.gate.metric("mailgate_origin_total", source="proxy")
    with said(proxied, header) as client:
        client.hello("mx.example.net")
        assert whom(sent(proxied, client)) == (ip, "proxy", "mx.example.net")
        assert "XCLIENT" not in client.extensions
        assert client.command("XCLIENT ADDR=127.0.0.1").code == 550
        assert whom(sent(proxied, client)) == (ip, "proxy", "mx.example.net")
    assert proxied.gate.metric("mailgate_origin_total", source="proxy") == before + 2
    taken = proxied.fake.taken[-1].octets
    assert b"X-Mailgate-Client" not in taken
    literal = f"IPv6:{ip}" if ":" in ip else ip
    assert taken.startswith(f"Received: from mx.example.net ([{literal}])\r\n".encode())


@pytest.mark.parametrize("header", [v1("127.1.0.1"), v2("127.1.0.1"), v1("::1"), v2("192.0.2.7", command=0)])
def test_a_peer_who_is_passed_on_is_believed(proxied: Pair, header: bytes) -> None:
    with said(proxied, header) as client:
        client.hello("exim.lists.test")
        event = sent(proxied, client)
    assert whom(event) == ("203.0.113.9", "header", "")
    assert event["exim_id"] == EID


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        SIGNATURE + b"\x21\x00\x00\x00",
        SIGNATURE + b"\x21\x31\x00\xd8" + b"/run/x\0".ljust(216, b"\0"),
    ],
)
def test_who_is_passed_on_without_an_address_is_unknown(proxied: Pair, header: bytes) -> None:
    with said(proxied, header) as client:
        client.hello("mx.example.net")
        event = sent(proxied, client)
    assert whom(event) == ("", "unknown", "mx.example.net")
    assert event["exim_id"] == ""


@pytest.mark.parametrize(
    "header",
    [
        b"EHLO mx.example.net\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP4 2001:db8::7 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 1 99999\r\n",
        b"PROXY TCP4 mx.example.net 127.0.0.1 1 2\r\n",
        b"PROXY " + b"x" * 100_000 + b"\r\n",
        SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
        b"\r\n\r\n\0\r\nQUIP\n" + bytes(20),
    ],
)
def test_without_a_header_by_the_rules_the_connection_ends(proxied: Pair, header: bytes) -> None:
    before = proxied.gate.metric("mailgate_reasons_total", reason="bad-proxy-header")
    told = len(proxied.gate.events("peer.refused"))
    with said(proxied, header) as client:
        assert str(client.greeting) == "421 4.7.0 a PROXY header is asked for here"
        with pytest.raises((EOFError, ConnectionError)):
            client.reply()
    assert proxied.gate.metric("mailgate_reasons_total", reason="bad-proxy-header") == before + 1
    wait_until(lambda: len(proxied.gate.events("peer.refused", peer="127.0.0.1")) > told, "the log says so")
    assert proxied.gate.events("peer.refused", peer="127.0.0.1")[-1]["cause"]


@pytest.mark.parametrize("beginning", [b"", b"PROXY TCP4 192.0.2.7 ", SIGNATURE + b"\x21"])
async def test_a_header_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(FrontedSession, "patience", 0.05)
    telemetry = Recorded()
    file = tmp_path / "mailgate.toml"
    with Port() as port:
        file.write_text(f'[relay]\nlmtp = []\nsmtp = ["{port}"]\nproxy_protocol = true\n')
        listener = Listener(config.load(file), never, never, telemetry)
        await listener.start()
        reader, writer = await asyncio.open_connection(*port.address)
        writer.write(beginning)
        async with asyncio.timeout(60):
            assert await reader.read() == b"421 4.7.0 a PROXY header is asked for here\r\n"
        assert telemetry.events == [("peer.refused", {"peer": "127.0.0.1", "cause": "no PROXY header in time"})]
        writer.close()
        await listener.stop()


class Recorded:
    """Telemetry that keeps its events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def count(self, name: str, amount: float = 1, **labels: str) -> None: ...
    def observe(self, name: str, value: float, exemplar: str = "", **labels: str) -> None: ...

    def event(self, name: str, fields: Mapping[str, object], *, level: str = "info") -> None:
        assert level == "warning"
        self.events.append((name, dict(fields)))


def never(*_: object) -> Any:
    """No message comes."""
    raise AssertionError


def test_a_header_in_pieces_and_all_of_a_dialogue_at_once(proxied: Pair) -> None:
    commands = b"EHLO mx.example.net\r\nMAIL FROM:<>\r\nRCPT TO:<list@lists.test>\r\nDATA\r\n"
    for header in (v1("192.0.2.7"), v2("192.0.2.7")):
        with socket.create_connection(proxied.gate.smtp, 60) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in header:
                connection.sendall(bytes([octet]))
            connection.sendall(commands + mail("<pieces@example.net>") + b".\r\nQUIT\r\n")
            heard = b""
            while piece := connection.recv(65536):
                heard += piece
        codes = [line[:3] for line in heard.split(b"\r\n") if line[3:4] == b" "]
        assert codes == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]

    def told() -> list[dict[str, Any]]:
        events = proxied.gate.events("message.delivered", message_id="<pieces@example.net>")
        return events if len(events) == 2 else []  # the log may come after the reply

    assert [whom(event) for event in wait_until(told, "both are told")] == [
        ("192.0.2.7", "proxy", "mx.example.net")
    ] * 2


def test_the_lmtp_door_has_no_front(proxied: Pair) -> None:
    with at(proxied, LMTP) as client:
        assert whom(sent(proxied, client)) == ("203.0.113.9", "header", "")


def test_who_hangs_up_instead_leaves_nothing_behind(proxied: Pair) -> None:
    for octets in (b"", b"PRO", SIGNATURE + b"\x21\x11\xff\xff" + b"x"):
        with socket.create_connection(proxied.gate.smtp, 60) as connection:
            connection.sendall(octets)
    wait_until(lambda: proxied.connections() == 0, "all sessions have ended")
    assert not proxied.gate.events("session.failed")


# XCLIENT


def introduced(pair: Pair, *commands: str, helo: str = "mx.example.net") -> Client:
    """A client that a front has introduced so."""
    client = Client(pair.gate.smtp)
    assert client.extensions["XCLIENT"] == "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
    for command in commands:
        reply = client.command(f"XCLIENT {command}")
        assert str(reply) == "220 gate.lists.test mailgate ESMTP"
    assert client.command("MAIL FROM:<>").code == 503
    client.hello(helo)
    return client


@pytest.mark.parametrize(
    ("commands", "client", "fields"),
    [
        (["ADDR=192.0.2.7"], ("192.0.2.7", "xclient", "mx.example.net"), {}),
        (["ADDR=IPV6:2001:db8::7 HELO=a"], ("2001:db8::7", "xclient", "a"), {}),
        (["NAME=mx.example.org LOGIN=bob", "ADDR=192.0.2.7"], ("192.0.2.7", "xclient", "mx.example.net"),
         {"host": "mx.example.org", "user": "bob"}),
        (["ADDR=192.0.2.7", "PORT=47 NAME=mx.example.org"], ("192.0.2.7", "xclient", "mx.example.net"),
         {"host": "mx.example.org"}),
        (["ADDR=127.0.0.1", "ADDR=192.0.2.7"], ("192.0.2.7", "xclient", "mx.example.net"), {}),
        (["ADDR=127.0.0.1 LOGIN=bob", "ADDR=192.0.2.7"], ("192.0.2.7", "xclient", "mx.example.net"), {}),
        (["ADDR=127.1.2.3", "NAME=localhost"], ("203.0.113.9", "header", ""), {}),
        (["ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL]"], ("", "unknown", "mx.example.net"), {}),
        (["ADDR=127.1.2.3 LOGIN=bob"], ("203.0.113.9", "header", ""), {}),
    ],
)  # fmt: skip
def test_whom_xclient_names(
    fronted: Pair, commands: list[str], client: tuple[str, str, str], fields: dict[str, str]
) -> None:
    with introduced(fronted, *commands) as front:
        event = sent(fronted, front)
    assert whom(event) == client
    assert {key: event[key] for key in ("host", "user") if key in event} == fields


def test_a_stranger_cannot_say_that_he_is_another(fronted: Pair) -> None:
    with introduced(fronted, "ADDR=192.0.2.7") as client:
        assert "XCLIENT" not in client.extensions
        assert str(client.command("XCLIENT ADDR=127.0.0.1")) == "550 5.7.0 XCLIENT is not for you"
        client.command("RSET")
        assert client.command("XCLIENT ADDR=127.0.0.1").code == 550
        assert whom(sent(fronted, client))[:2] == ("192.0.2.7", "xclient")


@pytest.mark.parametrize(
    ("front", "stranger"),
    [
        ("ADDR=192.0.2.7", "ADDR=192.0.2.5"),
        ("ADDR=192.0.2.7", "ADDR=127.0.0.1"),
        ("ADDR=192.0.2.7", "HELO=a ADDR=[UNAVAILABLE]"),
        ("ADDR=192.0.2.7", "LOGIN=bob"),  # whose mail is not checked
        ("ADDR=192.0.2.7 NAME=mx.example.org", "NAME=mx.example.net"),
        ("ADDR=[UNAVAILABLE]", "ADDR=192.0.2.5"),
        ("NAME=mx.example.net", "ADDR=127.0.0.1"),  # never back to a peer
    ],
)
def test_nor_before_he_introduces_himself(fronted: Pair, front: str, stranger: str) -> None:
    """Nginx says XCLIENT once and then passes on whatever comes."""
    with Client(fronted.gate.smtp) as client:
        assert client.command(f"XCLIENT {front}").code == 220
        assert str(client.command(f"XCLIENT {stranger}")) == "550 5.7.0 XCLIENT is not for you"
        assert client.command(f"XCLIENT {front}").code == 220  # the same again is nothing new
        client.hello("mx.example.net")
        event = sent(fronted, client)
        known = "192.0.2.7" if "192.0.2.7" in front else ""
        assert whom(event)[:2] == (known, "xclient" if known else "unknown")
        assert "user" not in event


def test_what_is_no_xclient(fronted: Pair) -> None:
    with Client(fronted.gate.smtp) as client:
        for argument in ("", " ADDR=mx", " COLOUR=red", " ADDR", " HELO=+4"):
            assert client.command(f"XCLIENT{argument}").code == 501
        client.command("MAIL FROM:<>")
        assert str(client.command("XCLIENT ADDR=192.0.2.7")) == "503 5.5.1 a transaction is under way"
        client.command("RSET")
        assert whom(sent(fronted, client)) == ("203.0.113.9", "header", "")


def test_nobody_is_introduced_where_it_is_not_configured(pair: Pair) -> None:
    with Client(pair.gate.smtp) as client:
        assert "XCLIENT" not in client.extensions
        assert client.command("XCLIENT ADDR=192.0.2.7").code == 550
        assert whom(sent(pair, client)) == ("203.0.113.9", "header", "")
    with said(pair, v1("192.0.2.7")) as client:
        assert (client.greeting.code, client.reply().code) == (220, 500)
