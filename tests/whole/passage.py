"""A mail on its whole way: what the recorders saw in front of the gate and behind it, and what Mailman has of it."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tests.stack.dialogue import Transaction
from tests.stack.mails import Mail
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until
from tests.stack.wire import Recorder

_FIELD = re.compile(rb"([^\s:]+)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*")
CLIENT_FIELD = "X-Mailgate-Client"


@dataclass(frozen=True)
class Passage:
    """One mail, posted to a list of its own. `arrived` counts what is in Mailman, by address."""

    mail: Mail
    in_front: Transaction
    behind: Transaction
    arrived: Counter[str]


def passages(stack: Stack, posts: Iterable[Mail]) -> dict[str, Passage]:
    """Post each mail to Exim, from its own client address, to a list of its own, and wait until it is in Mailman."""
    posted = [mail.at(stack.new_list()) for mail in posts]
    for mail in posted:
        result = stack.post(mail)
        assert result.codes == [250], (mail.name, result)
    return {mail.name: _passage(stack, mail) for mail in posted}


def _passage(stack: Stack, mail: Mail) -> Passage:
    in_front, behind = (_seen(wire, mail) for wire in (stack.to_gate, stack.to_mailman))
    addresses = {_queue_of(recipient) for recipient in mail.recipients}
    wait_until(lambda: all(stack.mailman.arrived(one) for one in addresses), f"{mail} is in Mailman")
    return Passage(mail, in_front, behind, Counter({one: stack.mailman.arrived(one).total() for one in addresses}))


def _seen(wire: Recorder, mail: Mail) -> Transaction:
    """The transaction for the list that this mail alone was posted to, once it is answered."""

    def found() -> list[Transaction]:
        return [one for one in wire.transactions if one.accepted == list(mail.recipients) and one.answered]

    [transaction] = wait_until(found, f"{mail} on the wire")
    return transaction


def _queue_of(recipient: str) -> str:
    """The name under which Mailman counts it: without what follows a +, by the main name of a sub-address."""
    local, _, domain = recipient.partition("@")
    local = local.partition("+")[0]
    local = re.sub("-unsubscribe$", "-leave", re.sub("-subscribe$", "-join", local))
    return f"{local}@{domain}"


def expected_arrivals(mail: Mail) -> Counter[str]:
    """Once for each recipient."""
    return Counter(map(_queue_of, mail.recipients))


def field_in_front(octets: bytes, name: str) -> tuple[str, bytes]:
    """The first header field, which must have this name: its unfolded value, and the octets behind it."""
    found = _FIELD.match(octets)
    assert found, octets[:100]
    assert found[1].decode().lower() == name.lower()
    value = found[0].partition(b":")[2].decode("ascii", "backslashreplace")
    return " ".join(value.split()), octets[found.end() :]


def gates_own(octets: bytes) -> tuple[str, str, bytes]:
    """The gate's own Received and id, and the octets behind its fields. (It was told not to score.)"""
    received, rest = field_in_front(octets, "Received")
    scan, rest = field_in_front(rest, "X-Mailgate-Scan")
    assert scan == "skipped; reason=off"
    gate_id, rest = field_in_front(rest, "X-Mailgate-Id")
    return received, gate_id, rest


def without_client_field(octets: bytes) -> bytes:
    """The message without the field in which Exim's transport names the client: it comes last."""
    head, blank, body = octets.partition(b"\r\n\r\n")
    kept, _, last = head.rpartition(b"\r\n")
    assert last.startswith(f"{CLIENT_FIELD}: ip=".encode()), last
    return kept + blank + body


def as_posted(mail: Mail) -> bytes:
    """What a mail looks like once it has passed an Exim: a header has an empty line behind it."""
    return mail.octets if b"\r\n\r\n" in mail.octets else mail.octets + b"\r\n"
