"""The envelope as the session has it: the MAIL and RCPT that Exim writes for nearly every message, understood
without waking the session's task, and what came of them as ours.

Duty: take only lines that leave nothing to doubt; all others are for the session, where aiosmtpd takes them apart.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mailgate.core.envelope import Envelope
from mailgate.edge.listener.hooks import MAIL_TAKEN, MAX_RECIPIENTS, RCPT_TAKEN
from mailgate.edge.listener.words import MAX_COMMAND

if TYPE_CHECKING:
    from aiosmtpd.smtp import Envelope as Taken

    from mailgate.edge.listener.listener import Listener
    from mailgate.edge.listener.wire import Wire

_PLAIN = rb"[^\x00-\x20\x7f-\xff<>()\[\]\\,;:\"@]+"
_MAIL = re.compile(rb"MAIL FROM:<(%b@%b)?>(?: SIZE=(\d{1,15}))?( BODY=8BITMIME)?\r\n" % (_PLAIN, _PLAIN))
_RCPT = re.compile(rb"RCPT TO:<(%b@%b)>\r\n" % (_PLAIN, _PLAIN))


def envelope_of(octets: bytes, envelope: Taken, wire: Wire, listener: Listener) -> int:
    """Fill in the envelope and reply on the wire, for a message that the listener has room for; how many octets were
    done.
    """
    done = 0
    if not envelope.mail_from:
        mail = _MAIL.match(octets)
        if mail is None or mail.end() > MAX_COMMAND:
            return 0
        path, size, eight_bit = mail.groups()
        if not listener.has_room or (size and int(size) > listener.config.relay.slack_size):
            return 0
        envelope.mail_from = path.decode("ascii") if path else "<>"
        envelope.mail_options = ["BODY=8BITMIME"] if eight_bit else []
        wire.put(MAIL_TAKEN)
        done = mail.end()
        if done == len(octets):
            return done
    while done < len(octets) and len(envelope.rcpt_tos) < MAX_RECIPIENTS and (rcpt := _RCPT.match(octets, done)):
        if rcpt.end() - done > MAX_COMMAND:
            break
        envelope.rcpt_tos.append(rcpt[1].decode("ascii"))
        wire.put(RCPT_TAKEN)
        done = rcpt.end()
    return done


def taken(envelope: Taken) -> Envelope:
    """What aiosmtpd's envelope says, as ours."""
    sender = envelope.mail_from if envelope.mail_from and envelope.mail_from != "<>" else ""
    eight_bit = "BODY=8BITMIME" in envelope.mail_options
    return Envelope(sender, tuple(envelope.rcpt_tos), smtputf8=bool(envelope.smtp_utf8), eight_bit=eight_bit)
