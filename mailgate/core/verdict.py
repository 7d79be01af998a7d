"""Verdicts and their algebra: the strongest wins, all reasons are kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from mailgate.core.reply import Reply


class Action(IntEnum):
    """In the order of their strength."""

    ACCEPT = 0
    DEFER = 1
    HOLD = 2
    REJECT = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule wants done, why (a hyphenated constant: log, metric label), and the reply if it is carried out."""

    action: Action
    reason: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class Decision:
    """The strongest of all verdicts; `reasons` of all of them, the strongest first."""

    action: Action
    reasons: tuple[str, ...]
    reply: Reply | None


_ACCEPT = Decision(Action.ACCEPT, (), None)


def strongest(verdicts: Iterable[Verdict]) -> Decision:
    """The decision that follows from what the rules said; accept if none said anything."""
    ranked = sorted(verdicts, key=lambda verdict: -verdict.action)
    if not ranked:
        return _ACCEPT
    return Decision(ranked[0].action, tuple(verdict.reason for verdict in ranked), ranked[0].reply)
