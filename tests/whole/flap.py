"""A Mailman that is in another mood every moment: each mood is something that a real one has been seen to do."""

import random
from collections.abc import Callable

from tests.stack.fake_mailman import FakeMailman
from tests.stack.fake_script import Act, Stage, Then, drop, hang, say

_EXCEPTION = "500 Error: (OperationalError) database is locked"
_NO_DISK = "550 Requested action not taken: mailbox unavailable"

Mood = Callable[[FakeMailman], None]


def _on(stage: Stage, act: Act, times: int | None = None) -> Mood:
    def mood(fake: FakeMailman) -> None:
        fake.on(stage, act, times=times)

    return mood


def _refuses(fake: FakeMailman) -> None:
    fake.refuse()


MOODS: dict[str, Mood] = {
    "refuses connections": _refuses,
    "hangs before it greets": _on(Stage.GREETING, hang()),
    "hangs at the final dot and has it": _on(Stage.DOT, Act(lines=0, then=Then.HANG, took=True)),
    "hangs at the final dot and has it not": _on(Stage.DOT, Act(lines=0, then=Then.HANG, took=False)),
    "drops after the final dot and has it": _on(Stage.DOT, Act(lines=0, then=Then.CLOSE, took=True), 3),
    "drops after the final dot and has it not": _on(Stage.DOT, Act(lines=0, then=Then.RESET, took=False), 3),
    "drops among its replies": _on(Stage.DOT, Act(lines=1, then=Then.CLOSE, took=True), 3),
    "drops within a reply": _on(Stage.DOT, Act(octets=4, then=Then.RESET, took=True), 3),
    "drops at MAIL": _on(Stage.MAIL, drop(), 5),
    "drops at RCPT": _on(Stage.RCPT, drop(), 5),
    "is slow": _on(Stage.DOT, Act(pause=0.02)),
    "has no database at RCPT": _on(Stage.RCPT, say("451 Requested action aborted: error in processing")),
    "has no disk": _on(Stage.DOT, say(*[_NO_DISK] * 5)),
    "raises an exception and has it": _on(Stage.DOT, Act(instead=(_EXCEPTION,), took=True), 3),
    "raises an exception and has it not": _on(Stage.DOT, say(_EXCEPTION), 3),
    "says one reply too many": _on(Stage.DOT, Act(extra=("250 Ok",)), 3),
}


def change(fake: FakeMailman, chance: random.Random) -> str:
    """Into another mood, every other time a good one; its name."""
    recover(fake)
    if chance.random() < 0.5:
        return "well"
    name = chance.choice(list(MOODS))
    MOODS[name](fake)
    return name


def recover(fake: FakeMailman) -> None:
    """Be well again."""
    fake.behave()
    fake.accept()
