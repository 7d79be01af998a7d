"""The rulebook: functions of facts and policy, in one tuple. A new rule is a function here and its row in RULES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from mailgate.core import auth_policy, spam
from mailgate.core.auth_policy import AuthPolicy
from mailgate.core.facts import MessageFacts
from mailgate.core.headers import MAX_HOPS
from mailgate.core.message import MAX_HEADER, MAX_HEADER_LINES
from mailgate.core.networks import NetworkPolicy
from mailgate.core.record import Record
from mailgate.core.reply import Reply
from mailgate.core.scan import Scored, Unscored
from mailgate.core.spam import SpamPolicy
from mailgate.core.verdict import Action, Decision, Verdict, strongest

AfterAcceptance = Literal["hold", "discard", "reject"]

UNSCORED = "unscored"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator wants. `reject_after_acceptance`: what is done with unwanted mail that Exim has accepted."""

    spam: SpamPolicy
    networks: NetworkPolicy
    auth: AuthPolicy
    reject_after_acceptance: AfterAcceptance


def loop(facts: MessageFacts, _: Policy) -> Verdict | None:
    """A message that went round in a circle. RFC 5321 §6.3."""
    if facts.hops <= MAX_HOPS:
        return None
    text = f"routing loop: {facts.hops} Received fields, {MAX_HOPS} are allowed"
    return Verdict(Action.REJECT, "loop", Reply(554, "5.4.6", text))


def header_too_large(facts: MessageFacts, _: Policy) -> Verdict | None:
    """A header that can't be looked through for forged fields."""
    if facts.bounded:
        return None
    text = f"header larger than {MAX_HEADER} octets or {MAX_HEADER_LINES} lines"
    return Verdict(Action.REJECT, "header-too-large", Reply(552, "5.3.4", text))


def limited(facts: MessageFacts, _: Policy) -> Verdict | None:
    """A client whose network, or who, sends more than it may: not now."""
    if facts.limit is None:
        return None
    what = "many requests" if facts.limit == "commands" else "much mail"
    reply = Reply(451, "4.7.1", f"too {what} from your network, try later")
    return Verdict(Action.DEFER, f"limit-{facts.limit}", reply)


def networks(facts: MessageFacts, policy: Policy) -> Verdict | None:
    """A client in a set of abusive networks: what the operator says of the set. Which one it is, is not told."""
    found = facts.listed and policy.networks.strongest(facts.listed)
    if not found:
        return None
    word, action = found
    reason = f"network-{word}"
    temporary = action is Action.DEFER
    text = f"your network is blocked {'for now' if temporary else 'here'} ({reason})"  # Exim folds what is longer
    reply = Reply(450, "4.7.1", text) if temporary else Reply(550, "5.7.1", text)
    return Verdict(action, reason, reply, unwanted=True)


def score(facts: MessageFacts, policy: Policy) -> Verdict | None:
    """A spam score above a threshold: rejected, held, or let through with the fields of spam."""
    if not isinstance(facts.scan, Scored):
        return None
    found, limits = facts.scan.score, spam.thresholds(policy.spam, facts.recipients)
    if spam.over(found, limits.reject):
        text = f"taken for spam: it scores {found:.1f}"
        return Verdict(Action.REJECT, "spam-reject", Reply(550, "5.7.1", text), unwanted=True)
    if spam.over(found, limits.hold):
        return Verdict(Action.HOLD, "spam-hold")
    return Verdict(Action.ACCEPT, "spam-tag") if spam.over(found, limits.tag) else None


def unscored(facts: MessageFacts, policy: Policy) -> Verdict | None:
    """A message that should have been scored and could not be: what spam.on_failure says."""
    if not isinstance(facts.scan, Unscored):
        return None
    action = Action[policy.spam.on_failure.upper()]
    return Verdict(action, UNSCORED, Reply(451, "4.3.0", "can't be scanned for spam now, try again later"))


def dmarc(facts: MessageFacts, policy: Policy) -> Verdict | None:
    """A message that its author's domain disowns: quarantine is held, and what is told to be rejected is, where the
    operator enforces it and no trusted forwarder vouches for it. RFC 9989 §5.4.
    """
    asked = auth_policy.asked_for(facts.auth) if facts.auth else "none"
    if facts.auth is None or asked == "none":
        return None
    if auth_policy.sealed(policy.auth, facts.auth):
        return Verdict(Action.ACCEPT, "dmarc-arc")
    word = auth_policy.for_dmarc(policy.auth, facts.recipients)
    if word == "none":
        return Verdict(Action.ACCEPT, "dmarc-tag")
    if word == "hold" or asked == "quarantine":
        return Verdict(Action.HOLD, "dmarc-hold")
    full = facts.auth.dmarc is not None and facts.auth.dmarc.result == "permerror"
    text = "too much in From to tell the author (DMARC)" if full else "the domain in From wants this rejected (DMARC)"
    return Verdict(Action.REJECT, "dmarc-reject", Reply(550, "5.7.1", text), unwanted=True)


def spf_fail(facts: MessageFacts, policy: Policy) -> Verdict | None:
    """A client that may not send for the reverse-path's domain, unless somebody else vouches for the message."""
    found = facts.auth
    if found is None or not any(one.result == "fail" for one in found.spf):
        return None
    vouched = (found.dmarc and found.dmarc.result == "pass") or auth_policy.sealed(policy.auth, found)
    word = "none" if vouched else auth_policy.for_spf(policy.auth, facts.recipients)
    if word == "none":
        return Verdict(Action.ACCEPT, "spf-tag")
    if word == "hold":
        return Verdict(Action.HOLD, "spf-hold")
    text = "your host may not send for this sender (SPF)"
    return Verdict(Action.REJECT, "spf-reject", Reply(550, "5.7.23", text), unwanted=True)  # RFC 7372 §3.2


# `unscored` comes last, so that it is the first reason of a HOLD only where nothing else holds the message.
RULES: tuple[Callable[[MessageFacts, Policy], Verdict | None], ...] = (
    loop,
    header_too_large,
    networks,
    limited,
    dmarc,
    spf_fail,
    score,
    unscored,
)


def decide(facts: MessageFacts, policy: Policy) -> Decision:
    """What is to be done with a message of these facts."""
    return strongest([verdict for rule in RULES if (verdict := rule(facts, policy))])


def completed(decision: Decision, asked: Record | None) -> Decision:
    """The decision where Exim has asked before, and was told to accept what is to be held: it is held. All recipients
    were known then, of which those of this transaction may be a part. Without a score there was nothing to hold it for.
    """
    if asked is None or asked.action is not Action.HOLD or isinstance(asked.scan, Unscored):
        return decision
    return decision if decision.action >= Action.HOLD else Decision(Action.HOLD, asked.reasons, None)


def after_acceptance(decision: Decision, policy: Policy) -> Decision:
    """The decision where Exim has accepted the message already, and a refusal would make it bounce (promise 8)."""
    if not decision.unwanted or decision.action not in {Action.REJECT, Action.DEFER}:
        return decision
    if decision.action is Action.DEFER:  # to defer it would bounce it, too, when Exim gives up; to lose it nobody asked
        return replace(decision, action=Action.HOLD)
    return replace(decision, action=Action[policy.reject_after_acceptance.upper()])
