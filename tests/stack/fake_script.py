"""What a fake Mailman is told to do otherwise than usual: data, read by `fake_mailman.py`.

fake.on(Stage.DOT, say("501 Message has defects"))            one reply for all recipients
fake.on(Stage.RCPT, say("450 busy"), times=2)                 twice, then as usual
fake.on(Stage.DOT, say("550 no"), only="b@lists.test")        for one recipient
fake.on(Stage.DOT, Act(lines=2, then=Then.CLOSE))             two of the usual replies, then gone
fake.on(Stage.GREETING, hang())                               connected, and silence
"""

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """Where in the dialogue: at the connection, at a command, or after the final dot."""

    GREETING = "greeting"
    LHLO = "LHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "dot"
    RSET = "RSET"
    NOOP = "NOOP"
    QUIT = "QUIT"


class Then(StrEnum):
    """What follows the reply."""

    GO_ON = "go on"
    CLOSE = "close"
    RESET = "reset"  # close so that the client sees a reset (TCP RST)
    HANG = "hang"  # say nothing more, keep the connection open


@dataclass(frozen=True)
class Act:
    """How to answer. What is not given is as usual."""

    instead: tuple[str, ...] | None = None  # reply lines in place of the usual ones
    raw: bytes | None = None  # these octets in place of a reply
    lines: int | None = None  # only so many of the lines
    octets: int | None = None  # only so many octets of what would be said
    extra: tuple[str, ...] = ()  # more lines after them
    pause: float = 0.0  # seconds before each line
    then: Then = Then.GO_ON
    took: bool | None = None  # after the dot: take the message for all (or none), whatever is said


def say(*lines: str) -> Act:
    """These lines in place of the usual reply: one for each recipient after the dot, or as few or many as are given."""
    return Act(instead=lines)


def hang() -> Act:
    """No reply, and none any more."""
    return Act(lines=0, then=Then.HANG)


def drop() -> Act:
    """No reply; the connection is closed. After the dot the message is taken all the same, unless `took` says no."""
    return Act(lines=0, then=Then.CLOSE)


@dataclass
class Rule:
    """An Act for a stage, or for one recipient at that stage: so many times, or always (None)."""

    stage: Stage
    only: str
    act: Act
    times: int | None


class Script:
    """The rules, in the order in which they were given."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def add(self, rule: Rule) -> None:
        """One more."""
        self._rules.append(rule)

    def clear(self) -> None:
        """None any more."""
        self._rules.clear()

    def act(self, stage: Stage, recipient: str = "") -> Act | None:
        """What the first rule for that says, counted; None: as usual."""
        for rule in self._rules:
            if (rule.stage, rule.only) == (stage, recipient) and rule.times != 0:
                if rule.times is not None:
                    rule.times -= 1
                return rule.act
        return None
