"""What becomes of mail whose sender is not who it says: nothing by default, else what the operator enforces."""

from __future__ import annotations

from typing import Any

import pytest

from mailgate.config import parse
from mailgate.core.auth import Arc, Authenticated, Dmarc, DmarcResult, Signature, Spf, SpfResult, results, told
from mailgate.core.auth import Disposition as Asked
from mailgate.core.auth_policy import sealed, skipped
from mailgate.core.envelope import Client
from mailgate.core.facts import MessageFacts
from mailgate.core.reply import Reply
from mailgate.core.rules import Policy, after_acceptance, decide
from mailgate.core.verdict import Action, Decision


def policy(**auth: Any) -> Policy:
    return parse({"auth": auth}).for_rules


def found(
    result: DmarcResult = "fail",
    asked: Asked = "reject",
    spf: SpfResult = "none",
    arc: Arc | None = None,
    *,
    t: bool = False,
) -> Authenticated:
    return Authenticated(
        spf=(Spf(spf, "mailfrom", "example.org", "a@example.org", ""),),
        dkim=(),
        arc=arc,
        dmarc=Dmarc(result, "example.org", "example.org", asked, t, ""),
    )


def facts(auth: Authenticated | None, *recipients: str) -> MessageFacts:
    return MessageFacts(hops=1, bounded=True, recipients=recipients or ("list@lists.test",), auth=auth)


SEALED = Arc("pass", ("mx.forwarder.test",), "")
ACCEPT, HOLD, REJECT = Action.ACCEPT, Action.HOLD, Action.REJECT


@pytest.mark.parametrize(
    "auth", [None, Authenticated(), found("pass"), found("none"), found("temperror"), found("permerror", "none")]
)
@pytest.mark.parametrize("word", ["none", "hold", "reject"])
def test_what_does_not_fail_is_no_reason(auth: Authenticated | None, word: str) -> None:
    assert decide(facts(auth), policy(dmarc_enforce=word, spf_fail=word)) == Decision(ACCEPT, (), None)


def test_too_many_authors_are_as_one_who_wants_it_rejected() -> None:
    """Nobody is looked at then, so that nobody can hide behind those in front."""
    many = facts(found("permerror"))
    assert decide(many, policy()).reasons == ("dmarc-tag",)
    assert decide(many, policy(dmarc_enforce="hold")).reasons == ("dmarc-hold",)
    refused = decide(many, policy(dmarc_enforce="reject"))
    assert refused.reasons == ("dmarc-reject",)
    assert str(refused.reply) == "550 5.7.1 too much in From to tell the author (DMARC)"


@pytest.mark.parametrize(
    ("word", "asked", "testing", "action", "reasons"),
    [
        ("none", "none", False, ACCEPT, ()),
        ("none", "quarantine", False, ACCEPT, ("dmarc-tag",)),
        ("none", "reject", False, ACCEPT, ("dmarc-tag",)),
        ("hold", "none", False, ACCEPT, ()),
        ("hold", "quarantine", False, HOLD, ("dmarc-hold",)),
        ("hold", "reject", False, HOLD, ("dmarc-hold",)),
        ("reject", "none", False, ACCEPT, ()),
        ("reject", "quarantine", False, HOLD, ("dmarc-hold",)),
        ("reject", "reject", False, REJECT, ("dmarc-reject",)),
        ("reject", "reject", True, HOLD, ("dmarc-hold",)),
        ("reject", "quarantine", True, ACCEPT, ()),
    ],
)
def test_what_dmarc_does_is_the_operators_choice(
    word: str, asked: Asked, testing: bool, action: Action, reasons: tuple[str, ...]
) -> None:
    decision = decide(facts(found(asked=asked, t=testing)), policy(dmarc_enforce=word))
    assert (decision.action, decision.reasons) == (action, reasons)


def test_by_default_nothing_is_refused_for_its_sender_alone() -> None:
    decision = decide(facts(found(spf="fail")), policy())
    assert decision == Decision(ACCEPT, ("dmarc-tag", "spf-tag"), None)


@pytest.mark.parametrize(
    ("auth", "action", "reasons"),
    [
        (found("none", spf="fail"), REJECT, ("spf-reject",)),
        (found("none", spf="softfail"), ACCEPT, ()),
        (found("none", spf="temperror"), ACCEPT, ()),
        (found("pass", spf="fail"), ACCEPT, ("spf-tag",)),
        (found("none", spf="fail", arc=SEALED), ACCEPT, ("spf-tag",)),
        (found("fail", "none", spf="fail"), REJECT, ("spf-reject",)),
        (Authenticated(spf=(Spf("fail", "helo", "mx.test", "postmaster@mx.test", ""),)), REJECT, ("spf-reject",)),
    ],
)
def test_what_fails_spf_is_spared_if_somebody_else_vouches_for_it(
    auth: Authenticated, action: Action, reasons: tuple[str, ...]
) -> None:
    decision = decide(facts(auth), policy(spf_fail="reject", trusted_sealers=["forwarder.test"]))
    assert (decision.action, decision.reasons) == (action, reasons)


def test_spf_holds_where_it_is_told_to() -> None:
    assert decide(facts(found("none", spf="fail")), policy(spf_fail="hold")).reasons == ("spf-hold",)


@pytest.mark.parametrize(
    ("arc", "spared"),
    [
        (SEALED, True),
        (Arc("pass", ("forwarder.test", "a.forwarder.test"), ""), True),
        (Arc("pass", ("stranger.test", "forwarder.test"), ""), False),
        (Arc("pass", ("forwarder.test", "stranger.test"), ""), False),
        (Arc("pass", ("evilforwarder.test",), ""), False),
        (Arc("pass", (), ""), False),
        (Arc("fail", ("forwarder.test",), ""), False),
        (Arc("temperror", ("forwarder.test",), ""), False),
        (None, False),
    ],
)
def test_a_chain_of_trusted_sealers_spares_what_dmarc_would_reject(arc: Arc | None, spared: bool) -> None:
    enforced = policy(dmarc_enforce="reject", trusted_sealers=["Forwarder.Test."])
    auth = found(arc=arc)
    assert sealed(enforced.auth, auth) is spared
    decision = decide(facts(auth), enforced)
    assert (decision.action, decision.reasons) == ((ACCEPT, ("dmarc-arc",)) if spared else (REJECT, ("dmarc-reject",)))


BY_LIST = {
    "dmarc_enforce": "hold",
    "lists": [
        {"match": "Open@*", "dmarc_enforce": "none"},
        {"match": "*@strict.test", "dmarc_enforce": "reject", "spf_fail": "hold"},
        {"match": "spf-only@*", "spf_fail": "reject"},
    ],
}


@pytest.mark.parametrize(
    ("recipients", "reasons"),
    [
        (("list@lists.test",), ("dmarc-hold", "spf-tag")),
        (("open@lists.test",), ("dmarc-tag", "spf-tag")),
        (("open@strict.test",), ("dmarc-tag", "spf-tag")),
        (("LIST@Strict.Test",), ("dmarc-reject", "spf-hold")),
        (('"spf-only"+x@lists.test',), ("spf-reject", "dmarc-hold")),
        (('"List"+x@Strict.Test',), ("dmarc-reject", "spf-hold")),
        (("spf-only@lists.test",), ("spf-reject", "dmarc-hold")),
        (("open@lists.test", "list@strict.test"), ("dmarc-reject", "spf-hold")),
        (("open@lists.test", "list@lists.test"), ("dmarc-hold", "spf-tag")),
    ],
)
def test_lists_have_a_strictness_of_their_own(recipients: tuple[str, ...], reasons: tuple[str, ...]) -> None:
    assert decide(facts(found(spf="fail"), *recipients), policy(**BY_LIST)).reasons == reasons


def test_where_no_recipient_is_known_the_general_word_counts() -> None:
    nobody = MessageFacts(hops=1, bounded=True, auth=found(spf="fail"))
    assert decide(nobody, policy(**BY_LIST, spf_fail="hold")).reasons == ("dmarc-hold", "spf-hold")


def test_what_exim_has_accepted_does_not_bounce_for_it() -> None:
    enforced = policy(dmarc_enforce="reject", spf_fail="reject")
    decision = decide(facts(found(spf="fail")), enforced)
    assert decision.reply == Reply(550, "5.7.1", "the domain in From wants this rejected (DMARC)")
    assert after_acceptance(decision, enforced).action is HOLD
    spf = decide(facts(found("none", spf="fail")), enforced)
    assert spf.reply == Reply(550, "5.7.23", "your host may not send for this sender (SPF)")
    assert after_acceptance(spf, enforced).action is HOLD


@pytest.mark.parametrize(
    ("client", "why"),
    [
        (Client(ip="192.0.2.7", source="verdict"), ""),
        (Client(), ""),
        (Client(ip="198.51.100.7", source="verdict"), "trusted-network"),
        (Client(ip="192.0.2.7", user="bob", source="verdict"), "authenticated-user"),
        (Client(source="received"), "local-program"),
    ],
)
def test_mail_of_the_sites_own_is_not_checked(client: Client, why: str) -> None:
    tree = {"spam": {"skip_networks": ["198.51.100.0/24"]}}
    assert skipped(parse(tree).for_rules.auth, client) == why


def test_nothing_is_checked_where_all_is_off() -> None:
    off = policy(spf=False, dkim=False, dmarc=False, arc=False)
    assert skipped(off.auth, Client(ip="192.0.2.7", source="verdict")) == "off"
    assert not skipped(policy(spf=False, dkim=False, dmarc=False).auth, Client(ip="192.0.2.7", source="verdict"))


SIGNATURE = Signature("pass", "example.org", "s", "@example.org", "rsa-sha256", 2048, covered=True, why="")


def test_what_the_log_and_the_metrics_say() -> None:
    auth = Authenticated(
        spf=(Spf("pass", "mailfrom", "example.org", "a@example.org", ""), Spf("none", "helo", "x", "y", "")),
        dkim=(SIGNATURE,),
        arc=Arc("none", (), ""),
        dmarc=Dmarc("pass", "example.org", "example.org", "reject", testing=False, why=""),
    )
    assert told(auth) == {
        "spf_mailfrom": "pass",
        "spf_helo": "none",
        "dkim": ["pass example.org"],
        "arc": "none",
        "dmarc": "pass",
        "author": "example.org",
        "dmarc_policy": "reject",
    }
    assert told(None) == told(Authenticated()) == {}
    assert list(results(auth)) == [
        *[("spf", "pass"), ("spf", "none")],
        ("dkim", "pass"),
        ("dmarc", "pass"),
        ("arc", "none"),
    ]
    assert list(results(Authenticated(dkim=()))) == [("dkim", "none")]
