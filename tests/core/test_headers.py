"""Header fields: what only we may write is cut in every disguise, every other octet stays, and ours can't be bent."""

from __future__ import annotations

import re
from email import message_from_bytes
from email.policy import default as modern

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailgate.core import headers
from mailgate.core.envelope import Envelope, Peer, address_text
from tests.core.cuts import fields_of, made_of

ID = "01jd3v7m5k0q2x4y6z"
FORGED = [
    b"X-Spam-Flag: YES\r\n",
    b"X-Spam-Score: -99 (--)\r\n",
    b"X-Spam-Report: clean\r\n",
    b"X-Spam-Checker-Version: none\r\n",
    b"X-Spam-Status: No\r\n",
    b"X-Spam-Level:\r\n",
    b"x-spam-flag:YES\r\n",
    b"X-SPAM-FLAG: YES\r\n",
    b"X-Spam-Flag : YES\r\n",
    b"X-Spam-Flag\t \t: YES\r\n",
    b"X-Spam-Flag\r\n : YES\r\n",
    b"X-Spam-Flag:\r\n YES\r\n",
    b"X-Spam-Flag: YES\r\n\tand\r\n so on\r\n",
    b"X-Spam-Flag: YES\r\n \r\n",
    b"X-Mailgate-Id: 1\r\n",
    b"X-Mailgate-Client: ip=192.0.2.1\r\n",
    b"x-mailgate-anything: 1\r\n",
    b"X-Mailgate-: 1\r\n",
    b"Authentication-Results: lists.test; spf=pass\r\n",
    b"authentication-results:lists.test;spf=pass\r\n",
    b"Authentication-Results : lists.test; none\r\n",
    b"Authentication-Results\r\n : lists.test; none\r\n",
    b"Authentication-Results: LISTS.Test; spf=pass\r\n",
    b"Authentication-Results: lists.test\r\n",
    b"Authentication-Results: lists.test 1; spf=pass\r\n",
    b"Authentication-Results: lists.test (v) 1; spf=pass\r\n",
    b"Authentication-Results:\r\n\tlists.test;\r\n\tspf=pass\r\n",
    b'Authentication-Results: "lists.test"; spf=pass\r\n',
    b'Authentication-Results: "li\\sts.test"; spf=pass\r\n',
    b"Authentication-Results: (of) lists.test; spf=pass\r\n",
    b"Authentication-Results: (of (a (b)) \\) ;) (c)lists.test(d); spf=pass\r\n",
    b'Authentication-Results: (") lists.test; spf=pass\r\n',
    b"Authentication-Results: (\r\n a\r\n )\r\n lists.test; spf=pass\r\n",
]
KEPT = [
    b"Subject: X-Spam-Flag: YES\r\n",
    b"Subject: a\r\n X-Spam-Flag: YES\r\n",
    b"Subject: a\r\n\tAuthentication-Results: lists.test; spf=pass\r\n",
    b"X-Spam: YES\r\n",
    b"X-Spam-Flagged: YES\r\n",
    b"X-Spam-Score-Total: 1\r\n",
    b"X-Mailgate: 1\r\n",
    b"XX-Mailgate-Id: 1\r\n",
    b"Authentication-Results: mx.example.net; spf=pass\r\n",
    b"Authentication-Results: mx.example.net; spf=pass reason=lists.test\r\n",
    b"Authentication-Results: (lists.test) mx.example.net; none\r\n",
    b"Authentication-Results: lists.test.example.net; none\r\n",
    b"Authentication-Results: notlists.test; none\r\n",
    b'Authentication-Results: "lists (x) .test"; none\r\n',
    b"Authentication-Results: (lists.test\r\n",
    b"Authentication-Results: ) lists.test\r\n",
    b"Authentication-Results: ) ( lists.test\r\n",
    b"Authentication-Results:\r\n",
    b"ARC-Authentication-Results: i=1; lists.test; spf=pass\r\n",
    b"Old-Authentication-Results: lists.test; spf=pass\r\n",
    b"DKIM-Signature: v=1; h=X-Spam-Flag:From;\r\n  b=abc\r\n",
    b"From: \xff\xfe <a@example.org>\r\n",
    b"no field at all\r\n",
    b": no name\r\n",
    b"To: a@example.org\r\n \r\n b@example.org\r\n",
]


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (b"", b"\r\n"),
        (b"", b""),
        (b"From: a@example.org\r\n", b"\r\n"),
        (b"From: a@example.org\r\n", b"To: b@example.org\r\n\r\n"),
        (b"Subject: a\r\n folded\r\n", b"Subject: a\r\n folded\r\n\r\n"),
    ],
)
def test_a_forged_field_is_cut_wherever_it_stands(forged: bytes, before: bytes, behind: bytes) -> None:
    assert headers.cut(before + forged + behind, "lists.test") == before + behind
    assert headers.cut(before + forged + forged + behind, "Lists.Test") == before + behind


@pytest.mark.parametrize("kept", KEPT)
def test_what_only_looks_like_it_stays(kept: bytes) -> None:
    head = b"From: a@example.org\r\n" + kept + b"\r\n"
    assert headers.cut(head, "lists.test") is head
    assert headers.cut(b"X-Spam-Flag: YES\r\n" + kept + b"X-Spam-Flag: YES\r\n\r\n", "lists.test") == kept + b"\r\n"


@pytest.mark.parametrize("head", [b" X-Spam-Flag: YES\r\nFrom: a\r\n\r\n", b"\tx\r\n y\r\nFrom: a\r\n\r\n"])
def test_a_folded_line_that_would_continue_our_own_field_is_cut(head: bytes) -> None:
    assert headers.cut(head, "lists.test") == b"From: a\r\n\r\n"


@given(st.lists(st.sampled_from(FORGED + KEPT), max_size=8))
@example([])
def test_all_that_is_not_cut_is_octet_for_octet(fields: list[bytes]) -> None:
    kept = [field for field in fields if field in KEPT]
    assert headers.cut(b"".join(fields) + b"\r\n", "lists.test") == b"".join(kept) + b"\r\n"


@given(
    made_of(b"\r\n", b" ", b"\t", b":", b"X-Spam-Flag", b"x-mailgate-", b"a", b"(", b")", b'"', b"\\", b";", b"\xff")
    | made_of(b"\r\nAuthentication-Results:", b"\r\n ", b" ", b"(", b")", b'"', b"\\", b";", b"lists.test", b"x")
)
def test_any_octets_lose_whole_lines_only_and_nothing_forged_is_left(head: bytes) -> None:
    left = headers.cut(head, "lists.test")
    fields = iter(fields_of(head))
    assert all(field in fields for field in fields_of(left))  # in their order: `in` consumes
    assert not re.search(rb"(?im)^(x-spam-flag|x-mailgate-[^:\n]*)[ \t]*:", left)
    assert headers.cut(left, "lists.test") == left


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("before", "found"),
    [
        (b"(" * 100_000 + b")" * 100_000, b"lists.test"),
        (b"(x)" * 60_000, b"lists.test"),
        (b"(" * 200_000, b""),
        (b"\\" * 100_000, b"\\" * 50_000),
        (b'"' + b"\\a" * 100_000, b""),
    ],
    ids=["nested", "many", "open", "escapes", "unquoted"],
)
def test_an_authserv_id_behind_a_wall_takes_no_time(before: bytes, found: bytes) -> None:
    """Linear: a pass for each level of a nested comment took minutes."""
    assert headers.authserv_id(b"Authentication-Results: " + before + b" lists.test; none\r\n") == found


@pytest.mark.parametrize(
    ("head", "hops"),
    [
        (b"\r\n", 0),
        (b"Received: from a\r\n\tby b\r\nFrom: x\r\nreceived: by c\r\nRECEIVED : by d\r\n\r\n", 3),
        (b"Subject: a\r\n Received: by b\r\nX-Received: by c\r\nReceived\r\n\r\n", 0),
    ],
)
def test_received_fields_are_counted(head: bytes, hops: int) -> None:
    assert headers.hops(head) == hops


@pytest.mark.parametrize(
    ("head", "value"),
    [
        (b"Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\n\r\n", b"<a@b>"),
        (b"From: x\r\nMESSAGE-id:\r\n <a@b>\r\n", b"<a@b>"),
        (b"Message-ID : <a@b>\r\n", b"<a@b>"),
        (b"Subject: a\r\n Message-ID: <a@b>\r\n\r\n", b""),
        (b"Message-IDs: <a@b>\r\n\r\n", b""),
        (b"", b""),
    ],
)
def test_the_first_field_of_a_name(head: bytes, value: bytes) -> None:
    assert headers.first(head, b"message-id") == value


@pytest.mark.parametrize(
    ("received", "found"),
    [
        (
            b"from mx (mx [192.0.2.1])\r\n\tby lists.test with esmtps\r\n\tid 1xV0Ys-0004sm-35\r\n\tfor a@b;",
            "1xV0Ys-0004sm-35",
        ),
        (b"from mx by lists.test (Exim 4.98) id 1xV0Ys-00000004sm3-35Ab;", "1xV0Ys-00000004sm3-35Ab"),
        (b"from mx by lists.test (Postfix) with ESMTP id 4F2A1C0;", ""),
        (b"from mx by lists.test with LMTP id 01jd3v7m5k0q2x4y6z;", ""),
        (b"from id 1aaaaa-0004sm-35 by lists.test id 1xV0Ys-0004sm-35;", "1xV0Ys-0004sm-35"),
        (
            b'by lists.test (envelope-from <"x id 1aaaaa-0004sm-35 "@evil>)\r\n\tid 1xV0Ys-0004sm-35;',
            "1xV0Ys-0004sm-35",
        ),
    ],
)
def test_exims_id_is_its_own_and_not_a_strangers(received: bytes, found: str) -> None:
    head = b"Received: " + received + b"\r\n\tdate\r\nReceived: by elsewhere id 1bbbbb-0004sm-35\r\n\r\n"
    assert headers.exim_id(head) == found


RECEIVED = b"Received: from [192.0.2.1] (helo=%s)\r\n\tby lists.test with esmtp (Exim 4.96)\r\n\t%s%s\r\n\tdate\r\n"
FORGED_ID = b"id 1aaaaa-0004sm-35"


@pytest.mark.parametrize("own", [b"1xV0Ys-0004sm-35", b"1xV0Ys-00000004sm3-35Ab"])
@pytest.mark.parametrize(
    "behind", [b";", b"\r\n\tfor list@lists.test;", b'\r\n\tfor "x %s for y"@lists.test;' % FORGED_ID]
)
@pytest.mark.parametrize("helo", [b"mx", FORGED_ID, b"\t" + FORGED_ID + b";"])
@pytest.mark.parametrize("sender", [b"", b'(envelope-from <"a %s;"@example.net>)\r\n\t' % FORGED_ID])
def test_nobody_but_our_exim_can_write_the_id_on_a_line_of_its_own(
    own: bytes, behind: bytes, helo: bytes, sender: bytes
) -> None:
    head = RECEIVED % (helo, sender, b"id " + own + behind)
    older = RECEIVED % (b"mx", b"", FORGED_ID + b";")
    assert headers.own_exim_id(head + older + b"\r\n") == own.decode()


@pytest.mark.parametrize(
    "topmost",
    [
        b"Received: from mx by lists.test (Exim 4.98) id 1xV0Ys-0004sm-35;\r\n",
        b"Received: by lists.test\r\n\tid 1xV0Ys-0004sm-35x;\r\n",
        b"Received: by lists.test\r\n\twith LMTP id 01jd3v7m5k0q2x4y6z;\r\n",
        b"Received: by lists.test; date\r\nX-Received: by lists.test\r\n\tid 1xV0Ys-0004sm-35;\r\n",
        b"Subject: a\r\n\tid 1xV0Ys-0004sm-35;\r\n",
        b"",
    ],
)
def test_an_id_that_stands_elsewhere_is_not_our_exims(topmost: bytes) -> None:
    older = b"Received: by elsewhere\r\n\tid 1aaaaa-0004sm-35;\r\n" if b"Received:" in topmost else b""
    assert headers.own_exim_id(topmost + older + b"\r\n") == ""


def test_without_received_there_is_no_exim_id() -> None:
    assert headers.exim_id(b"Subject: id 1xV0Ys-0004sm-35\r\n\r\n") == ""


# what we put in front

LMTP = Peer("lmtp", "127.0.0.1", "exim.lists.test")
ONE = Envelope("a@example.org", ("list@lists.test",))


@pytest.mark.parametrize(
    ("peer", "envelope", "lines"),
    [
        (
            LMTP,
            ONE,
            [
                "Received: from exim.lists.test ([127.0.0.1])",
                f"\tby lists.test (mailgate) with LMTP id {ID}",
                "\tfor <list@lists.test>;",
                "\tTue, 14 Nov 2023 22:13:20 +0000",
            ],
        ),
        (
            Peer("smtp", "2001:db8::1", "[IPv6:2001:db8::1]"),
            Envelope("", ("a@b", "c@d"), smtputf8=True),
            [
                "Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])",
                f"\tby lists.test (mailgate) with UTF8SMTP id {ID};",
                "\tTue, 14 Nov 2023 22:13:20 +0000",
            ],
        ),
        (
            Peer("lmtp", "", "two words"),
            Envelope("", ("b\u00f6b@lists.test",), smtputf8=True),
            [
                "Received: from unknown",
                f"\tby lists.test (mailgate) with UTF8LMTP id {ID};",
                "\tTue, 14 Nov 2023 22:13:20 +0000",
            ],
        ),
        (
            Peer("smtp", "192.0.2.7", ""),
            Envelope("", ('"a b"@lists.test',)),
            [
                "Received: from unknown ([192.0.2.7])",
                f"\tby lists.test (mailgate) with ESMTP id {ID};",
                "\tTue, 14 Nov 2023 22:13:20 +0000",
            ],
        ),
    ],
)
def test_our_received_field(peer: Peer, envelope: Envelope, lines: list[str]) -> None:
    raw = headers.received(envelope, peer, "lists.test", ID, 1_700_000_000.9)
    assert raw.decode().split("\r\n") == [*lines, ""]


ANYTHING = (
    st.text(max_size=300)
    | st.binary(max_size=300).map(address_text)
    | made_of(b"\r\n", b"\n", b"a", b"(", b")", b";", b"id ", b" for ", b"@", b"<", b">", b"x" * 200).map(address_text)
)


@given(ANYTHING, st.lists(ANYTHING, min_size=1, max_size=2), st.sampled_from(["lmtp", "smtp"]), st.booleans())
@example("a\r\nX-Spam-Flag: NO", ["a@b\r\nX-Spam-Flag: NO"], "lmtp", False)
@example("x" * 255, ["l" * 128 + "@" + "d" * 255], "smtp", True)
def test_no_helo_and_no_recipient_bends_our_received_field(
    helo: str, recipients: list[str], door: str, smtputf8: bool
) -> None:
    peer = Peer("lmtp" if door == "lmtp" else "smtp", "192.0.2.7", helo)
    raw = headers.received(Envelope("", tuple(recipients), smtputf8), peer, "lists.test", ID, 1_700_000_000)
    lines = raw.split(b"\r\n")
    assert len(lines) in {4, 5}
    assert lines[-1] == b""
    assert not re.search(rb"[\r\n]", b"".join(lines))
    assert max(map(len, lines)) < 998  # RFC 5322 §2.1.1
    parsed = message_from_bytes(raw + b"Subject: s\r\n\r\nbody", policy=modern)
    assert parsed.keys() == ["Received", "Subject"]
    assert not parsed.defects
    assert [field.partition(b":")[0] for field in fields_of(raw)] == [b"Received"]
    assert parsed["Received"].count(";") == 1
    assert parsed["Received"].split(";")[0].split(f" id {ID}")[0].endswith(("LMTP", "ESMTP", "UTF8SMTP"))


@given(ANYTHING)
@example("a\r\nX-Spam-Flag: NO\r\n\r\nbody")
def test_a_field_of_ours_is_one_line_of_ascii(value: str) -> None:
    raw = headers.field("X-Mailgate-Id", value)
    assert raw.isascii()
    assert raw.count(b"\r") == raw.count(b"\n") == 1
    assert raw.endswith(b"\r\n")
    assert raw.startswith(b"X-Mailgate-Id: ")
