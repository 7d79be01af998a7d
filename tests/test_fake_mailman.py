"""The fake Mailman is held against the real one: the same words to both, the same replies from both.

What it does only when told to (fake_script.py) is tested below, since other tests rest on it.
"""

from collections.abc import Iterator

import pytest

from tests.stack.client import Client, Reply
from tests.stack.fake_mailman import FakeMailman
from tests.stack.fake_script import Act, Stage, Then, drop, hang, say
from tests.stack.fake_session import Manner
from tests.stack.stack import Stack

HEADER = b"From: ida@example.org\r\nSubject: two lists\r\n"
GOOD = HEADER + b"Message-ID: <good@example.org>\r\n\r\n.one dot\r\n"
ONE_LIE = 1  # reply, for two recipients

COMMANDS = [
    ["EHLO x.test"],
    ["HELO x.test"],
    ["LHLO"],
    ["MAIL FROM:<ida@example.org>"],
    ["RCPT TO:<{list}>"],
    ["DATA"],
    ["NONSENSE"],
    [""],
    ["LHLO x.test", "RCPT TO:<{list}>"],
    ["LHLO x.test", "DATA"],
    ["LHLO x.test", "NOOP", "RSET", "QUIT"],
    ["LHLO x.test", "MAIL FROM:<>", "MAIL FROM:<>", "RSET", "MAIL FROM:<>"],
    ["LHLO x.test", "MAIL ida", "MAIL"],
    ["LHLO x.test", "MAIL FROM:<ida@example.org> SIZE=33554432 BODY=8BITMIME"],
    ["LHLO x.test", "MAIL FROM:<ida@example.org> SIZE=33554433"],
    ["LHLO x.test", "MAIL FROM:<ida@example.org> SMTPUTF8"],
    ["LHLO x.test", "MAIL FROM:<ida@example.org> RET=HDRS"],
    ["LHLO x.test", "MAIL FROM:<jörg@example.org>"],
    ["LHLO x.test", "mail from: <ida@example.org>", "rcpt to: <{list}>", "data"],
    ["LHLO x.test", "MAIL FROM:<>", "RCPT TO:<nosuch@lists.test>", "DATA"],
    ["LHLO x.test", "MAIL FROM:<>", "RCPT TO:<{list}> NOTIFY=NEVER", "RCPT TO:<gärten@lists.test>"],
    ["LHLO x.test", "MAIL FROM:<>", "RCPT TO:<{list}>", "RCPT TO:<{list}>", "LHLO y.test", "DATA"],
]

# Each is sent to two recipients: (what is particular, the message, how many replies come, the reply to MAIL after it).
MESSAGES = [
    ("good", GOOD, 2, 250),
    ("empty", b"", 2, 250),
    ("header only", HEADER, 2, 250),
    ("8-bit subject", HEADER.replace(b"two", b"\xe4"), 2, 250),
    ("line of 999 octets", GOOD + b"x" * 999 + b"\r\n", 2, 250),
    ("line of 1000 octets", GOOD + b"x" * 1000 + b"\r\n", ONE_LIE, 250),
    ("line of 999 octets that begins with a dot", GOOD + b"." + b"x" * 998 + b"\r\n", ONE_LIE, 250),
    ("line of 10240 octets", GOOD + b"x" * 10240 + b"\r\n", ONE_LIE, 250),
    ("header line without colon", HEADER + b"no colon here\r\n\r\nhi\r\n", ONE_LIE, 250),
    ("multipart without boundary", HEADER + b"Content-Type: multipart/mixed\r\n\r\nhi\r\n", ONE_LIE, 250),
    ("8-bit Message-ID", HEADER + b"Message-ID: <\xc3\xa4@example.org>\r\n\r\nhi\r\n", ONE_LIE, 503),
    ("33 MiB", GOOD + (b"x" * 62 + b"\r\n") * (33 * 2**14), ONE_LIE, 250),
]


@pytest.fixture
def both(stack: Stack, a_list: str) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Where the real one listens, and a fake that has the same list."""
    owner = a_list.replace("@", "-owner@")
    with FakeMailman(Manner(lists=frozenset({a_list, owner}))) as fake:
        yield stack.mailman.address, fake.address


@pytest.mark.parametrize("commands", COMMANDS, ids=lambda commands: " | ".join(commands) or "nothing")
def test_it_answers_commands_as_the_real_one(
    both: tuple[tuple[str, int], tuple[str, int]], a_list: str, commands: list[str]
) -> None:
    said: list[list[Reply]] = []
    for address in both:
        with Client(address, lmtp=True, hello=False) as client:
            said.append([client.reply(), *(client.command(one.replace("{list}", a_list)) for one in commands)])
    assert said[1] == said[0]


@pytest.mark.parametrize(("message", "replies", "after"), [case[1:] for case in MESSAGES], ids=[c[0] for c in MESSAGES])
def test_it_judges_a_message_as_the_real_one(
    both: tuple[tuple[str, int], tuple[str, int]], a_list: str, message: bytes, replies: int, after: int
) -> None:
    said = []
    for address in both:
        with Client(address, lmtp=True, timeout=60) as client:
            client.pipeline(
                ["MAIL FROM:<>", f"RCPT TO:<{a_list}>", f"RCPT TO:<{a_list.replace('@', '-owner@')}>", "DATA"]
            )
            client.send(message.replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n")
            got = client.replies(replies)
            # A reply to NOOP next: so there was no further reply to the message.
            assert client.command("NOOP").text == "OK"
            said.append((got, client.command("MAIL FROM:<>")))
    assert said[1] == said[0]
    assert said[0][1].code == after


def test_it_keeps_what_it_took(fake: FakeMailman) -> None:
    with Client(fake.address, lmtp=True) as client:
        result = client.deliver("ida@example.org", ["a@lists.test", "b@lists.test"], GOOD, "BODY=8BITMIME")
    assert result.codes == [250, 250]
    taken = fake.wait_taken()[0]
    assert (taken.sender, taken.parameters) == ("ida@example.org", "BODY=8BITMIME")
    assert taken.recipients == ("a@lists.test", "b@lists.test")
    assert taken.octets == GOOD
    assert fake.arrived("b@lists.test") == ["<good@example.org>"]


THREE = ["a@lists.test", "b@lists.test", "c@lists.test"]


@pytest.mark.parametrize(
    ("act", "codes", "taken"),
    [
        (say("501 Message has defects"), [501], ()),
        (say("250 Ok", "451 no", "550 no"), [250, 451, 550], ("a@lists.test",)),
        (Act(lines=2, then=Then.CLOSE), [250, 250], tuple(THREE)),
        (Act(octets=13, then=Then.CLOSE), [250], tuple(THREE)),
        (drop(), [], tuple(THREE)),
        (Act(lines=0, then=Then.RESET, took=False), [], ()),
        (Act(extra=("250 Ok", "250 Ok")), [250] * 5, tuple(THREE)),
    ],
    ids=[
        "one for three",
        "each its own",
        "two then gone",
        "a reply and a piece",
        "taken, not said",
        "reset",
        "too many",
    ],
)
def test_it_misbehaves_after_the_dot(fake: FakeMailman, act: Act, codes: list[int], taken: tuple[str, ...]) -> None:
    fake.on(Stage.DOT, act, times=1)
    with Client(fake.address, lmtp=True) as client:
        client.pipeline(["MAIL FROM:<>", *(f"RCPT TO:<{one}>" for one in THREE), "DATA"])
        client.send(GOOD + b".\r\n")
        assert [reply.code for reply in client.replies(len(codes))] == codes
        if act.then is not Then.GO_ON:
            with pytest.raises((EOFError, ConnectionResetError)):
                client.reply()
    assert [one.recipients for one in fake.taken] == ([taken] if taken else [])


@pytest.mark.parametrize("stage", [Stage.GREETING, Stage.LHLO, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT])
def test_it_hangs_and_drops_at_each_stage(fake: FakeMailman, stage: Stage) -> None:
    words = ["LHLO x.test", "MAIL FROM:<>", "RCPT TO:<a@lists.test>", "DATA", "hi\r\n."]
    before = list(Stage).index(stage)
    for act in (hang(), drop()):
        fake.on(stage, act, times=1)
        with Client(fake.address, lmtp=True, hello=False) as client:
            if before:
                assert client.reply().code == 220
                assert all(client.command(word).code < 400 for word in words[: before - 1])
                client.send(words[before - 1].encode() + b"\r\n")
            if act.then is Then.HANG:
                assert client.silent(0.2)
            else:
                with pytest.raises(EOFError):
                    client.reply()


def test_rules_are_for_one_recipient_and_run_out(fake: FakeMailman) -> None:
    fake.on(Stage.RCPT, say("450 later"), only="b@lists.test", times=1)
    fake.on(Stage.DOT, say("550 not you"), only="c@lists.test", times=1)
    with Client(fake.address, lmtp=True) as client:
        first = client.deliver("", THREE, GOOD)
        second = client.deliver("", THREE, GOOD)
    assert [reply.code for reply in first.recipients] == [250, 450, 250]
    assert first.codes == [250, 550]
    assert second.codes == [250, 250, 250]


def test_garbage_slowness_and_refusal(fake: FakeMailman) -> None:
    fake.on(Stage.NOOP, Act(raw=b"\x00\xff not a reply\r\n"), times=1)
    fake.on(Stage.NOOP, Act(pause=1.5), times=1)
    with Client(fake.address, lmtp=True) as client:
        with pytest.raises(ValueError, match="invalid literal"):
            client.command("NOOP")
        client.send(b"NOOP\r\n")
        assert client.silent(0.2)
        assert client.reply() == Reply(250, ("OK",))
    fake.refuse()
    with pytest.raises(ConnectionRefusedError):
        Client(fake.address)
    fake.accept()
    Client(fake.address, lmtp=True).quit()


def test_it_offers_what_it_is_told_to() -> None:
    with FakeMailman(Manner(extensions=("PIPELINING", "SMTPUTF8", "SIZE 1000"))) as fake:
        with Client(fake.address, lmtp=True) as client:
            assert client.extensions == {"PIPELINING": "", "SMTPUTF8": "", "SIZE": "1000"}
            assert client.deliver("jörg@example.org", ["a@lists.test"], GOOD, "SMTPUTF8").codes == [250]
            assert client.deliver("", ["a@lists.test"], GOOD + b"x\r\n" * 400).codes == [552]
        assert fake.taken[0].sender == "jörg@example.org"
