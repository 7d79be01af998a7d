"""The relay door's dialogue: what it offers, what each command is answered, and as many replies as recipients."""

import re
import socket
from pathlib import Path

import pytest

from tests.edge.failures import DELIVERED, NO_SUCH_LIST, SPOOLED, A, B
from tests.edge.pair import Pair, body, mail
from tests.stack.client import Client, Reply
from tests.stack.fake_script import Stage, say
from tests.stack.fake_session import Manner

LMTP, UNIX, SMTP = "LMTP", "LMTP on a unix socket", "SMTP"
_ENHANCED = re.compile(r"([245])\d\d \1\.\d{1,3}\.\d{1,3} \S")
# 40 MiB, and what Exim may count less (session.py)
_SIZE = 40 * 2**20 * 105 // 100 + 16 * 1024
_KEYWORDS = {"PIPELINING": "", "ENHANCEDSTATUSCODES": "", "8BITMIME": "", "SMTPUTF8": "", "SIZE": str(_SIZE)}


def at(pair: Pair, door: str, *, hello: bool = True) -> Client:
    """A client at that door."""
    doors: dict[str, tuple[str, int] | Path] = {LMTP: pair.gate.lmtp, UNIX: pair.gate.socket, SMTP: pair.gate.smtp}
    return Client(doors[door], lmtp=door != SMTP, hello=hello)


def words(replies: tuple[Reply, ...]) -> list[str]:
    """Replies, with … for the gate id."""
    return [re.sub(r"(?<=\d )[0-9a-z]{18}", "…", str(reply)) for reply in replies]


@pytest.mark.parametrize("door", [LMTP, UNIX, SMTP])
def test_what_it_offers(pair: Pair, door: str) -> None:
    with at(pair, door) as client:
        assert client.extensions == _KEYWORDS
        assert str(client.greeting) == f"220 gate.lists.test mailgate {'ESMTP' if door == SMTP else 'LMTP'}"


@pytest.mark.parametrize("door", [LMTP, UNIX, SMTP])
def test_delivery(pair: Pair, door: str) -> None:
    octets = mail("<door@example.net>")
    with at(pair, door) as client:
        for _ in range(2):
            assert words(client.deliver("bob@example.net", [A], octets).final) == [DELIVERED]
        assert str(client.quit()).startswith("221 2.0.0")
    first, second = pair.fake.taken
    assert first.octets.endswith(octets)
    assert (first.sender, first.recipients) == ("bob@example.net", (A,))
    assert f"with {'ESMTP' if door == SMTP else 'LMTP'} id".encode() in first.octets
    assert first.octets.partition(b"X-Mailgate-Id: ")[2][:18] != second.octets.partition(b"X-Mailgate-Id: ")[2][:18]


# Each line: what is said, and the code of the reply. HELLO is LHLO or EHLO.
DIALOGUES: dict[str, list[tuple[bytes, int]]] = {
    "before the greeting": [
        (b"MAIL FROM:<a@example.net>", 503), (b"RCPT TO:<a@lists.test>", 503), (b"DATA", 503),
        (b"NOOP", 250), (b"RSET", 250), (b"HELP", 250), (b"QUIT", 221),
    ],
    "in disorder": [
        (b"HELLO", 501), (b"HELLO x", 250), (b"RCPT TO:<a@lists.test>", 503), (b"DATA", 503),
        (b"MAIL FROM:<a@example.net>", 250), (b"MAIL FROM:<b@example.net>", 503), (b"DATA", 503),
        (b"RCPT TO:<a@lists.test>", 250), (b"DATA now", 501), (b"RSET", 250), (b"DATA", 503), (b"QUIT", 221),
    ],
    "MAIL": [
        (b"HELLO x", 250), (b"MAIL", 501), (b"MAIL TO:<a@example.net>", 501), (b"MAIL FROM:", 553),
        (b"MAIL FROM:<a@example.net", 553), (b"MAIL FROM:a@example.net", 553), (b"MAIL FROM:<a b@example.net>", 553),
        (b"MAIL FROM:<a\x00@example.net>", 553), (b"MAIL FROM:<<a@example.net>>", 553),
        (b"MAIL FROM:<a@example.net> NOTIFY=NEVER", 555), (b"MAIL FROM:<a@example.net> SIZE=x", 501),
        (b"MAIL FROM:<a@example.net> BODY=BINARYMIME", 501), (b"MAIL FROM:<a@example.net> SMTPUTF8=1", 501),
        (b"MAIL FROM:<a@example.net> SIZE=\xc2\xb2", 553), (b"MAIL FROM:<a@example.net> SIZE=" + b"9" * 4000, 552),
        (b"MAIL FROM:<a@example.net> SIZE=%d" % (_SIZE + 1), 552), (b"MAIL FROM:<a@example.net> SIZE=%d" % _SIZE, 250),
        (b"RSET", 250), (b"mail from:<> BODY=8BITMIME SMTPUTF8 SIZE=0", 250), (b"RSET", 250),
        (b"MAIL FROM: <a@example.net>", 250), (b"RSET", 250), (b'MAIL FROM:<"a b"@example.net>', 250), (b"RSET", 250),
        (b"MAIL FROM:<a@[192.0.2.1]>", 250), (b"RSET", 250), (b"MAIL FROM:<a@[IPv6:2001:db8::1]>", 250),
    ],
    "RCPT": [
        (b"HELLO x", 250), (b"MAIL FROM:<>", 250), (b"RCPT", 501), (b"RCPT TO:", 553), (b"RCPT TO:<>", 553),
        (b"RCPT TO:<a@lists.test", 553), (b"RCPT TO:<a@lists.test> NOTIFY=NEVER", 555), (b"RCPT FROM:<a@b.test>", 501),
        (b"RCPT TO:<a\r@lists.test>", 553), (b"RCPT TO:<a@lists.test>", 250), (b"RCPT TO:<A@Lists.Test>", 250),
        (b"RCPT TO:<b+c=d@lists.test>", 250), (b"RCPT TO:<l\xc3\xafst@lists.test>", 250), (b"RSET", 250),
    ],
    "what is no command": [
        (b"", 500), (b" ", 500), (b"\x00", 500), (b"BDAT 3 LAST", 500), (b"XYZZY", 500), (b"MAIL\tFROM:<>", 500),
        (b"\xff\xfe\xfd", 500), (b"NOOP" + b"x" * 5000, 500), (b"x" * 200_000, 500), (b"STARTTLS", 500),
        (b"AUTH PLAIN AAAA", 500), (b"VRFY <a@lists.test>", 252), (b"EXPN a", 502), (b"HELP MAIL", 250),
        (b"NOOP again and again", 250), (b"QUIT", 221),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", DIALOGUES)
@pytest.mark.parametrize("door", [LMTP, SMTP])
def test_dialogues(pair: Pair, door: str, name: str) -> None:
    """Each command has one reply, and each reply an enhanced code (RFC 2034), but the greetings."""
    with at(pair, door, hello=False) as client:
        client.reply()
        for command, code in DIALOGUES[name]:
            hello = command.startswith(b"HELLO")
            reply = client.command(command.replace(b"HELLO", b"EHLO" if door == SMTP else b"LHLO"))
            assert reply.code == code, (command[:80], reply)
            assert _ENHANCED.match(str(reply)) or (hello and code == 250), reply
            assert reply.text.isascii()
    assert not pair.gate.events("session.failed")


def test_each_door_has_its_own_greeting(pair: Pair) -> None:
    with at(pair, LMTP, hello=False) as client:
        client.reply()
        assert client.command("EHLO x").code == client.command("HELO x").code == 500
    with at(pair, SMTP, hello=False) as client:
        client.reply()
        assert client.command("LHLO x").code == 500
        assert client.command("HELO x").code == 250
        assert words(client.deliver("", [A], mail("<helo@example.net>")).final) == [DELIVERED]


def test_commands_that_nobody_knows_end_the_session(pair: Pair) -> None:
    with at(pair, LMTP) as client:
        client.send(b"WHAT\r\n" * 30 + b"NOOP\r\n")
        assert [reply.code for reply in client.replies(21)] == [500] * 20 + [421]
        with pytest.raises((EOFError, ConnectionResetError)):
            client.reply()


def test_a_thousand_recipients_and_no_more(pair: Pair) -> None:
    """And as many replies, on the way to Mailman and when it is down."""
    with at(pair, LMTP) as client:
        for wanted in (DELIVERED, SPOOLED):
            commands = ["MAIL FROM:<bob@example.net>", *[f"RCPT TO:<{one}>" for one in (A, B) * 500]]
            assert {reply.code for reply in client.pipeline(commands)} == {250}
            assert str(client.command(f"RCPT TO:<{A}>")).startswith("452 4.5.3 ")
            assert client.command("DATA").code == 354
            client.send(mail("<thousand@example.net>") + b".\r\n")
            assert words(client.replies(1000)) == [wanted] * 1000
            assert client.command("NOOP").code == 250
            pair.fake.refuse()
    assert [taken.recipients for taken in pair.fake.taken] == [(A, B)]
    pair.fake.accept()


@pytest.mark.parametrize("door", [LMTP, SMTP])
def test_duplicates_are_answered_one_by_one_and_delivered_once(pair: Pair, door: str) -> None:
    pair.mailman_is(Manner(lists=frozenset({A})))
    with at(pair, door) as client:
        result = client.deliver("bob@example.net", [A, B, A, B, A], mail("<twice@example.net>"))
        said = [DELIVERED, NO_SUCH_LIST, DELIVERED, NO_SUCH_LIST, DELIVERED]
        assert words(result.final) == (said if door == LMTP else ["250 2.0.0 … delivered 1, rejected 1"])
        assert client.command("NOOP").code == 250
    assert [taken.recipients for taken in pair.fake.taken] == [(A,)]


def test_the_null_reverse_path(pair: Pair) -> None:
    with at(pair, LMTP) as client:
        assert words(client.deliver("", [A], mail("<null@example.net>")).final) == [DELIVERED]
    assert pair.fake.taken[0].sender == ""
    assert "MAIL FROM:<>" in " ".join(pair.fake.commands)


ADDRESSES = [
    '"a b"@example.net', '"a\\"b"@example.net', '""@example.net', "a..b.@example.net", "postmaster",
    "=?utf-8?q?a?=@example.net", "prvs=a/b+c@example.net", "a@[IPv6:2001:db8::1]", "b\u00f6b@b\u00fccher.example",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_stay_as_they_are(pair: Pair, address: str) -> None:
    pair.mailman_is(Manner(("SMTPUTF8", "8BITMIME")))
    with at(pair, LMTP) as client:
        result = client.deliver(address, [address], mail("<address@example.net>"), "SMTPUTF8")
        assert words(result.final) == [DELIVERED]
    assert f"MAIL FROM:<{address}>" in " ".join(pair.fake.commands)
    assert f"RCPT TO:<{address}>" in pair.fake.commands


def test_a_source_route_is_dropped(pair: Pair) -> None:
    """RFC 5321 §4.1.1.3."""
    with at(pair, LMTP) as client:
        route = "@one.example,@two.example:"
        assert words(client.deliver(f"{route}bob@example.net", [route + A], mail("<r@example.net>")).final) == [
            DELIVERED
        ]
    assert (pair.fake.taken[0].sender, pair.fake.taken[0].recipients) == ("bob@example.net", (A,))


def test_received_fields_are_counted(pair: Pair) -> None:
    """RFC 5321 §6.3: one hundred may be, one more is a loop."""
    hop = b"Received: from a (a [192.0.2.1])\r\n\tby b with ESMTP; Sun, 22 Nov 2026 10:00:00 +0000\r\n"
    with at(pair, LMTP) as client:
        result = client.deliver("", [A, B], hop * 101 + mail("<loop@example.net>"))
        assert [word[:12] for word in words(result.final)] == ["554 5.4.6 … "] * 2
        assert words(client.deliver("", [A], hop * 100 + mail("<round@example.net>")).final) == [DELIVERED]
    assert pair.fake.arrived(A) == ["<round@example.net>"]
    assert pair.people("<loop@example.net>") == {}


def test_a_header_without_end_is_refused_for_each(pair: Pair) -> None:
    octets = mail("<wide@example.net>").replace(b"Subject: ", b"Subject: " + b"x" * 78 + b"\r\n ")
    octets = octets.replace(b"To: ", b"X-Much: " + b"y" * 1000 * 1100 + b"\r\nTo: ")
    with at(pair, LMTP) as client:
        assert [word[:12] for word in words(client.deliver("", [A, B, A], octets).final)] == ["552 5.3.4 … "] * 3
        assert words(client.deliver("", [A], mail("<next@example.net>")).final) == [DELIVERED]


BODIES = {
    "10 KB lines": b"x" * 10_000 + b"\r\n" + b"y" * 10_001 + b"\r\n",
    "dots": b".\r\n..\r\n...\r\n. \r\n.x\r\n\r\n.\r\n",
    "8 bit": bytes(range(32, 256)) + b"\r\n\xff\xfe\x80\r\n",
    "NUL": b"a\x00b\r\n\x00\r\n",
    "nothing": b"",
    "empty lines": b"\r\n" * 50,
    "many lines": b"x\r\n" * 100_000,
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("door", [LMTP, SMTP])
def test_octets_stay_as_they_are(pair: Pair, door: str, name: str) -> None:
    pair.fake.on(Stage.DOT, say("250 Ok"))  # Mailman itself does not take long lines
    octets = mail("<octets@example.net>", BODIES[name])
    with at(pair, door) as client:
        assert words(client.deliver("", [A], octets).final) == [DELIVERED]
    (taken,) = pair.fake.taken
    assert taken.octets.endswith(octets)
    assert taken.octets.count(b"\r\nX-Mailgate-Id: ") == 1


def test_what_is_only_a_dot(pair: Pair) -> None:
    """A message without a header, or of nothing at all, is a message."""
    with at(pair, LMTP) as client:
        for octets in (b"", b"\r\n", b"\r\n.\r\n", b"Subject: no body\r\n"):
            assert words(client.deliver("", [A], octets).final) == [DELIVERED], octets
    assert [body(taken.octets) for taken in pair.fake.taken] == [b"", b"", b".\r\n", b""]


EVIL = b"MAIL FROM:<evil@example.net>\r\nRCPT TO:<b@lists.test>\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n"
ENDS = [
    b"\n.\n",
    b"\r.\r",
    b"\n.\r\n",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r\n.\x00\r\n",
    b"\r\n\x00.\r\n",
]


@pytest.mark.parametrize("end", ENDS, ids=repr)
@pytest.mark.parametrize("door", [LMTP, SMTP])
def test_nothing_but_crlf_dot_crlf_ends_a_message(pair: Pair, door: str, end: bytes) -> None:
    """What a laxer server would take for the end (SMTP smuggling) reaches Mailman within the one message."""
    with at(pair, door) as client:
        client.pipeline(["MAIL FROM:<bob@example.net>", f"RCPT TO:<{A}>", "DATA"])
        client.send(mail("<smuggle@example.net>") + b"before" + end + EVIL + b".\r\n")
        assert words(client.replies(1)) == [DELIVERED]
        assert client.silent(0.05)
    (taken,) = pair.fake.taken
    assert (taken.sender, taken.recipients) == ("bob@example.net", (A,))
    assert b"RCPT TO:<b@lists.test>" in body(taken.octets)
    assert taken.octets.count(b"\r\n") == taken.octets.count(b"\r") == taken.octets.count(b"\n")


def test_everything_in_one_write(pair: Pair) -> None:
    """Before the greeting: transactions with a refused recipient, commands behind the final dot, QUIT. RFC 2920."""
    transaction = (
        b"MAIL FROM:<bob@example.net>\r\nRCPT TO:<a@lists.test>\r\nRCPT TO:<>\r\nRCPT TO:<b@lists.test>\r\nDATA\r\n"
    )
    said = b"LHLO x\r\n" + (transaction + mail("<one@example.net>") + b".\r\n") * 3 + b"NOOP\r\nQUIT\r\nNOOP\r\n"
    with at(pair, LMTP, hello=False) as client:
        client.send(said)
        client._socket.shutdown(socket.SHUT_WR)
        codes = [reply.code for reply in client.replies(2 + 7 * 3 + 2)]
        assert codes == [220, 250] + [250, 250, 553, 250, 354, 250, 250] * 3 + [250, 221]
        with pytest.raises(EOFError):
            client.reply()
    assert pair.fake.arrived(A) == pair.fake.arrived(B) == ["<one@example.net>"] * 3


def test_octet_by_octet(pair: Pair) -> None:
    octets = mail("<slow@example.net>", b"..\r\n\r\n.x\r\n")
    with at(pair, LMTP) as client:
        client._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.pipeline(["MAIL FROM:<bob@example.net>", f"RCPT TO:<{A}>", "DATA"])
        for octet in octets.replace(b"\r\n.", b"\r\n..") + b".\r\nNOOP\r\n":
            client.send(bytes([octet]))
        assert [reply.code for reply in client.replies(2)] == [250, 250]
    assert pair.fake.taken[0].octets.endswith(octets)


@pytest.mark.parametrize(("door", "hello"), [(LMTP, "LHLO"), (SMTP, "EHLO")])
def test_who_does_not_say_hello_is_told_how(pair: Pair, door: str, hello: str) -> None:
    with at(pair, door, hello=False) as client:
        client.reply()
        for command in ("MAIL FROM:<a@example.net>", "RCPT TO:<a@lists.test>", "DATA"):
            assert str(client.command(command)) == f"503 5.5.1 Error: send {hello} first"
