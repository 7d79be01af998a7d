"""What became of one recipient at the next hop: a closed set of words.

The relay and the replay act on the word only; the reply is kept for people (log, `queue show`, the answer to Exim).
Trouble counts as temporary unless it is known to speak of the recipient or the message (`core.triage`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from enum import StrEnum

from mailgate.core.reply import Reply
from mailgate.core.value import value


class Result(StrEnum):
    """`delivered`: the next hop took it. `refused`: a permanent reply about this recipient or message.
    `deferred`: not taken now, and certainly not delivered. `uncertain`: the connection or the sense of the replies
    was lost after the final dot; the next hop may have it. `unreached`: the next hop was not spoken to (down,
    breaker open, no connection free): says nothing about the message.
    """

    DELIVERED = "delivered"
    REFUSED = "refused"
    DEFERRED = "deferred"
    UNCERTAIN = "uncertain"
    UNREACHED = "unreached"


@value
class Outcome:
    """The result for one recipient, the next hop's reply (or our words for its silence), and whether the next
    attempt has to be made alone, because the replies for several recipients could not be told apart. `dialogue` is
    what was said and answered in a transaction in which something failed, a line each.
    """

    result: Result
    reply: Reply
    alone: bool = False
    dialogue: tuple[str, ...] = field(default=(), compare=False)


def dialogue(outcomes: Iterable[Outcome]) -> list[str]:
    """The dialogues of all the transactions that these came of, one after the other."""
    return [line for talk in dict.fromkeys(one.dialogue for one in outcomes) for line in talk]
