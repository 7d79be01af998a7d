"""Verdicts and their algebra: the strongest wins, all reasons are kept."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from mailgate.core.reply import Reply
from mailgate.core.value import value


class Action(IntEnum):
    """In the order of their strength. DISCARD is never asked for but where the operator wrote so."""

    ACCEPT = 0
    DEFER = 1
    HOLD = 2
    REJECT = 3
    DISCARD = 4

    def __init__(self, _strength: int) -> None:
        self.word = self.name.lower()
        """In logs and metrics."""


@value
class Verdict:
    """What a rule wants done, why (a hyphenated constant: log, metric label), and the reply, if that takes one.

    `unwanted`: the message could be taken, but the operator does not want it. Once Exim has accepted it, it must not
    bounce for that.
    """

    action: Action
    reason: str
    reply: Reply | None = None
    unwanted: bool = False


@value
class Decision:
    """The strongest of all verdicts; `reasons` of all of them, the strongest first."""

    action: Action
    reasons: tuple[str, ...]
    reply: Reply | None
    unwanted: bool = False


_ACCEPT = Decision(Action.ACCEPT, (), None)


def strongest(verdicts: Sequence[Verdict]) -> Decision:
    """The decision that follows from what the rules said; accept if none said anything."""
    if not verdicts:
        return _ACCEPT
    ranked = sorted(verdicts, key=lambda verdict: (-verdict.action, verdict.unwanted))
    first = ranked[0]
    return Decision(first.action, tuple(verdict.reason for verdict in ranked), first.reply, first.unwanted)
