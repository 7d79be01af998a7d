"""The rulebook, the facts it judges by, and the algebra of verdicts."""

from __future__ import annotations

import itertools

import pytest

from mailgate.core.facts import MessageFacts, of_message
from mailgate.core.message import Message, message
from mailgate.core.reply import Reply
from mailgate.core.rules import RULES, decide, header_too_large, loop
from mailgate.core.verdict import Action, Decision, Verdict, strongest

FINE = MessageFacts(hops=3, bounded=True)
LOOP = Reply(554, "5.4.6", "routing loop: 101 Received fields, 100 are allowed")
LARGE = Reply(552, "5.3.4", "header larger than 1048576 octets or 50000 lines")


@pytest.mark.parametrize(
    ("facts", "decision"),
    [
        (FINE, Decision(Action.ACCEPT, (), None)),
        (MessageFacts(hops=0, bounded=True), Decision(Action.ACCEPT, (), None)),
        (MessageFacts(hops=100, bounded=True), Decision(Action.ACCEPT, (), None)),
        (MessageFacts(hops=101, bounded=True), Decision(Action.REJECT, ("loop",), LOOP)),
        (MessageFacts(hops=0, bounded=False), Decision(Action.REJECT, ("header-too-large",), LARGE)),
        (MessageFacts(hops=101, bounded=False), Decision(Action.REJECT, ("loop", "header-too-large"), LOOP)),
    ],
)
def test_what_the_rules_make_of_facts(facts: MessageFacts, decision: Decision) -> None:
    assert decide(facts) == decision


def test_each_rule_is_in_the_book() -> None:
    assert (loop, header_too_large) == RULES


@pytest.mark.parametrize(
    ("found", "facts"),
    [
        (message([b""]), MessageFacts(hops=0, bounded=True)),
        (message([b"Received: a\r\nReceived: b\r\n\r\nReceived: c\r\n"]), MessageFacts(hops=2, bounded=True)),
        (message([b"Received: a\r\n" * 101 + b"\r\n"]), MessageFacts(hops=101, bounded=True)),
        (Message(b"Received: a\r\n" * 101, (), bounded=False), MessageFacts(hops=0, bounded=False)),
    ],
)
def test_the_facts_of_a_message(found: Message, facts: MessageFacts) -> None:
    assert of_message(found) == facts


def verdict(action: Action, reason: str) -> Verdict:
    return Verdict(action, reason, Reply(450, "4.0.0", reason))


def test_nothing_said_is_accept() -> None:
    assert strongest([]) == Decision(Action.ACCEPT, (), None)


@pytest.mark.parametrize("order", list(itertools.permutations(Action)))
def test_the_strongest_wins_and_all_reasons_are_kept(order: tuple[Action, ...]) -> None:
    decision = strongest(verdict(action, action.name) for action in order)
    assert decision == Decision(Action.REJECT, ("REJECT", "HOLD", "DEFER", "ACCEPT"), Reply(450, "4.0.0", "REJECT"))


def test_of_equals_the_first_rule_speaks() -> None:
    decision = strongest([verdict(Action.HOLD, "first"), verdict(Action.HOLD, "second")])
    assert decision.reasons == ("first", "second")
    assert decision.reply == Reply(450, "4.0.0", "first")


def test_the_order_of_strength() -> None:
    assert Action.ACCEPT < Action.DEFER < Action.HOLD < Action.REJECT
