"""DMARC: does what SPF and DKIM vouch for belong to the author's domain, and what does that domain want? RFC 9989.

Duty: the evaluation as a function of facts. What the DNS says is one of them: `evaluate` names the next questions until
it knows enough, so that whoever asks the DNS keeps the time and the number of questions. No answer is a reason to raise
an exception; a question that could not be answered and would have mattered is `temperror`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from mailgate.core.auth import Disposition, Dmarc, DmarcResult, RecordType, Resolved, Signature, Spf
from mailgate.core.dmarc_record import Record, record
from mailgate.core.domains import ascii_form, within

MAX_AUTHORS = 4  # author domains that are looked at; of a message with more, none
_MAX_WALK = 8  # questions of a tree walk, RFC 9989 §4.10
_LONGEST = 253


@dataclass(frozen=True, slots=True)
class Question:
    """A question to the DNS. "A" asks whether the name exists at all."""

    name: str
    type: RecordType


Answers = Mapping[Question, Resolved]


@dataclass(frozen=True, slots=True)
class _Walk:
    """A tree walk as far as it got: the records found, the longest name first; the question it waits for, and the
    trouble it met, None while there is none.
    """

    found: tuple[tuple[str, Record], ...]
    ask: Question | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class _Identifier:
    """A domain that a check vouches for, or may have vouched for if the DNS had answered (`sure` False)."""

    method: Literal["spf", "dkim"]
    domain: str
    sure: bool


def names(domain: str) -> tuple[str, ...]:
    """The domains whose records a tree walk from `domain` asks for, in that order. RFC 9989 §4.10."""
    labels = domain.split(".")
    first = 1 if len(labels) < _MAX_WALK else len(labels) - _MAX_WALK + 1
    return (domain, *(".".join(labels[at:]) for at in range(first, len(labels))))


def lacking(author: str, answers: Answers) -> tuple[Question, ...]:
    """What is to be asked for one author whoever vouches for the message; nothing when all of it is known.

    That is the whole walk and not what `evaluate` would ask for next: names of a sender's choice must not use up the
    time in which we would have learned where the author's organisation ends, and that it has nothing to do with them.
    """
    questions = [Question(f"_dmarc.{name}", "TXT") for name in names(author)]
    if walk := tuple(one for one in questions if one not in answers and len(one.name) <= _LONGEST):
        return walk
    applied = _applied(author, answers)
    return (applied,) if isinstance(applied, Question) else ()


def evaluate(
    authors: tuple[str, ...] | None,
    answers: Answers,
    spf: Iterable[Spf],
    dkim: Iterable[Signature],
    *,
    client_known: bool = True,
) -> Dmarc | tuple[Question, ...]:
    """DMARC's result for the authors' domains (`author.domains`), or the next questions whose answers it takes.

    Ask for what is `lacking` first, while SPF and DKIM are being checked. Of several authors the worst result counts,
    so that none hides behind another (RFC 9989 §11.5). Where the client is not known SPF may
    have passed, for all that we know: what rests on it is `temperror`.
    """
    if authors is None:  # somebody is hidden in it
        return Dmarc("permerror", "", "", "reject", testing=False, why="a From that is too long to be read")
    if not authors:
        return Dmarc("permerror", "", "", "none", testing=False, why="no author's domain in From")
    if len(authors) > MAX_AUTHORS:
        # To look at the first few would tell whom to put in front; no mail of people's has as many.
        return Dmarc("permerror", authors[0], "", "reject", testing=False, why=f"{len(authors)} author domains in From")
    vouched = _identifiers(spf, dkim, client_known=client_known)
    results: list[Dmarc] = []
    asked: list[Question] = []
    for author in authors:
        result = _of_author(author, answers, vouched)
        if isinstance(result, Question):
            asked.append(result)
        else:
            results.append(result)
    if asked:
        return tuple(dict.fromkeys(asked))
    worst = max(results, key=_badness)
    return worst if len(authors) == 1 else replace(worst, why=f"{worst.why}; the worst of {len(authors)} authors")


def _badness(result: Dmarc) -> int:
    words: tuple[DmarcResult, ...] = ("pass", "none", "permerror", "fail", "temperror")
    asked: tuple[Disposition, ...] = ("none", "quarantine", "reject")
    enforced = asked.index(result.policy) if result.result == "fail" else 0
    return len(words) * enforced + words.index(result.result)


def _identifiers(spf: Iterable[Spf], dkim: Iterable[Signature], *, client_known: bool) -> list[_Identifier]:
    """RFC 9989 §4.3: the MAIL FROM identity alone counts of SPF (a null reverse-path has it too, RFC 7208 §2.4)."""
    found = [
        _Identifier("spf", ascii_form(one.domain), one.result == "pass")
        for one in spf
        if one.identity == "mailfrom" and (one.result in {"pass", "temperror"} or not client_known)
    ]
    found += [
        _Identifier("dkim", ascii_form(one.domain), one.result == "pass")
        for one in dkim
        if one.covered and one.result in {"pass", "temperror"}
    ]
    return sorted(dict.fromkeys(found), key=lambda one: not one.sure)


def _of_author(author: str, answers: Answers, vouched: list[_Identifier]) -> Dmarc | Question:
    applied = _applied(author, answers)
    if isinstance(applied, Question | Dmarc):
        return applied
    published, wanted, exists = applied
    if wanted.unusable:
        return Dmarc("permerror", author, published, "none", testing=False, why=f"{published}: {wanted.unusable}")
    policy = wanted.p if published == author else wanted.sp if exists else wanted.np
    result = Dmarc("fail", author, published, policy, wanted.testing, "nothing vouches for this domain")
    for one in vouched:
        aligned = _aligned(
            author, one, answers, strict=wanted.strict_spf if one.method == "spf" else wanted.strict_dkim
        )
        if isinstance(aligned, Question):
            return aligned
        if isinstance(aligned, str):
            result = replace(result, result="temperror", why=aligned)
        elif aligned and one.sure:
            return replace(result, result="pass", why=f"{one.method} vouches for {one.domain}")
        elif aligned:
            result = replace(
                result, result="temperror", why=f"{one.method} of {one.domain or 'somebody'} could not be checked"
            )
        elif result.result == "fail" and one.sure:
            result = replace(result, why=f"{one.method} vouches for {one.domain}, which is not aligned")
    return result


def _applied(author: str, answers: Answers) -> tuple[str, Record, bool] | Dmarc | Question:
    """The record that applies, where it was found, and whether the author's domain exists; or the end. §4.10.1."""
    own = Question(f"_dmarc.{author}", "TXT")
    walk = _walk(author, answers, most=1)
    if not walk.found and not walk.trouble and not walk.ask:
        walk = _walk(author, answers)
    if walk.ask:
        return walk.ask
    if walk.trouble:
        return Dmarc("temperror", author, "", "none", testing=False, why=walk.trouble)
    if not walk.found:
        return Dmarc("none", author, "", "none", testing=False, why="no DMARC record")
    records = dict(walk.found)
    if author in records:
        return author, records[author], True
    at = organisational(author, walk.found)
    if at not in records:  # the domain below a public suffix that has a record, and has none itself
        at = walk.found[-1][0]
    wanted = records[at]
    if wanted.np == wanted.sp or (own in answers and answers[own].answer != "nxdomain"):
        return at, wanted, True
    existence = Question(author, "A")
    if existence not in answers:
        return existence
    return at, wanted, answers[existence].answer != "nxdomain"  # RFC 8020: then nothing is below it, either


def _aligned(author: str, one: _Identifier, answers: Answers, *, strict: bool) -> bool | str | Question:
    """Are the two aligned (§4.4)? Else the trouble that keeps us from knowing, or the question to be asked first."""
    if not one.domain:
        return not one.sure  # whatever it would have been
    if one.domain == author or strict:
        return one.domain == author
    here = _walk(author, answers)
    if here.ask or here.trouble:
        return here.ask or (here.trouble if _shared(author, one.domain) else False)
    home = organisational(author, here.found)
    if not within(one.domain, home):
        return False
    there = _walk(one.domain, answers)
    if there.ask or there.trouble:
        return there.ask or there.trouble
    return organisational(one.domain, there.found) == home


def _shared(one: str, other: str) -> bool:
    """Could the two have an organisational domain in common?"""
    return one.rpartition(".")[2] == other.rpartition(".")[2]


def organisational(domain: str, found: tuple[tuple[str, Record], ...]) -> str:
    """The organisational domain of `domain`, by the records that its tree walk found. RFC 9989 §4.10.2."""
    for name, one in found:
        if one.psd == "n":
            return name
        if one.psd == "y" and name != domain:
            return ".".join(domain.split(".")[-name.count(".") - 2 :])
    return found[-1][0] if found else domain


def _walk(domain: str, answers: Answers, most: int = _MAX_WALK) -> _Walk:
    found: list[tuple[str, Record]] = []
    for name in names(domain)[:most]:
        question = Question(f"_dmarc.{name}", "TXT")
        if len(question.name) > _LONGEST:
            continue  # no such name can be
        answered = answers.get(question)
        if answered is None:
            return _Walk(tuple(found), ask=question)
        if not answered.known:
            return _Walk(tuple(found), trouble=f"{question.name}: {answered.answer}")
        valid = [one for text in answered.records if (one := record(text.decode("ascii", "replace")))]
        if len(valid) == 1:  # several are none
            found.append((name, valid[0]))
            if valid[0].psd != "u":
                break
    return _Walk(tuple(found))
