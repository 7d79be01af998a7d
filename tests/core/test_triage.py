"""What Mailman's replies mean, by the words that Mailman core 3.3.10 really says."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.outcome import Outcome, Result
from mailgate.core.reply import Reply, parse
from mailgate.core.triage import Stage, all_alike, judge, silence, speaks_for_all

UNAVAILABLE = "550 Requested action not taken: mailbox unavailable"
IN_PROCESSING = "451 Requested action aborted: error in processing"
DEFECTS = "501 Message has defects"
TOO_LONG = "500 Line too long (see RFC5321 4.5.3.1.6)"
TOO_MUCH = "552 Error: Too much mail data"
EXCEPTION = "500 Error: (TypeError) expected string or bytes-like object, got 'Header'"


def said(line: str) -> Reply:
    """The reply that a line of Mailman's is read as."""
    return parse(int(line[:3]), line[4:])


@pytest.mark.parametrize(
    ("stage", "line", "result"),
    [
        ("connect", "421 Too busy", Result.DEFERRED),
        ("connect", "554 No service", Result.DEFERRED),
        # MAIL: only what is wrong with the message's size or the reverse-path itself is final.
        ("mail", "552 Error: message size exceeds fixed maximum message size", Result.REFUSED),
        ("mail", "553 5.1.3 Error: malformed address", Result.REFUSED),
        ("mail", "501 Error: SMTPUTF8 disabled", Result.DEFERRED),
        ("mail", "501 Syntax: MAIL FROM: <address> [SP <mail-parameters>]", Result.DEFERRED),
        ("mail", "500 Error: strict ASCII mode", Result.DEFERRED),
        ("mail", "500 Command line too long", Result.DEFERRED),
        ("mail", "503 Error: nested MAIL command", Result.DEFERRED),
        ("mail", "503 Error: send HELO first", Result.DEFERRED),
        ("mail", "550 no such sender", Result.DEFERRED),
        ("mail", "555 MAIL FROM parameters not recognized or not implemented", Result.DEFERRED),
        ("mail", "421 shutting down", Result.DEFERRED),
        ("mail", "250 OK", Result.DEFERRED),
        # RCPT: no such list (an exception too, so it is asked for twice); the rest is trouble.
        ("rcpt", UNAVAILABLE, Result.REFUSED),
        ("rcpt", "551 User not local", Result.REFUSED),
        ("rcpt", "553 5.1.3 Error: malformed address", Result.REFUSED),
        ("rcpt", IN_PROCESSING, Result.DEFERRED),
        ("rcpt", "500 Error: strict ASCII mode", Result.DEFERRED),
        ("rcpt", "500 Command line too long", Result.DEFERRED),
        ("rcpt", "501 Syntax: RCPT TO: <address>", Result.DEFERRED),
        ("rcpt", "503 Error: need MAIL command", Result.DEFERRED),
        ("rcpt", "552 over quota", Result.DEFERRED),
        ("rcpt", "554 no", Result.DEFERRED),
        ("rcpt", "555 RCPT TO parameters not recognized or not implemented", Result.DEFERRED),
        ("rcpt", "502 5.5.1 Too many unrecognized commands, goodbye.", Result.DEFERRED),
        ("rcpt", "250 Ok", Result.DEFERRED),
        ("data", "503 Error: need RCPT command", Result.DEFERRED),
        ("data", "451 later", Result.DEFERRED),
        ("data", "554 no valid recipients", Result.DEFERRED),
        ("data", "354 End data with <CR><LF>.<CR><LF>", Result.DEFERRED),
        # After the final dot: 550 is a full disk or a database error.
        ("dot", "250 Ok", Result.DELIVERED),
        ("dot", UNAVAILABLE, Result.DEFERRED),
        ("dot", IN_PROCESSING, Result.DEFERRED),
        ("dot", DEFECTS, Result.REFUSED),
        ("dot", TOO_LONG, Result.REFUSED),
        ("dot", TOO_MUCH, Result.REFUSED),
        ("dot", EXCEPTION, Result.UNCERTAIN),
        ("dot", "500 Error: (OperationalError) database is locked", Result.UNCERTAIN),
        ("dot", "501 Syntax error", Result.DEFERRED),
        ("dot", "552 over quota", Result.DEFERRED),
        ("dot", "554 Transaction failed", Result.DEFERRED),
        ("dot", "421 shutting down", Result.DEFERRED),
        ("dot", "354 go on", Result.DEFERRED),
    ],
)
def test_what_a_reply_means(stage: Stage, line: str, result: Result) -> None:
    assert judge(stage, said(line)) is result


@pytest.mark.parametrize(
    ("line", "result"),
    [
        (DEFECTS, Result.DEFERRED),  # RFC 2033 §4.2 is broken: not believed before it is said of one alone
        (TOO_LONG, Result.REFUSED),
        (TOO_MUCH, Result.REFUSED),
        (EXCEPTION, Result.UNCERTAIN),
        (UNAVAILABLE, Result.DEFERRED),
        ("250 Ok", Result.DELIVERED),
    ],
)
def test_what_a_reply_after_the_dot_means_for_several(line: str, result: Result) -> None:
    assert judge("dot", said(line), recipients=3) is result


@pytest.mark.parametrize(
    ("line", "for_all"),
    [
        (DEFECTS, True),
        (TOO_LONG, True),
        (TOO_MUCH, True),
        (EXCEPTION, True),
        (UNAVAILABLE, False),
        (IN_PROCESSING, False),
        ("250 Ok", False),
        ("501 Syntax error", False),
        ("552 over quota", False),
        ("554 no", False),
    ],
)
def test_which_replies_are_given_once_for_all_recipients(line: str, for_all: bool) -> None:
    assert speaks_for_all(said(line)) is for_all


@given(
    st.sampled_from(get_args(Stage)),
    st.integers(200, 599),
    st.text(max_size=30) | st.sampled_from([DEFECTS[4:], TOO_LONG[4:], TOO_MUCH[4:], EXCEPTION[4:]]),
    st.integers(1, 5),
)
def test_no_reply_is_believed_more_than_it_says(stage: Stage, code: int, text: str, recipients: int) -> None:
    result = judge(stage, Reply(code, "", text), recipients=recipients)
    assert (result is Result.DELIVERED) == (stage == "dot" and 200 <= code < 300)
    assert result is not Result.REFUSED or code >= 500
    assert result is not Result.UNCERTAIN or (stage == "dot" and code == 500)
    assert result is not Result.UNREACHED


def test_the_same_for_all() -> None:
    reply = silence("no answer in time")
    assert reply == Reply(451, "4.4.2", "no answer in time")
    assert all_alike(Result.UNCERTAIN, reply, 2, alone=True) == (Outcome(Result.UNCERTAIN, reply, alone=True),) * 2
    assert all_alike(Result.UNREACHED, reply, 0) == ()
