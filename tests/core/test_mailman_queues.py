"""What two looks at a queue tell of it, and when Mailman stands still."""

import pytest

from mailgate.core.mailman_queues import Look, Queue, seen, stalled, undecided

HOUR = 3600.0
FIRST = Look(at=100.0, files=3, oldest=90.0, earlier=0, version=1)


def later(files: int, earlier: int, oldest: float = 90.0, *, version: int = 2, coming: bool = False) -> Look:
    """A look ten seconds after the first."""
    return Look(110.0, files, oldest if files else 0.0, earlier, version, coming)


def test_the_first_look_knows_of_nothing_that_left() -> None:
    queue = seen(None, FIRST)
    assert (queue.left, queue.moved, queue.looks, queue.age) == (0, 0.0, 1, 10.0)


@pytest.mark.parametrize(
    ("look", "left", "moved"),
    [
        (later(3, 3, version=1), 0, False),  # nothing happened
        (later(5, 3), 0, False),  # two came
        (later(2, 2), 1, True),  # one left
        (later(4, 1), 2, True),  # two left, three came
        (later(0, 0), 3, True),  # all left
        (later(3, 3), 0, True),  # something came and went
        (later(4, 3), 0, False),  # something came, and is there
        (later(4, 4), 0, False),  # something came whose name is older than the look before
        (later(3, 3, coming=True), 0, False),  # something is just being written
    ],
)
def test_what_two_looks_tell(look: Look, left: int, moved: bool) -> None:
    queue = seen(seen(None, FIRST), look)
    assert (queue.left, queue.moved == 110.0, queue.looks) == (left, moved, 2)


def test_what_was_written_at_the_look_before_has_not_passed_when_it_is_there() -> None:
    before = seen(None, Look(100.0, 3, 90.0, 0, 1, coming=True))
    assert seen(before, later(3, 3)).moved == 0


def test_an_empty_queue_has_no_age() -> None:
    assert seen(seen(None, FIRST), later(0, 0)).age == 0


def queue(age: float, moved_ago: float, looks: int = 5) -> Queue:
    """A queue of two files."""
    now = 10 * HOUR
    return Queue(Look(now, 2, now - age, 2, 1), 0, now - moved_ago, looks)


@pytest.mark.parametrize(
    ("name", "found", "words"),
    [
        ("in", queue(2 * HOUR, 2 * HOUR), "nothing leaves the queue in: 2 files, the oldest since 2h"),
        ("out", queue(2 * HOUR, 10 * HOUR), "nothing leaves the queue out: 2 files, the oldest since 2h"),
        ("pipeline", queue(2 * HOUR, 2 * HOUR), "nothing leaves the queue pipeline: 2 files, the oldest since 2h"),
        ("in", queue(HOUR / 2, 2 * HOUR), ""),  # not too old
        ("in", queue(2 * HOUR, HOUR / 2), ""),  # slow, or a single file that can't be processed
        ("in", queue(2 * HOUR, 10 * HOUR, looks=3), ""),  # too early to tell
        ("in", queue(2 * HOUR, 10 * HOUR, looks=4), "nothing leaves the queue in: 2 files, the oldest since 2h"),
        ("shunt", queue(2 * HOUR, 2 * HOUR), ""),  # what lies there lies there
        ("retry", queue(2 * HOUR, 2 * HOUR), ""),
    ],
)
def test_when_mailman_stands_still(name: str, found: Queue, words: str) -> None:
    assert stalled({name: found}, HOUR) == words


def test_one_file_is_one_file() -> None:
    alone = Queue(Look(2 * HOUR, 1, 0.5 * HOUR, 1, 1), 0, 0.0, 4)
    assert stalled({"in": alone}, HOUR) == "nothing leaves the queue in: 1 file, the oldest since 1h 30m"


@pytest.mark.parametrize(
    ("name", "found", "early"),
    [
        ("in", queue(2 * HOUR, 10 * HOUR, looks=1), True),
        ("in", queue(2 * HOUR, 10 * HOUR, looks=3), True),
        ("in", queue(2 * HOUR, 10 * HOUR, looks=4), False),  # it stands still
        ("in", queue(2 * HOUR, 0, looks=2), False),  # it drains
        ("in", queue(HOUR / 2, 10 * HOUR, looks=1), False),  # nothing in it is old
        ("shunt", queue(2 * HOUR, 10 * HOUR, looks=1), False),
    ],
)
def test_when_it_is_too_early_to_tell(name: str, found: Queue, early: bool) -> None:
    assert undecided({name: found}, HOUR) == early


def test_after_a_start_a_long_queue_that_drains_is_no_stall_and_one_that_does_not_is() -> None:
    """Looks at files that are older than the start."""
    drains = stands = None
    for number in range(4):
        assert not stalled({"in": drains, "out": stands} if drains and stands else {}, HOUR)
        at = 10 * HOUR + 5 * number
        left = 50 - (number > 2)
        drains = seen(drains, Look(at, left, HOUR, left if number else 0, number))
        stands = seen(stands, Look(at, 50, HOUR, 50 if number else 0, 1))
    assert drains
    assert stands
    assert not stalled({"in": drains}, HOUR)
    assert stalled({"out": stands}, HOUR).startswith("nothing leaves the queue out: 50 files, ")
