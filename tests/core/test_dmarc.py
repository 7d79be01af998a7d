"""DMARC as a function of facts: the record, the tree walk, alignment, what the author's domain wants."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.auth import Answer, DkimResult, Dmarc, Resolved, Signature, Spf, SpfResult
from mailgate.core.dmarc import Question, evaluate, lacking, names
from mailgate.core.dmarc_record import Record, record


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("v=DMARC1; p=reject", Record("reject", "reject", "reject")),
        ("v=DMARC1;p=reject;", Record("reject", "reject", "reject")),
        ("v = DMARC1 ; P = Reject ; SP=none", Record("reject", "none", "none")),
        ("v=DMARC1; p=none; sp=quarantine; np=reject", Record("none", "quarantine", "reject")),
        ("v=DMARC1; np=reject; p=quarantine", Record("quarantine", "quarantine", "reject")),
        ("v=DMARC1; p=none; adkim=s; aspf=s", Record(strict_dkim=True, strict_spf=True)),
        ("v=DMARC1; p=none; adkim=x; aspf=r; t=maybe; psd=x", Record()),
        ("v=DMARC1; p=reject; t=y", Record("reject", "reject", "reject", testing=True)),
        ("v=DMARC1; p=none; psd=y", Record(psd="y")),
        ("v=DMARC1; p=none; psd=n", Record(psd="n")),
        ("v=DMARC1; p=reject; pct=0; rf=afrf; ri=86400; fo=1; x=y", Record("reject", "reject", "reject")),
        ("v=DMARC1; p=reject; p=none", Record("reject", "reject", "reject")),
        ("v=DMARC1; p=reject; nonsense; =; ;;", Record("reject", "reject", "reject")),
        ("v=DMARC1", Record()),
        ("v=DMARC1; rua=mailto:a@example.org", Record()),
        ("v=DMARC1; p=rejected; rua=mailto:a@example.org", Record()),
        ("v=DMARC1; p=rejected; rua=nobody", Record(unusable="p=rejected is no policy")),
        ("v=DMARC1; p=reject; sp=", Record(unusable="sp= is no policy")),
        ("v=DMARC1; p=reject; np=all; rua=mailto:a@example.org", Record()),
        ("v=DMARC1x; p=reject", None),
        ("v=dmarc1; p=reject", None),
        ("p=reject; v=DMARC1", None),
        (" v=DMARC1; p=reject", None),
        ("v=spf1 -all", None),
        ("", None),
    ],
)
def test_a_record(text: str, found: Record | None) -> None:
    assert record(text) == found


@pytest.mark.parametrize(
    ("domain", "asked"),
    [
        ("org", ("org",)),
        ("example.org", ("example.org", "org")),
        (
            "a.b.c.d.e.f.g.h",
            ("a.b.c.d.e.f.g.h", "b.c.d.e.f.g.h", "c.d.e.f.g.h", "d.e.f.g.h", "e.f.g.h", *("f.g.h", "g.h", "h")),
        ),
        (
            "z.a.b.c.d.e.f.g.h",
            ("z.a.b.c.d.e.f.g.h", "b.c.d.e.f.g.h", "c.d.e.f.g.h", "d.e.f.g.h", "e.f.g.h", "f.g.h", "g.h", "h"),
        ),
    ],
)
def test_which_names_a_tree_walk_asks_for(domain: str, asked: tuple[str, ...]) -> None:
    assert names(domain) == asked


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60).map(".".join))
def test_a_tree_walk_asks_eight_times_at_most(domain: str) -> None:
    asked = names(domain)
    assert len(asked) <= 8
    assert asked[0] == domain
    assert asked[-1] == domain[-1]


Zone = dict[str, str | tuple[str, ...] | Answer]
_WORDS: tuple[Answer, ...] = ("nxdomain", "nodata", "servfail", "timeout", "garbage", "too-many")


def spf(domain: str, result: SpfResult = "pass") -> Spf:
    return Spf(result, "mailfrom", domain, f"a@{domain}", "")


def dkim(domain: str, result: DkimResult = "pass") -> Signature:
    return Signature(result, domain, "s", f"@{domain}", "rsa-sha256", 2048, covered=True, why="")


def answered(zone: Zone, question: Question) -> Resolved:
    found = zone.get(question.name, "nxdomain")
    if isinstance(found, tuple):
        return Resolved("found", tuple(text.encode() for text in found))
    for word in _WORDS:
        if found == word:
            return Resolved(word)
    return Resolved("found", (found.encode(),))


def judged(
    zone: Zone, authors: str, spfs: list[Spf] | None = None, signatures: list[Signature] | None = None
) -> tuple[Dmarc, list[str]]:
    """The result, and what was asked for it in turn."""
    answers: dict[Question, Resolved] = {}
    while isinstance(said := evaluate(tuple(authors.split()), answers, spfs or [], signatures or []), tuple):
        assert said
        for question in said:
            assert question not in answers
            answers[question] = answered(zone, question)
    return said, [question.name for question in answers]


REJECT: Zone = {"_dmarc.example.org": "v=DMARC1; p=reject"}
NAMES_ASKED = ("_dmarc.example.org", "_dmarc.org", "_dmarc.m.example.org")


@pytest.mark.parametrize(
    ("zone", "author", "spfs", "signatures", "result", "policy", "why"),
    [
        (REJECT, "example.org", [spf("example.org")], [], "pass", "reject", "spf vouches for example.org"),
        (REJECT, "example.org", [], [dkim("example.org")], "pass", "reject", "dkim vouches for example.org"),
        (REJECT, "example.org", [], [dkim("Example.ORG.")], "pass", "reject", "dkim vouches for example.org"),
        (REJECT, "example.org", [], [dkim("m.example.org")], "pass", "reject", "dkim vouches for m.example.org"),
        (REJECT, "m.example.org", [spf("example.org")], [], "pass", "reject", "spf vouches for example.org"),
        (REJECT, "m.example.org", [spf("b.example.org")], [], "pass", "reject", "spf vouches for b.example.org"),
        (REJECT, "example.org", [], [], "fail", "reject", "nothing vouches for this domain"),
        (
            *(REJECT, "example.org", [spf("example.net")], [dkim("lists.test")], "fail", "reject"),
            "dkim vouches for lists.test, which is not aligned",
        ),
        (REJECT, "example.org", [spf("badexample.org")], [], "fail", "reject", None),
        (REJECT, "example.org", [spf("org")], [], "fail", "reject", None),
        (
            REJECT,
            "example.org",
            [spf("example.org", "softfail")],
            [dkim("example.org", "fail")],
            "fail",
            "reject",
            None,
        ),
        (REJECT, "example.org", [replace(spf("example.org"), identity="helo")], [], "fail", "reject", None),
        (REJECT, "example.org", [], [replace(dkim("example.org"), covered=False)], "fail", "reject", None),
        (
            *(REJECT, "example.org", [spf("example.org", "temperror")], [], "temperror", "reject"),
            "spf of example.org could not be checked",
        ),
        (REJECT, "example.org", [], [dkim("m.example.org", "temperror")], "temperror", "reject", None),
        (REJECT, "example.org", [spf("example.net", "temperror")], [], "fail", "reject", None),
        (REJECT, "example.org", [spf("example.org", "temperror")], [dkim("example.org")], "pass", "reject", None),
        ({}, "example.org", [spf("example.org")], [], "none", "none", "no DMARC record"),
        ({"_dmarc.example.org": "v=spf1 -all"}, "example.org", [], [], "none", "none", None),
        (
            {"_dmarc.example.org": ("v=DMARC1; p=none", "v=DMARC1; p=reject")},
            "example.org",
            [],
            [],
            "none",
            "none",
            None,
        ),
        ({"_dmarc.example.org": ("unrelated", "v=DMARC1; p=reject")}, "example.org", [], [], "fail", "reject", None),
        (
            {"_dmarc.example.org": "servfail"},
            "example.org",
            [],
            [],
            "temperror",
            "none",
            "_dmarc.example.org: servfail",
        ),
        ({"_dmarc.org": "timeout"}, "example.org", [], [], "temperror", "none", "_dmarc.org: timeout"),
        ({"_dmarc.example.org": "too-many"}, "example.org", [], [], "temperror", "none", None),
        ({"_dmarc.example.org": "garbage"}, "example.org", [], [], "temperror", "none", None),
        (REJECT | {"_dmarc.org": "timeout"}, "example.org", [], [], "fail", "reject", None),
        (REJECT | {"_dmarc.org": "timeout"}, "example.org", [spf("example.org")], [], "pass", "reject", None),
        (REJECT | {"_dmarc.org": "timeout"}, "example.org", [spf("lists.test")], [], "fail", "reject", None),
        (
            *(REJECT | {"_dmarc.org": "timeout"}, "example.org", [spf("m.example.org")], []),
            *("temperror", "reject", "_dmarc.org: timeout"),
        ),
        (
            *(REJECT | {"_dmarc.m.example.org": "servfail"}, "example.org", [], [dkim("m.example.org")]),
            *("temperror", "reject", "_dmarc.m.example.org: servfail"),
        ),
        (
            *({"_dmarc.example.org": "v=DMARC1; p=no"}, "example.org", [spf("example.org")], [], "permerror", "none"),
            "example.org: p=no is no policy",
        ),
    ],
)
def test_what_the_facts_come_to(
    zone: Zone, author: str, spfs: list[Spf], signatures: list[Signature], result: str, policy: str, why: str | None
) -> None:
    found, _ = judged(zone, author, spfs, signatures)
    assert (found.result, found.policy, found.domain) == (result, policy, author)
    assert why is None or found.why == why


def test_strict_alignment_is_equality() -> None:
    zone: Zone = {"_dmarc.example.org": "v=DMARC1; p=reject; adkim=s; aspf=s"}
    assert judged(zone, "example.org", [spf("m.example.org")], [dkim("m.example.org")])[0].result == "fail"
    assert judged(zone, "example.org", [spf("example.org")])[0].result == "pass"
    zone = {"_dmarc.example.org": "v=DMARC1; p=reject; adkim=s"}
    assert judged(zone, "example.org", [], [dkim("m.example.org")])[0].result == "fail"
    assert judged(zone, "example.org", [spf("m.example.org")])[0].result == "pass"


SUBDOMAINS = "v=DMARC1; p=reject; sp=quarantine; np=none"


@pytest.mark.parametrize(
    ("zone", "author", "published", "policy"),
    [
        ({"_dmarc.example.org": SUBDOMAINS}, "example.org", "example.org", "reject"),
        ({"_dmarc.example.org": SUBDOMAINS, "m.example.org": "nodata"}, "m.example.org", "example.org", "quarantine"),
        ({"_dmarc.example.org": SUBDOMAINS, "m.example.org": "timeout"}, "m.example.org", "example.org", "quarantine"),
        ({"_dmarc.example.org": SUBDOMAINS}, "m.example.org", "example.org", "none"),
        (
            {"_dmarc.example.org": SUBDOMAINS, "_dmarc.m.example.org": "nodata"},
            *("m.example.org", "example.org", "quarantine"),
        ),
        # The record nearest to the root is the organisation's, RFC 9989 §4.10.2.
        (
            {"_dmarc.m.example.org": "v=DMARC1; p=none; sp=none", "_dmarc.example.org": "v=DMARC1; p=reject"},
            *("a.m.example.org", "example.org", "reject"),
        ),
        (
            {"_dmarc.m.example.org": "v=DMARC1; p=none; psd=n", "_dmarc.example.org": "v=DMARC1; p=reject"},
            *("a.m.example.org", "m.example.org", "none"),
        ),
        # Below a public suffix that publishes for all.
        ({"_dmarc.bank": "v=DMARC1; p=reject; psd=y"}, "a.example.bank", "bank", "reject"),
        (
            {"_dmarc.bank": "v=DMARC1; p=reject; psd=y", "_dmarc.example.bank": "v=DMARC1; p=none"},
            *("a.example.bank", "example.bank", "none"),
        ),
        ({"_dmarc.bank": "v=DMARC1; p=reject; psd=y"}, "bank", "bank", "reject"),
    ],
)
def test_whose_policy_applies(zone: Zone, author: str, published: str, policy: str) -> None:
    found, _ = judged(zone, author)
    assert (found.result, found.published, found.policy) == ("fail", published, policy)


@pytest.mark.parametrize(
    ("zone", "author", "signer", "result"),
    [
        ({"_dmarc.bank": "v=DMARC1; p=reject; psd=y"}, "a.example.bank", "b.example.bank", "pass"),
        ({"_dmarc.bank": "v=DMARC1; p=reject; psd=y"}, "example.bank", "other.bank", "fail"),
        ({"_dmarc.bank": "v=DMARC1; p=reject; psd=y"}, "example.bank", "bank", "fail"),
        (
            {"_dmarc.example.org": "v=DMARC1; p=reject", "_dmarc.m.example.org": "v=DMARC1; psd=n"},
            *("example.org", "m.example.org", "fail"),
        ),
        (
            {"_dmarc.example.org": "v=DMARC1; p=reject", "_dmarc.m.example.org": "v=DMARC1; psd=n"},
            *("a.m.example.org", "m.example.org", "pass"),
        ),
        (
            {"_dmarc.example.org": "v=DMARC1; p=reject", "_dmarc.m.example.org": "v=DMARC1; psd=y"},
            *("example.org", "a.m.example.org", "fail"),
        ),
    ],
)
def test_where_an_organisation_ends(zone: Zone, author: str, signer: str, result: str) -> None:
    assert judged(zone, author, [], [dkim(signer)])[0].result == result


@pytest.mark.parametrize(
    ("author", "spfs", "asked"),
    [
        ("example.org", [spf("example.org")], ["_dmarc.example.org"]),
        ("example.org", [], ["_dmarc.example.org"]),
        ("example.org", [spf("lists.test")], ["_dmarc.example.org", "_dmarc.org"]),
        ("example.org", [spf("m.example.org")], ["_dmarc.example.org", "_dmarc.org", "_dmarc.m.example.org"]),
        ("a.example.org", [], ["_dmarc.a.example.org", "_dmarc.example.org", "_dmarc.org"]),
        ("example.net", [spf("example.net")], ["_dmarc.example.net", "_dmarc.net"]),
        ("a.b.c.d.e.f.g.h.i", [spf("lists.test")], [f"_dmarc.{one}" for one in names("a.b.c.d.e.f.g.h.i")]),
    ],
)
def test_nothing_is_asked_that_is_not_needed(author: str, spfs: list[Spf], asked: list[str]) -> None:
    assert judged(REJECT, author, spfs)[1] == asked


def test_a_record_that_says_psd_ends_the_walk() -> None:
    assert judged({"_dmarc.m.example.org": "v=DMARC1; psd=n"}, "a.m.example.org")[1] == [
        "_dmarc.a.m.example.org",
        "_dmarc.m.example.org",
    ]


def test_testing_is_told_and_takes_nothing_off_the_policy() -> None:
    found, _ = judged({"_dmarc.example.org": "v=DMARC1; p=reject; t=y"}, "example.org")
    assert found == Dmarc(
        "fail", "example.org", "example.org", "reject", testing=True, why="nothing vouches for this domain"
    )


def test_a_name_that_is_too_long_for_a_record_has_none() -> None:
    author = ".".join(["x" * 61] * 3 + ["y" * 50, "example.org"])
    found, asked = judged(REJECT, author)
    assert (found.result, found.published) == ("fail", "example.org")
    assert max(map(len, asked)) <= 253


@pytest.mark.parametrize(
    ("sender", "signatures", "result"),
    [
        ("example.org", [], "temperror"),
        ("m.example.org", [], "temperror"),
        ("", [], "temperror"),
        ("example.net", [], "fail"),
        ("example.org", [dkim("example.org")], "pass"),
    ],
)
def test_nobody_fails_because_we_do_not_know_the_client(sender: str, signatures: list[Signature], result: str) -> None:
    answers = {Question(name, "TXT"): answered(REJECT, Question(name, "TXT")) for name in NAMES_ASKED}
    found = evaluate(("example.org",), answers, [spf(sender, "none")], signatures, client_known=False)
    assert isinstance(found, Dmarc)
    assert found.result == result


def test_a_signature_that_was_not_looked_at_may_have_been_the_authors() -> None:
    assert judged(REJECT, "example.org", [], [dkim("", "temperror")])[0].result == "temperror"
    assert judged(REJECT, "example.org", [], [dkim("", "pass"), dkim("", "permerror")])[0].result == "fail"


AUTHORS: Zone = {
    "_dmarc.example.org": "v=DMARC1; p=none",
    "_dmarc.strict.test": "v=DMARC1; p=reject",
    "_dmarc.down.test": "servfail",
    "_dmarc.wrong.test": "v=DMARC1; p=x",
}


@pytest.mark.parametrize(
    ("authors", "result", "domain"),
    [
        ("example.org strict.test", "fail", "strict.test"),
        ("strict.test example.org", "fail", "strict.test"),
        ("down.test strict.test", "fail", "strict.test"),
        ("down.test example.org", "temperror", "down.test"),
        ("example.org wrong.test", "fail", "example.org"),
        ("passes.test wrong.test", "permerror", "wrong.test"),
        ("passes.test no.test", "none", "passes.test"),
        ("", "permerror", ""),
        ("a.test b.test c.test d.test e.test", "permerror", "a.test"),
    ],
)
def test_of_several_authors_the_worst_counts(authors: str, result: str, domain: str) -> None:
    found, asked = judged(AUTHORS, authors)
    assert (found.result, found.domain) == (result, domain)
    assert len(asked) <= 4 * 8


def test_all_authors_are_asked_for_at_once() -> None:
    asked = evaluate(("example.org", "strict.test"), {}, [], [])
    assert asked == (Question("_dmarc.example.org", "TXT"), Question("_dmarc.strict.test", "TXT"))
    one = {asked[1]: answered(AUTHORS, asked[1])}
    assert evaluate(("example.org", "strict.test"), one, [], []) == asked[:1]


def test_too_many_authors_are_not_looked_at_and_want_it_rejected() -> None:
    found, asked = judged(AUTHORS, "a.test b.test c.test d.test strict.test")
    assert (found.result, found.policy, found.why, asked) == ("permerror", "reject", "5 author domains in From", [])


def test_who_hides_in_a_from_that_nobody_reads_wants_it_rejected() -> None:
    found = evaluate(None, {}, [], [])
    assert isinstance(found, Dmarc)
    assert (found.result, found.policy, found.why) == ("permerror", "reject", "a From that is too long to be read")


@pytest.mark.parametrize(
    ("zone", "author", "asked"),
    [
        (REJECT, "example.org", ["_dmarc.example.org", "_dmarc.org"]),
        (REJECT, "m.example.org", ["_dmarc.m.example.org", "_dmarc.example.org", "_dmarc.org"]),
        (
            {"_dmarc.example.org": SUBDOMAINS, "_dmarc.m.example.org": "nxdomain"},
            *("m.example.org", ["_dmarc.m.example.org", "_dmarc.example.org", "_dmarc.org", "m.example.org"]),
        ),
        ({}, "a.b.c.d.e.f.g.h.i", [f"_dmarc.{one}" for one in names("a.b.c.d.e.f.g.h.i")]),
    ],
)
def test_what_is_to_be_asked_whoever_vouches(zone: Zone, author: str, asked: list[str]) -> None:
    """Nothing more is needed then to know that a stranger who could not be checked is a stranger."""
    answers: dict[Question, Resolved] = {}
    while questions := lacking(author, answers):
        answers |= {question: answered(zone, question) for question in questions}
    assert [question.name for question in answers] == asked
    found = evaluate((author,), answers, [spf("evil.test", "temperror")], [])
    assert isinstance(found, Dmarc)
    assert found.result in {"fail", "none"}


LABELS = st.lists(st.sampled_from("abc"), min_size=1, max_size=9).map(".".join)
TEXTS = st.sampled_from(
    ["v=DMARC1; p=reject", "v=DMARC1; p=none; psd=y", "v=DMARC1; sp=none; psd=n", "v=DMARC1; p=x", "nodata", "timeout"]
)


@given(
    st.dictionaries(LABELS.map("_dmarc.{}".format), TEXTS, max_size=6),
    st.lists(LABELS, min_size=1, max_size=3).map(" ".join),
    st.lists(LABELS.map(spf), max_size=1),
    st.lists(LABELS.map(dkim), max_size=10),
)
def test_it_always_ends_and_a_pass_is_of_one_tree(
    zone: dict[str, str], authors: str, spfs: list[Spf], signatures: list[Signature]
) -> None:
    found, asked = judged(dict(zone), authors, spfs, signatures)
    assert len(asked) == len(set(asked))
    if found.result == "pass":
        assert found.domain[-1] in {one.domain[-1] for one in spfs} | {one.domain[-1] for one in signatures}


@given(LABELS, LABELS)
def test_alignment_is_symmetric(one: str, other: str) -> None:
    zone: Zone = {f"_dmarc.{name}": "v=DMARC1; p=none" for name in (one, other)}
    assert judged(zone, one, [spf(other)])[0].result == judged(zone, other, [spf(one)])[0].result
