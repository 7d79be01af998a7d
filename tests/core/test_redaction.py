"""No local part is left, wherever an address stands; all that a message is found by is."""

import pytest

from mailgate.core.envelope import Envelope
from mailgate.core.redaction import redacted
from mailgate.core.story import of_envelope


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("ann@example.org", "*@example.org"),
        ("450 <ann@example.org> is busy", "450 <*@example.org> is busy"),
        ("list-bounces+ann=example.net@lists.test", "*@lists.test"),
        ('"ann the \\" first"@example.org, bob@example.net', "*@example.org, *@example.net"),
        ('said "ann@example.org" twice', 'said "*@example.org" twice'),
        ("o'brien.x/y=z@[192.0.2.7]", "*@[192.0.2.7]"),
        ("sender=ann@example.org", "*@example.org"),
        ("a@b@c", "*@*@c"),
        ('"@x', "*@x"),
        ("@example.org", "*@example.org"),
        ("nobody", "nobody"),
        ("", ""),
    ],
)
def test_text(text: str, hidden: str) -> None:
    assert redacted({"cause": text, "deep": [{"x": (text,)}]}) == {"cause": hidden, "deep": [{"x": [hidden]}]}


def test_recipients_stay_apart() -> None:
    people = {"a@x.test": "550 <a@x.test>", "b@x.test": "ok", "c@y.test": "ok", "d@x.test": "ok"}
    assert redacted({"recipients": people}) == {
        "recipients": {"*@x.test": "550 <*@x.test>", "*2@x.test": "ok", "*@y.test": "ok", "*3@x.test": "ok"}
    }
    assert redacted({"deep": {"a@x.test": 1, "b@x.test": 2}}) == {"deep": {"*@x.test": 1, "*2@x.test": 2}}


def test_an_address_without_a_domain_is_gone_from_everywhere() -> None:
    fields = {
        "sender": "Boss",
        "lists": ["secret", "dev@lists.test"],
        "recipients": {
            "Secret": "deferred: 450 <secret> is busy, in <module>",
            "other": "ok",
            "dev-owner@lists.test": "ok",
        },
        "uncertain_before": ["Secret"],
        "dialogue": [
            "MAIL FROM:<boss>",
            "RCPT TO:<Secret> ORCPT=x",
            "-> 450 <secret>",
            "RCPT TO:<third>",
            "MAIL FROM:<>",
        ],
        "facts": {"text": "<secret>"},
    }
    assert redacted(fields) == {
        "sender": "*",
        "lists": ["*", "*@lists.test"],
        "recipients": {"*": "deferred: 450 <*> is busy, in <module>", "*2": "ok", "*@lists.test": "ok"},
        "uncertain_before": ["*"],
        "dialogue": ["MAIL FROM:<*>", "RCPT TO:<*> ORCPT=x", "-> 450 <*>", "RCPT TO:<*>", "MAIL FROM:<>"],
        "facts": {"text": "<*>"},
    }
    assert redacted({"recipients": ["secret"]}) == {"recipients": ["*"]}


def test_what_a_message_is_found_by_stays() -> None:
    fields = {"id": "01m8", "exim_id": "1xV0Ys-0004sm-35", "message_id": "<1.ann@example.org>", "bytes": 5}
    assert redacted(fields) == fields


@pytest.mark.parametrize(("user", "hidden"), [("ann", "*"), ("ann@example.org", "*@example.org"), ("", "")])
def test_who_logged_in_or_wrote_is_hidden(user: str, hidden: str) -> None:
    assert redacted({"user": user, "sender": user}) == {"user": hidden, "sender": hidden}


def test_a_sender_without_a_domain_has_none() -> None:
    assert of_envelope(Envelope("ann", ("dev@lists.test",)))["sender_domain"] == ""
    assert of_envelope(Envelope("Ann@Example.ORG", ("dev@lists.test",)))["sender_domain"] == "example.org"


def test_a_long_text_takes_no_time() -> None:
    assert redacted({"trace": "<" * 2**20}) == {"trace": "<" * 2**20}
    assert redacted({"trace": "x" * 2**20 + "@" + "y" * 2**20})["trace"] == "*@" + "y" * 2**20
