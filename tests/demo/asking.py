"""The act about the verdict door: Exim asks before it accepts a message, and refuses in the session; one scan each."""

import re

from tests.demo.scene import Demo
from tests.demo.spam import with_body
from tests.stack.gate import Gate
from tests.stack.mails import GTUBE, Mail, mails
from tests.stack.stack import Stack


def show_refusal(demo: Demo, stack: Stack, gate: Gate, address: str) -> list[Mail]:
    """GTUBE, which is refused, and a ham post; those that are in Mailman."""
    stack.ask()
    plain = mails()["plain"].at(address)
    gtube, ham = with_body(plain.marked("gtube-asked"), GTUBE), plain.marked("ham-asked")
    bounced, scans = len(stack.exim.bounces()), _scans(gate)

    [reply] = stack.post(gtube).final
    demo.say(f"Exim to the client, behind GTUBE's final dot: {reply}")
    found = re.fullmatch(r"550 5\.7\.1 (\w{18}) taken for spam: it scores \d+\.\d", str(reply))
    known = found and gate.events("verdict.given", id=found[1], message_id=gtube.message_id)
    demo.check(bool(known), "GTUBE is refused in the session, with mailgate's text and an id that is in mailgate's log")
    demo.check(not stack.exim.queue() and len(stack.exim.bounces()) == bounced, "so there is nothing that could bounce")

    demo.post_all(stack, [ham])
    stack.mailman.wait_arrived(address, ham.message_id)
    once = _scans(gate) - scans == 2 and gate.metric("mailgate_verdicts_joined_total", result="joined") == 1
    demo.check(once, "each of the two was scanned once: the relay door knew the ham post again")
    return [ham]


def _scans(gate: Gate) -> float:
    return gate.metric("mailgate_spam_scans_total", result="scored")
