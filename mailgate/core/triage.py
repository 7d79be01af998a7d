"""What a reply of Mailman's LMTP server means for a recipient. Pure: (stage, reply) -> Result.

Mailman answers permanently when it is in trouble (its source, runners/lmtp.py of 3.3.10): `550 ... mailbox
unavailable` after the final dot for a full disk or a database error, `500 Error: (Class)` for an exception, one
`501 Message has defects` however many recipients there are. So a permanent reply is believed only where it is known
to speak of the recipient or the message; all other trouble is temporary, and the message stays ours.
"""

from __future__ import annotations

import re
from typing import Literal

from mailgate.core.outcome import Outcome, Result
from mailgate.core.reply import Reply

Stage = Literal["connect", "mail", "rcpt", "data", "dot"]

# Replies that are given once for the whole message, before Mailman looks at the recipients.
_DEFECTS = re.compile(r"Message has defects", re.IGNORECASE)
_TOO_LARGE = re.compile(r"Error: Too much mail data", re.IGNORECASE)
_LONG_LINE = re.compile(r"Line too long", re.IGNORECASE)
_UNLISTED = frozenset({550, 551, 553})  # RFC 5321 §4.2.3: about a mailbox


def judge(stage: Stage, reply: Reply, *, recipients: int = 1) -> Result:
    """The result that `reply` means for each recipient it was given for, of a transaction with `recipients` of them.

    A RCPT refusal that comes out as REFUSED must be asked for twice (Mailman gives the same 550 for an exception):
    the client does that.
    """
    if reply.positive:
        return Result.DELIVERED if stage == "dot" else Result.DEFERRED
    if not reply.permanent:
        return Result.DEFERRED
    if stage == "mail" and reply.code in {552, 553}:
        return Result.REFUSED  # 552: larger than SIZE (RFC 1870 §6.1); 553: the reverse-path is malformed
    if stage == "rcpt" and reply.code in _UNLISTED:
        return Result.REFUSED
    if stage == "dot" and _of_message(reply, recipients):
        return Result.REFUSED
    if stage == "dot" and reply.code == 500:
        # "500 Error: (OperationalError)": the transaction broke after the messages may have been queued.
        return Result.UNCERTAIN
    return Result.DEFERRED


def speaks_for_all(reply: Reply) -> bool:
    """True for a reply after the final dot that Mailman gives once for all recipients: no other will follow."""
    return reply.permanent and any(
        (
            reply.code == 501 and _DEFECTS.search(reply.text),
            reply.code == 552 and _TOO_LARGE.search(reply.text),
            reply.code == 500,
        )
    )


def _of_message(reply: Reply, recipients: int) -> bool:
    if reply.code == 501:
        # For several recipients this breaks RFC 2033 §4.2: it is not believed before it is given for one alone.
        return recipients == 1 and bool(_DEFECTS.search(reply.text))
    return bool(
        (reply.code == 552 and _TOO_LARGE.search(reply.text)) or (reply.code == 500 and _LONG_LINE.search(reply.text))
    )


def all_alike(result: Result, reply: Reply, count: int, *, alone: bool = False) -> tuple[Outcome, ...]:
    """The same outcome for `count` recipients."""
    return (Outcome(result, reply, alone=alone),) * count


def silence(what: str) -> Reply:
    """Our words where the next hop gave no reply."""
    return Reply(451, "4.4.2", what)
