"""The words of the ledger: which one an outcome has, and which one holds of two."""

from __future__ import annotations

import pytest

from mailgate.core import answer
from mailgate.core.fate import PASSED, Fate, fate, weaker
from mailgate.core.outcome import Outcome, Result
from mailgate.core.reply import Reply


@pytest.mark.parametrize(
    ("word", "result", "expected"),
    [
        (answer.DELIVERED, Result.DELIVERED, Fate.DELIVERED),
        (answer.DEFERRED, Result.DELIVERED, Fate.DELIVERED),  # one reply for all, and not all could be kept
        (answer.SPOOLED, Result.UNCERTAIN, Fate.UNCERTAIN),
        (answer.DEFERRED, Result.UNCERTAIN, Fate.UNCERTAIN),
        (answer.SPOOLED, Result.DEFERRED, Fate.SPOOLED),
        (answer.SPOOLED, Result.UNREACHED, Fate.SPOOLED),
        (answer.HELD, None, Fate.SPOOLED),
        (answer.DEFERRED, Result.DEFERRED, Fate.REFUSED),
        (answer.REJECTED, Result.REFUSED, Fate.REFUSED),
        (answer.DEFERRED, None, Fate.REFUSED),
    ],
)
def test_what_an_outcome_means(word: str, result: Result | None, expected: Fate) -> None:
    outcome = None if result is None else Outcome(result, Reply(250, "", "said"))
    assert fate(word, outcome) is expected


@pytest.mark.parametrize(
    ("replaced", "holds"),
    [
        (Fate.BEGUN, Fate.DELIVERED),
        (Fate.BEGUN, Fate.REFUSED),
        (Fate.BEGUN, Fate.SPOOLED),
        (Fate.REFUSED, Fate.SPOOLED),  # by one door what was refused for some is kept for the operator
        (Fate.SPOOLED, Fate.SCORED),
        (Fate.SPOOLED, Fate.DROPPED),
        (Fate.SCORED, Fate.UNCERTAIN),
        (Fate.UNCERTAIN, Fate.DELIVERED),
    ],
)
def test_which_word_holds(replaced: Fate, holds: Fate) -> None:
    assert replaced in weaker(holds)
    assert holds not in weaker(replaced)


def test_that_it_passed_is_never_taken_back() -> None:
    passed = {Fate.UNCERTAIN, Fate.DELIVERED}
    assert [word for word in Fate if passed & set(weaker(word))] == [Fate.DELIVERED]
    assert passed < set(PASSED)
