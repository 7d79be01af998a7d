"""What became of a post that has no score because the scorer failed, for one recipient: the words of the ledger."""

from __future__ import annotations

from enum import StrEnum

from mailgate.core import answer
from mailgate.core.outcome import Outcome, Result


class Fate(StrEnum):
    """`begun`: it was about to be handed to the next hop, and nothing is known since. `delivered`: the next hop took it
    unscored; `uncertain`: it may have. `spooled`: it is in the spool, whose state says more. `scored`: it came to a
    score before it went on. `dropped`: it was given up. `refused`: it was not accepted, whoever sent it has it still.
    """

    BEGUN = "begun"
    DELIVERED = "delivered"
    UNCERTAIN = "uncertain"
    SPOOLED = "spooled"
    SCORED = "scored"
    DROPPED = "dropped"
    REFUSED = "refused"


PASSED = (Fate.BEGUN, Fate.UNCERTAIN, Fate.DELIVERED)  # it went on unscored, or may have

# A word does not replace one that stands behind it. What is in the spool is never refused, whatever the reply was.
_STRENGTH = (
    Fate.BEGUN,
    Fate.REFUSED,
    Fate.SPOOLED,
    Fate.DROPPED,
    Fate.SCORED,
    Fate.UNCERTAIN,
    Fate.DELIVERED,
)


def weaker(word: Fate) -> tuple[Fate, ...]:
    """The words that this one replaces: those that tell less, and most of all not that it passed."""
    return _STRENGTH[: _STRENGTH.index(word)]


def fate(word: str, outcome: Outcome | None) -> Fate:
    """The fate of a recipient that is answered with this word of `core.answer`, after this outcome at the next hop."""
    if outcome is not None and outcome.result is Result.DELIVERED:
        return Fate.DELIVERED
    if outcome is not None and outcome.result is Result.UNCERTAIN:
        return Fate.UNCERTAIN
    return Fate.SPOOLED if word in {answer.SPOOLED, answer.HELD} else Fate.REFUSED
