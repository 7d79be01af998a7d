"""Mailman's queues as they look from outside: what is in them, what leaves them, and whether they stand still.

A look knows how many files there are and since when the oldest; what has left is seen by comparing two looks. Mailman
writes the time at which a file entered a queue into its name, so that nothing has to be remembered of single files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mailgate.core.units import said_seconds

# Those of Mailman 3.3 that hold mail; shunt and bad are where mail lies that it could not process.
QUEUES = ("in", "pipeline", "out", "bounces", "virgin", "archive", "command", "digest", "retry", "shunt", "bad")
# What each post goes through within moments; the runners of the others sleep for minutes, or have none.
FLOWING = ("in", "pipeline", "out")
# Those that Mailman 3.3 has by itself; `lmtp` takes the mail, `rest` and `task` have no queue.
RUNNERS = (*QUEUES[:9], "lmtp", "nntp", "rest", "task")
_LOOKS = 4  # after a start, until a queue in which nothing was seen to move is taken to stand still


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a queue at the time `at`. `earlier`: files that had entered by the look before; `oldest`: when
    the oldest entered, 0 if there is none; `version`: differs when something came or went; `coming`: files that are
    still being written, or something that came or went during the look. Times are seconds since the epoch.
    """

    at: float
    files: int
    oldest: float
    earlier: int
    version: int
    coming: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue as of its last look. `left`: files that went at the last look; `moved`: when one was last seen to have
    gone, 0 if none was; `looks`: how many there were.
    """

    look: Look
    left: int = 0
    moved: float = 0.0
    looks: int = 1

    @property
    def age(self) -> float:
        """Seconds that the oldest file has been there; 0 if there is none."""
        return max(self.look.at - self.look.oldest, 0.0) if self.look.oldest else 0.0


def seen(before: Queue | None, look: Look) -> Queue:
    """The queue after one more look."""
    if before is None:
        return Queue(look)
    left = max(before.look.files - look.earlier, 0)
    # Something came and went between the looks: the directory has changed, and nothing new is in it.
    passed = (
        look.version != before.look.version
        and look.files == look.earlier
        and look.files <= before.look.files
        and not look.coming
        and not before.look.coming
    )
    return Queue(look, left, look.at if left or passed else before.moved, before.looks + 1)


def stalled(queues: Mapping[str, Queue], patience: float) -> str:
    """Why Mailman is taken to accept mail and not to process it; "" if it is not.

    A queue that each post passes through has a file that is older than `patience` seconds, and for as long nothing was
    seen to leave it: one that is only slow, or a single file that can't be processed, is no stall while others leave.
    After a start, a few looks have to do for what was not seen before.
    """
    for name, queue in _old(queues, patience):
        if queue.looks >= _LOOKS and queue.look.at - queue.moved > patience:
            files = f"{queue.look.files} file{'s' * (queue.look.files != 1)}"
            return f"nothing leaves the queue {name}: {files}, the oldest since {said_seconds(queue.age)}"
    return ""


def undecided(queues: Mapping[str, Queue], patience: float) -> bool:
    """Is it too early to tell whether it stands still?"""
    return any(queue.looks < _LOOKS and not queue.moved for _, queue in _old(queues, patience))


def _old(queues: Mapping[str, Queue], patience: float) -> list[tuple[str, Queue]]:
    """The queues that each post passes through in which a file is older than `patience` seconds."""
    return [(name, queues[name]) for name in FLOWING if name in queues and queues[name].age > patience]
