"""Promise 1 and 2 as properties: what may be said to Exim, for any outcomes and whatever the spool does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core import answer
from mailgate.core.envelope import Door
from mailgate.core.outcome import Outcome, Result
from mailgate.core.reply import MAX_TEXT, Reply

ID = "01hf7yat3v00000000"
OK = Reply(250, "", "Ok")
UNKNOWN = Reply(550, "", "Requested action not taken: mailbox unavailable")
LATER = Reply(451, "", "Requested action aborted: error in processing")
DELIVERED, REFUSED = Outcome(Result.DELIVERED, OK), Outcome(Result.REFUSED, UNKNOWN)
DEFERRED, UNREACHED = Outcome(Result.DEFERRED, LATER), Outcome(Result.UNREACHED, LATER)
UNCERTAIN = Outcome(Result.UNCERTAIN, LATER, alone=True)


def texts() -> st.SearchStrategy[str]:
    return st.sampled_from(["", "Ok", "5.1.1 no", "x" * MAX_TEXT])


def outcomes_of(result: Result) -> st.SearchStrategy[Outcome]:
    """What the next hop may have said for this result."""
    if result is Result.DELIVERED:
        replies = st.builds(Reply, st.integers(200, 299), st.sampled_from(["", "2.0.0"]), texts())
    elif result is Result.REFUSED:
        replies = st.builds(Reply, st.integers(500, 599), st.sampled_from(["", "5.1.1"]), texts())
    else:
        replies = st.builds(Reply, st.integers(400, 599), st.just(""), texts())
    return st.builds(Outcome, st.just(result), replies, alone=st.booleans())


OUTCOMES = st.lists(st.one_of(*map(outcomes_of, Result)), min_size=1, max_size=6).map(
    lambda found: {f"{n}@lists.test": outcome for n, outcome in enumerate(found)}
)
DOORS: st.SearchStrategy[Door] = st.sampled_from(["lmtp", "smtp"])
SPOOLS = st.sampled_from(
    [None, answer.trouble(ID), answer.no_space(ID)]
)  # it took them, or the reply because it did not


def answered(
    door: Door, outcomes: dict[str, Outcome], spool: Reply | None
) -> tuple[dict[str, str], dict[str, tuple[str, Reply]]]:
    """What is on disk after this, and what is said."""
    parked = answer.to_park(door, outcomes)
    unparked = spool if parked else None
    return ({} if unparked else parked), answer.replies(door, ID, outcomes, parked, unparked)


@given(DOORS, OUTCOMES, SPOOLS)
def test_promise_1_a_250_means_delivered_or_on_disk(
    door: Door, outcomes: dict[str, Outcome], spool: Reply | None
) -> None:
    on_disk, said = answered(door, outcomes, spool)
    for recipient, (_, reply) in said.items():
        if reply.positive:
            assert outcomes[recipient].result is Result.DELIVERED or recipient in on_disk


@given(DOORS, OUTCOMES, SPOOLS)
def test_promise_2_a_5xx_means_refused(door: Door, outcomes: dict[str, Outcome], spool: Reply | None) -> None:
    _, said = answered(door, outcomes, spool)
    for recipient, (_, reply) in said.items():
        if reply.permanent:
            assert outcomes[recipient].result is Result.REFUSED


@given(DOORS, OUTCOMES, SPOOLS)
def test_every_recipient_is_answered_with_the_id_and_a_code_of_the_same_class(
    door: Door, outcomes: dict[str, Outcome], spool: Reply | None
) -> None:
    _, said = answered(door, outcomes, spool)
    assert list(said) == list(outcomes)
    for _, reply in said.values():
        assert reply.text.startswith(ID)
        assert reply.code // 100 in {2, 4, 5}
        assert re.fullmatch(rf"{reply.code // 100}\.\d+\.\d+", reply.enhanced)  # RFC 2034 §4
        assert len(str(reply)) <= 510  # RFC 5321 §4.5.3.1.5, without CRLF
    if door == "smtp":
        assert len({reply for _, reply in said.values()}) == 1


@given(OUTCOMES, SPOOLS)
def test_on_lmtp_each_recipient_has_the_reply_of_its_own_fate(
    outcomes: dict[str, Outcome], spool: Reply | None
) -> None:
    on_disk, said = answered("lmtp", outcomes, spool)
    for recipient, outcome in outcomes.items():
        alone = {recipient: outcome}
        assert said[recipient] == answered("lmtp", alone, spool)[1][recipient]
        if outcome.result is Result.DELIVERED:
            assert said[recipient][0] == answer.DELIVERED
        elif outcome.result is Result.REFUSED:
            assert said[recipient][0] == answer.REJECTED
        else:
            assert said[recipient][0] == (answer.SPOOLED if recipient in on_disk else answer.DEFERRED)


@given(DOORS, OUTCOMES, SPOOLS)
def test_what_mailman_took_is_not_kept_to_be_sent_again(
    door: Door, outcomes: dict[str, Outcome], spool: Reply | None
) -> None:
    on_disk, _ = answered(door, outcomes, spool)
    for recipient, state in on_disk.items():
        result = outcomes[recipient].result
        assert result is not Result.DELIVERED
        assert (state == "failed") == (result is Result.REFUSED)
        assert state in {"pending", "failed"}


@pytest.mark.parametrize(
    ("door", "outcomes", "parked"),
    [
        ("lmtp", [DELIVERED, REFUSED], {}),
        ("lmtp", [DEFERRED, UNCERTAIN, UNREACHED, DELIVERED], {0: "pending", 1: "pending", 2: "pending"}),
        ("smtp", [DELIVERED, DELIVERED], {}),
        ("smtp", [REFUSED, REFUSED], {}),
        ("smtp", [DELIVERED, REFUSED], {1: "failed"}),
        ("smtp", [REFUSED, DEFERRED], {0: "failed", 1: "pending"}),
        ("smtp", [DEFERRED, DELIVERED], {0: "pending"}),
    ],
)
def test_who_has_to_be_on_disk(door: Door, outcomes: list[Outcome], parked: dict[int, str]) -> None:
    assert answer.to_park(door, {str(n): found for n, found in enumerate(outcomes)}) == {
        str(n): state for n, state in parked.items()
    }


@pytest.mark.parametrize(
    ("outcome", "spool", "word", "reply"),
    [
        (DELIVERED, None, "delivered", f"250 2.0.0 {ID} delivered: Ok"),
        (Outcome(Result.DELIVERED, Reply(250, "2.1.5", "")), None, "delivered", f"250 2.0.0 {ID} delivered: 250"),
        (UNREACHED, None, "spooled", f"250 2.0.0 {ID} spooled"),
        (DEFERRED, None, "spooled", f"250 2.0.0 {ID} spooled"),
        (UNCERTAIN, None, "spooled", f"250 2.0.0 {ID} spooled"),
        (DEFERRED, answer.trouble(ID), "deferred", f"451 4.3.0 {ID} could not be taken care of now, try again"),
        (DEFERRED, answer.no_space(ID), "deferred", f"452 4.3.1 {ID} no space to keep the message, try again later"),
        (REFUSED, None, "rejected", f"550 5.1.1 {ID} {UNKNOWN.text}"),
        (Outcome(Result.REFUSED, Reply(553, "5.6.7", "no")), None, "rejected", f"553 5.6.7 {ID} no"),
        (
            Outcome(Result.REFUSED, Reply(501, "", "Message has defects")),
            None,
            "rejected",
            f"501 5.6.0 {ID} Message has defects",
        ),
        (Outcome(Result.REFUSED, Reply(599, "", "")), None, "rejected", f"599 5.0.0 {ID}"),
    ],
)
@pytest.mark.parametrize("door", ["lmtp", "smtp"])
def test_the_words_for_one_recipient(door: Door, outcome: Outcome, spool: Reply | None, word: str, reply: str) -> None:
    _, said = answered(door, {"list@lists.test": outcome}, spool)
    assert [(found, str(text)) for found, text in said.values()] == [(word, reply)]


@pytest.mark.parametrize(
    ("outcomes", "spool", "words", "reply"),
    [
        ([DELIVERED, DELIVERED], None, ["delivered", "delivered"], f"250 2.0.0 {ID} delivered: Ok"),
        ([DELIVERED, DEFERRED, REFUSED], None, ["delivered", "spooled", "rejected"],
         f"250 2.0.0 {ID} delivered 1, spooled 1, rejected 1"),
        ([DELIVERED, DELIVERED, REFUSED], None, ["delivered", "delivered", "rejected"],
         f"250 2.0.0 {ID} delivered 2, rejected 1"),
        ([REFUSED, REFUSED], None, ["rejected", "rejected"], f"550 5.1.1 {ID} {UNKNOWN.text}"),
        ([DELIVERED, DEFERRED], answer.trouble(ID), ["delivered", "deferred"], str(answer.trouble(ID))),
        ([DELIVERED, REFUSED], answer.no_space(ID), ["delivered", "rejected"], str(answer.no_space(ID))),
        ([REFUSED, DEFERRED], answer.trouble(ID), ["rejected", "deferred"], str(answer.trouble(ID))),
    ],
)  # fmt: skip
def test_one_reply_for_all_on_the_smtp_door(
    outcomes: list[Outcome], spool: Reply | None, words: list[str], reply: str
) -> None:
    _, said = answered("smtp", {str(n): found for n, found in enumerate(outcomes)}, spool)
    assert [word for word, _ in said.values()] == words
    assert {str(text) for _, text in said.values()} == {reply}


@pytest.mark.parametrize(("door", "first"), [("lmtp", 250), ("smtp", 451)])
def test_what_nobody_parked_is_trouble(door: Door, first: int) -> None:
    """If the two halves of this module ever disagree, the answer is a 4xx."""
    said = answer.replies(door, ID, {"a@lists.test": DELIVERED, "b@lists.test": DEFERRED}, {}, None)
    assert said["a@lists.test"][1].code == first
    assert said["b@lists.test"] == (answer.DEFERRED, answer.trouble(ID))


def test_held() -> None:
    assert str(answer.held(ID)) == f"250 2.0.0 {ID} held"


def test_a_temporary_reply_of_a_rule_keeps_its_class() -> None:
    assert answer.refused(ID, Reply(452, "", "not now")) == Reply(452, "4.0.0", f"{ID} not now")


NO_TIME = Reply(451, "4.4.2", "no answer in time (at MAIL)")
TOLD = (
    (Outcome(Result.DEFERRED, NO_TIME), "spooled: 451 4.4.2 no answer in time (at MAIL)", None),
    (
        Outcome(Result.DEFERRED, NO_TIME),
        f"deferred: {answer.no_space(ID)}; Mailman: 451 4.4.2 no answer in time (at MAIL)",
        answer.no_space(ID),
    ),
    (
        Outcome(Result.UNCERTAIN, NO_TIME),
        f"deferred: {answer.trouble(ID)}; Mailman: uncertain, 451 4.4.2 no answer in time (at MAIL)",
        answer.trouble(ID),
    ),
    (DELIVERED, f"delivered: {answer.delivered(ID, OK)}", None),
)


@pytest.mark.parametrize(("outcome", "said", "unparked"), TOLD)
def test_the_log_says_what_exim_was_told_and_mailmans_last_word(
    outcome: Outcome, said: str, unparked: Reply | None
) -> None:
    """A 452 for a full spool is nowhere else to be found: Mailman's own trouble is not what Exim was told."""
    _, replies = answered("lmtp", {"a@lists.test": outcome}, unparked)
    word, reply = replies["a@lists.test"]
    assert answer.told(word, reply, outcome) == said
