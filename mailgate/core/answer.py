"""From outcomes to replies: what Exim is told, and what has to be on disk before it may be told so.

Promise 1: a 250 for a recipient means that Mailman took the message for it, or that it is synced to disk. On the SMTP
door one reply speaks for all recipients, so what Mailman refused for some of them is kept as `failed`, on disk, when
the others were taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mailgate.core.envelope import Door
from mailgate.core.outcome import Outcome, Result
from mailgate.core.reply import Reply

_ENHANCED = {550: "5.1.1", 551: "5.1.6", 553: "5.1.3", 552: "5.3.4", 554: "5.0.0", 500: "5.6.0", 501: "5.6.0"}

DELIVERED, SPOOLED, HELD, DEFERRED, REJECTED = "delivered", "spooled", "held", "deferred", "rejected"
DISCARDED = "discarded"
CALM = frozenset({DELIVERED, HELD})  # nobody has to look at it
_BADNESS = {word: n for n, word in enumerate((DELIVERED, SPOOLED, HELD, DISCARDED, REJECTED, DEFERRED))}


def delivered(gate_id: str, reply: Reply) -> Reply:
    return Reply(250, "2.0.0", f"{gate_id} delivered: {reply.text or reply.code}")


def spooled(gate_id: str) -> Reply:
    return Reply(250, "2.0.0", f"{gate_id} spooled")


def held(gate_id: str) -> Reply:
    return Reply(250, "2.0.0", f"{gate_id} held")


def discarded(gate_id: str) -> Reply:
    """The one 250 for what is neither delivered nor on disk: the operator said so in the configuration."""
    return Reply(250, "2.0.0", f"{gate_id} discarded")


def refused(gate_id: str, reply: Reply) -> Reply:
    """The next hop's own refusal, or a rule's, with the gate id in it."""
    return Reply(
        reply.code,
        reply.enhanced or _ENHANCED.get(reply.code, f"{reply.code // 100}.0.0"),
        f"{gate_id} {reply.text}".strip(),
    )


def trouble(gate_id: str) -> Reply:
    """Our own fault, without details: they are in the log under this id. Promise 2."""
    return Reply(451, "4.3.0", f"{gate_id} could not be taken care of now, try again")


def no_space(gate_id: str) -> Reply:
    return Reply(452, "4.3.1", f"{gate_id} no space to keep the message, try again later")


def to_park(door: Door, outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """The recipients that must be on disk before the replies are true, and the state they begin in."""
    if all(o.result is Result.DELIVERED for o in outcomes.values()):
        return {}
    park = {r: "pending" for r, o in outcomes.items() if o.result not in {Result.DELIVERED, Result.REFUSED}}
    refusals = {r for r, o in outcomes.items() if o.result is Result.REFUSED}
    if door == "smtp" and refusals and len(refusals) < len(outcomes):
        park |= dict.fromkeys(refusals, "failed")
    return park


def replies(
    door: Door, gate_id: str, outcomes: Mapping[str, Outcome], parked: Mapping[str, str], unparked: Reply | None
) -> dict[str, tuple[str, Reply]]:
    """For each recipient its word (for the metric) and its reply.

    `parked` are those of `to_park`; `unparked` is the reply if the spool did not take them, None if it did. On the
    SMTP door all replies are the same one.
    """
    said = {r: _one(gate_id, o, parked.get(r), unparked) for r, o in outcomes.items()}
    if door == "lmtp":
        return said
    whole = _whole(gate_id, said, unparked if parked else None)
    return {r: (word, whole) for r, (word, _) in said.items()}


def _one(gate_id: str, outcome: Outcome, parked: str | None, unparked: Reply | None) -> tuple[str, Reply]:
    if outcome.result is Result.DELIVERED:
        return DELIVERED, delivered(gate_id, outcome.reply)
    if outcome.result is Result.REFUSED:
        return REJECTED, refused(gate_id, outcome.reply)
    if parked and unparked is None:
        return SPOOLED, spooled(gate_id)
    return DEFERRED, unparked or trouble(gate_id)


def _whole(gate_id: str, said: Mapping[str, tuple[str, Reply]], unparked: Reply | None) -> Reply:
    words = [word for word, _ in said.values()]
    if unparked is not None or DEFERRED in words:
        return unparked or trouble(gate_id)  # some may have it already: the repeat is Exim's to send, the log says so
    first = next(iter(said.values()))[1]
    if len(set(words)) == 1:
        return first
    counts = ", ".join(f"{word} {words.count(word)}" for word in (DELIVERED, SPOOLED, REJECTED) if word in words)
    return Reply(250, "2.0.0", f"{gate_id} {counts}")


def worst(words: Iterable[str]) -> str:
    """The word of the worst that befell a recipient."""
    return max(words, key=_BADNESS.__getitem__)


def told(word: str, reply: Reply, outcome: Outcome | None) -> str:
    """What the log says of a recipient: what Exim was told, and the next hop's last word where it is another.

    The code that Exim got stands behind the word, so that scripts find it there; of `spooled` it is always a 250.
    """
    if outcome is None or outcome.result in {Result.DELIVERED, Result.REFUSED}:
        return f"{word}: {reply}"
    mark = "uncertain, " if outcome.result is Result.UNCERTAIN else ""
    exims = "" if word == SPOOLED else f"{reply}; Mailman: "
    return f"{word}: {exims}{mark}{outcome.reply}"
