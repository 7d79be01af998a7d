"""The recorder's understanding of SMTP and LMTP, on which the comparison of octets rests."""

from hypothesis import given
from hypothesis import strategies as st

from tests.stack.dialogue import Dialogue, stuffed, unstuffed

LHLO = [("server", b"220 hi\r\n"), ("client", b"LHLO x\r\n"), ("server", b"250-hi\r\n250 8BITMIME\r\n")]


def heard(*turns: tuple[str, bytes], piece: int = 10**6) -> Dialogue:
    """A dialogue that was fed these turns, in pieces of so many octets."""
    dialogue = Dialogue()
    for side, octets in turns:
        feed = dialogue.client if side == "client" else dialogue.server
        for start in range(0, len(octets), piece):
            feed(octets[start : start + piece])
    return dialogue


def test_pipelined_commands_get_their_own_replies() -> None:
    for piece in (1, 7, 10**6):
        dialogue = heard(
            *LHLO,
            ("client", b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\nDATA\r\n"),
            ("server", b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n"),
            ("client", b"Subject: DATA\r\n\r\n..\r\nRSET\r\n.\r\nMAIL FROM:<d@x> SIZE=1\r\nRCPT TO:<a@x>\r\nDATA\r\n"),
            ("server", b"250 one\r\n451 two\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
            ("client", b".\r\nQUIT\r\n"),
            ("server", b"250 three\r\n221 bye\r\n421 what?\r\n"),
            piece=piece,
        )
        first, second = dialogue.transactions
        assert (first.sender, first.accepted) == ("", ["a@x", "c@x"])
        assert first.octets == b"Subject: DATA\r\n\r\n.\r\nRSET\r\n"
        assert (first.replies, first.delivered) == ([b"250 one", b"451 two"], ["a@x"])
        assert (second.mail, second.octets, second.replies) == (b"MAIL FROM:<d@x> SIZE=1", b"", [b"250 three"])
        assert dialogue.unasked == [b"421 what?"]


def test_one_reply_for_two_recipients_is_not_all() -> None:
    envelope = ("client", b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n")
    answers = ("server", b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    dialogue = heard(*LHLO, envelope, answers, ("client", b"hi\r\n.\r\n"), ("server", b"501 defects\r\n"))
    assert not dialogue.transactions[0].answered
    assert dialogue.transactions[0].replies == [b"501 defects"]
    smtp = heard(("server", b"220 hi\r\n"), ("client", b"EHLO x\r\n"), ("server", b"250 hi\r\n"), envelope, answers)
    smtp.client(b"hi\r\n.\r\n")
    smtp.server(b"250 for both\r\n")
    assert smtp.transactions[0].answered


def test_a_refused_data_and_a_reset_leave_no_message() -> None:
    dialogue = heard(
        *LHLO,
        ("client", b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\nRSET\r\nMAIL FROM:<b@x>\r\n"),
        ("server", b"250 ok\r\n550 no\r\n503 no\r\n250 ok\r\n250 ok\r\n"),
    )
    assert dialogue.transactions == []
    assert dialogue.commands[-1] == b"MAIL FROM:<b@x>"


@given(st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x", b"\n.\r", b"\r.\n"])))
def test_stuffing_is_undone(lines: list[bytes]) -> None:
    message = b"".join(line + b"\r\n" for line in lines)
    sent = stuffed(message)
    assert unstuffed(sent.removesuffix(b".\r\n")) == message
    dialogue = heard(
        *LHLO,
        ("client", b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\n"),
        ("server", b"250 ok\r\n250 ok\r\n354 go\r\n"),
        ("client", sent),
    )
    assert [found.octets for found in dialogue.transactions] == [message]
