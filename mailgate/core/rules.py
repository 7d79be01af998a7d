"""The rulebook: plain functions of facts, in one tuple. A new rule is a function here and its row in RULES."""

from __future__ import annotations

from collections.abc import Callable

from mailgate.core.facts import MessageFacts
from mailgate.core.headers import MAX_HOPS
from mailgate.core.message import MAX_HEADER, MAX_HEADER_LINES
from mailgate.core.reply import Reply
from mailgate.core.verdict import Action, Decision, Verdict, strongest


def loop(facts: MessageFacts) -> Verdict | None:
    """A message that went round in a circle. RFC 5321 §6.3."""
    if facts.hops <= MAX_HOPS:
        return None
    text = f"routing loop: {facts.hops} Received fields, {MAX_HOPS} are allowed"
    return Verdict(Action.REJECT, "loop", Reply(554, "5.4.6", text))


def header_too_large(facts: MessageFacts) -> Verdict | None:
    """A header that can't be looked through for forged fields."""
    if facts.bounded:
        return None
    text = f"header larger than {MAX_HEADER} octets or {MAX_HEADER_LINES} lines"
    return Verdict(Action.REJECT, "header-too-large", Reply(552, "5.3.4", text))


RULES: tuple[Callable[[MessageFacts], Verdict | None], ...] = (loop, header_too_large)


def decide(facts: MessageFacts) -> Decision:
    """What is to be done with a message of these facts."""
    return strongest(verdict for rule in RULES if (verdict := rule(facts)))
