"""The rulebook, the facts it judges by, and the algebra of verdicts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from mailgate.config import parse
from mailgate.core.envelope import Client
from mailgate.core.facts import MessageFacts, of_message
from mailgate.core.limits import Limit
from mailgate.core.message import Message, message
from mailgate.core.networks import NetworkSet
from mailgate.core.record import Record
from mailgate.core.reply import Reply
from mailgate.core.rules import (
    RULES,
    after_acceptance,
    completed,
    decide,
    dmarc,
    header_too_large,
    limited,
    loop,
    networks,
    score,
    spf_fail,
    unscored,
)
from mailgate.core.scan import Scan, Scored, Skipped, Unscored
from mailgate.core.verdict import Action, Decision, Verdict, strongest

FINE = MessageFacts(hops=3, bounded=True)
LOOP = Reply(554, "5.4.6", "routing loop: 101 Received fields, 100 are allowed")
POLICY = parse({"spam": {"hold_score": 4.0}}).for_rules
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
    assert decide(facts, POLICY) == decision


def test_each_rule_is_in_the_book() -> None:
    assert (loop, header_too_large, networks, limited, dmarc, spf_fail, score, unscored) == RULES


@pytest.mark.parametrize(
    ("limit", "what"),
    [("commands", "many requests"), ("network", "much mail"), ("sender", "much mail")],
)
def test_who_is_over_a_limit_is_put_off(limit: Limit, what: str) -> None:
    reply = Reply(451, "4.7.1", f"too {what} from your network, try later")
    assert decide(replace(FINE, limit=limit), POLICY) == Decision(Action.DEFER, (f"limit-{limit}",), reply)


def scored(points: float) -> Scored:
    return Scored(points, 4.0, "", "spamd")


def with_scan(scan: Scan) -> MessageFacts:
    return MessageFacts(hops=3, bounded=True, recipients=("list@lists.test",), scan=scan)


SPAM = Reply(550, "5.7.1", "taken for spam: it scores 6.1")
NO_SCORE = Reply(451, "4.3.0", "can't be scanned for spam now, try again later")


@pytest.mark.parametrize(
    ("scan", "decision"),
    [
        (scored(-3.0), Decision(Action.ACCEPT, (), None)),
        (scored(1.0), Decision(Action.ACCEPT, (), None)),
        (scored(1.1), Decision(Action.ACCEPT, ("spam-tag",), None)),
        (scored(4.0), Decision(Action.ACCEPT, ("spam-tag",), None)),
        (scored(4.1), Decision(Action.HOLD, ("spam-hold",), None)),
        (scored(6.0), Decision(Action.HOLD, ("spam-hold",), None)),
        (scored(6.1), Decision(Action.REJECT, ("spam-reject",), SPAM, unwanted=True)),
        (Skipped("off"), Decision(Action.ACCEPT, (), None)),
        (Unscored("timeout", "10 s"), Decision(Action.ACCEPT, ("unscored",), NO_SCORE)),
    ],
)
def test_what_the_rules_make_of_a_scan(scan: Scan, decision: Decision) -> None:
    assert decide(with_scan(scan), POLICY) == decision


@pytest.mark.parametrize(
    ("word", "action"), [("accept", Action.ACCEPT), ("defer", Action.DEFER), ("hold", Action.HOLD)]
)
def test_what_no_score_does_is_the_operators_choice(word: str, action: Action) -> None:
    policy = parse({"spam": {"on_failure": word}}).for_rules
    decision = decide(with_scan(Unscored("refused", "nobody")), policy)
    assert decision == Decision(action, ("unscored",), NO_SCORE)


@pytest.mark.parametrize(
    ("word", "action"), [("hold", Action.HOLD), ("discard", Action.DISCARD), ("reject", Action.REJECT)]
)
def test_unwanted_mail_that_exim_has_accepted(word: str, action: Action) -> None:
    policy = parse({"policy": {"reject_after_acceptance": word}}).for_rules
    decision = after_acceptance(decide(with_scan(scored(6.1)), policy), policy)
    assert decision == Decision(action, ("spam-reject",), SPAM, unwanted=True)


def test_what_can_not_be_taken_is_refused_whatever_becomes_of_unwanted_mail() -> None:
    policy = parse({"policy": {"reject_after_acceptance": "discard"}}).for_rules
    spam_in_a_loop = MessageFacts(hops=101, bounded=True, recipients=("list@lists.test",), scan=scored(9))
    decision = after_acceptance(decide(spam_in_a_loop, policy), policy)
    assert decision == Decision(Action.REJECT, ("loop", "spam-reject"), LOOP)


@pytest.mark.parametrize("word", ["hold", "discard"])
def test_only_a_rejection_is_changed_after_acceptance(word: str) -> None:
    policy = parse({"policy": {"reject_after_acceptance": word}, "spam": {"hold_score": 4.0}}).for_rules
    for scan in (scored(0), scored(2), scored(5), Unscored("error", "")):
        decision = decide(with_scan(scan), policy)
        assert after_acceptance(decision, policy) == decision


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
    assert of_message(found, ()) == facts
    assert of_message(found, ("list@lists.test",)).recipients == ("list@lists.test",)


ASKED_FOR = [Action.ACCEPT, Action.DEFER, Action.HOLD, Action.REJECT]


def verdict(action: Action, reason: str) -> Verdict:
    return Verdict(action, reason, Reply(450, "4.0.0", reason))


def test_nothing_said_is_accept() -> None:
    assert strongest([]) == Decision(Action.ACCEPT, (), None)


@pytest.mark.parametrize("order", list(itertools.permutations(ASKED_FOR)))
def test_the_strongest_wins_and_all_reasons_are_kept(order: tuple[Action, ...]) -> None:
    decision = strongest([verdict(action, action.name) for action in order])
    assert decision == Decision(Action.REJECT, ("REJECT", "HOLD", "DEFER", "ACCEPT"), Reply(450, "4.0.0", "REJECT"))


def test_of_equals_the_first_rule_speaks() -> None:
    decision = strongest([verdict(Action.HOLD, "first"), verdict(Action.HOLD, "second")])
    assert decision.reasons == ("first", "second")
    assert decision.reply == Reply(450, "4.0.0", "first")


def test_the_order_of_strength() -> None:
    assert Action.ACCEPT < Action.DEFER < Action.HOLD < Action.REJECT < Action.DISCARD


def asked(action: Action, scan: Scan) -> Record:
    return Record("01m8112ytat08xvr1g", 0.0, Client(), scan, action, ("spam-hold", "spam-tag"))


ACCEPT, HOLD = Decision(Action.ACCEPT, ("spam-tag",), None), Decision(Action.HOLD, ("unscored",), None)
DEFER, REJECT = Decision(Action.DEFER, ("unscored",), NO_SCORE), Decision(Action.REJECT, ("spam-reject",), SPAM)


@pytest.mark.parametrize("decision", [ACCEPT, DEFER])
@pytest.mark.parametrize("scan", [scored(5.0), Skipped("too-large")])
def test_what_the_verdict_door_wanted_held_is_held(decision: Decision, scan: Scan) -> None:
    kept = completed(decision, asked(Action.HOLD, scan))
    assert kept == Decision(Action.HOLD, ("spam-hold", "spam-tag"), None)


@pytest.mark.parametrize("decision", [HOLD, REJECT])
def test_a_stronger_decision_stands(decision: Decision) -> None:
    assert completed(decision, asked(Action.HOLD, scored(5.0))) == decision


@pytest.mark.parametrize("record", [None, *(asked(one, scored(5.0)) for one in Action if one is not Action.HOLD)])
def test_otherwise_the_decision_stands(record: Record | None) -> None:
    assert completed(ACCEPT, record) == ACCEPT


def test_what_was_held_for_want_of_a_score_is_not_once_there_is_one() -> None:
    assert completed(ACCEPT, asked(Action.HOLD, Unscored("timeout", ""))) == ACCEPT


LISTED_POLICY = parse(
    {
        "networks": {"actions": {"held": "hold", "tagged": "tag", "gone": "discard", "later": "defer"}},
        "spam": {"on_failure": "defer"},
    }
).for_rules


def listed(*sets: NetworkSet, hops: int = 3, scan: Scan | None = None) -> MessageFacts:
    return MessageFacts(hops, bounded=True, scan=scan, listed=sets)


BLOCKED = Reply(550, "5.7.1", "your network is blocked here (network-reject)")
FOR_US, FOR_OTHERS = ("ferm", "mx"), ("ferm",)


@pytest.mark.parametrize(
    ("facts", "action", "reasons"),
    [
        (listed(), Action.ACCEPT, ()),
        (listed(NetworkSet("web", FOR_OTHERS)), Action.ACCEPT, ()),
        (listed(NetworkSet("nobody", ())), Action.ACCEPT, ()),
        (listed(NetworkSet("all")), Action.REJECT, ("network-reject",)),
        (listed(NetworkSet("mail", FOR_US)), Action.REJECT, ("network-reject",)),
        (listed(NetworkSet("held", FOR_US)), Action.HOLD, ("network-hold",)),
        (listed(NetworkSet("later")), Action.DEFER, ("network-defer",)),
        (listed(NetworkSet("tagged")), Action.ACCEPT, ("network-tag",)),
        (listed(NetworkSet("gone")), Action.DISCARD, ("network-discard",)),
        (listed(NetworkSet("tagged"), NetworkSet("held"), NetworkSet("later")), Action.HOLD, ("network-hold",)),
        (listed(NetworkSet("held", FOR_OTHERS), NetworkSet("tagged")), Action.ACCEPT, ("network-tag",)),
        (listed(NetworkSet("held"), hops=101), Action.REJECT, ("loop", "network-hold")),
    ],
)
def test_what_is_done_with_mail_from_listed_networks(
    facts: MessageFacts, action: Action, reasons: tuple[str, ...]
) -> None:
    decision = decide(facts, LISTED_POLICY)
    assert (decision.action, decision.reasons) == (action, reasons)


@pytest.mark.parametrize(
    ("word", "action"), [("hold", Action.HOLD), ("discard", Action.DISCARD), ("reject", Action.REJECT)]
)
def test_once_exim_has_accepted_it_what_was_to_be_deferred_is_held(word: str, action: Action) -> None:
    """Deferred it bounces in the end; rejected it bounces now, with a temporary reply; discarded it is lost."""
    policy = parse({"policy": {"reject_after_acceptance": word}, "networks": {"actions": {"later": "defer"}}}).for_rules
    assert after_acceptance(decide(listed(NetworkSet("all")), policy), policy).action is action
    assert after_acceptance(decide(listed(NetworkSet("later")), policy), policy).action is Action.HOLD


def test_what_only_waits_for_a_score_is_deferred_after_acceptance_as_well() -> None:
    facts = listed(NetworkSet("tagged"), scan=Unscored("timeout", ""))
    assert after_acceptance(decide(facts, LISTED_POLICY), LISTED_POLICY).action is Action.DEFER


def test_the_reply_to_a_listed_client_names_no_list() -> None:
    assert decide(listed(NetworkSet("all")), LISTED_POLICY).reply == BLOCKED
    assert networks(listed(NetworkSet("all")), LISTED_POLICY) == Verdict(
        Action.REJECT, "network-reject", BLOCKED, unwanted=True
    )


def test_drift_is_of_the_contexts_that_see_connections_first() -> None:
    policy = parse({"networks": {"drift_contexts": ["ferm", "nft"]}}).for_rules.networks
    assert policy.drifted([NetworkSet("a", ("varnish", "ferm")), NetworkSet("b", ("ferm",))]) == ("ferm",)
    assert policy.drifted([NetworkSet("a", ("varnish",)), NetworkSet("b", ()), NetworkSet("c")]) == ()
