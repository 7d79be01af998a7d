"""Every statement and every commit fails once: all of an operation is there or nothing, and its caller was told which.

The same holds for whoever opens the file after the process died right there: a copy of the file and its log is
opened each time.
"""

import hashlib
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from mailgate.edge.spool import Store, control, verbs
from mailgate.edge.spool.listing import Selection
from mailgate.ports import Parked, Settlement, SpoolError
from tests.spool.kit import NOW, a_message, put

Dump = list[tuple[Any, ...]]


class Fault:
    """Makes the n-th step of the writer's engine fail: of those that are not the history's, or of those that are."""

    def __init__(self, store: Store, *, after: bool, history: bool = False) -> None:
        self.left = 0
        self._history = history
        name = "after_cursor_execute" if after else "before_cursor_execute"
        event.listen(store.database.writing, name, self._step)
        for name in ("begin", "commit"):
            event.listen(store.database.writing, name, self._step)

    def arm(self, number: int) -> None:
        """The n-th step from now on fails."""
        self.left = number

    @property
    def fired(self) -> bool:
        """True once it has failed."""
        return self.left <= 0

    def _step(self, *what: Any) -> None:
        # A failure of the history in a verb is said, but is no reason not to act: see the last test.
        if ("history" in str(what[2:4])) is not self._history:
            return
        self.left -= 1
        if self.left == 0:
            raise sqlite3.OperationalError("disk I/O error")


def dump(directory: Path) -> Dump:
    """All that is in the spool, but for the mark that is only there to be written."""
    connection = sqlite3.connect(directory / "spool.db")
    try:
        rows: Dump = []
        for table in ("meta", "messages", "bodies", "recipients", "history", "history_events"):
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2"):
                rows.append((table, *(hashlib.sha256(v).hexdigest() if isinstance(v, bytes) else v for v in row)))
        return [row for row in rows if row[:2] != ("meta", "touched")]
    finally:
        connection.close()


class Copier:
    """Copies files in a process of its own: closing a handle of the database in ours would drop SQLite's locks on it.
    It stays, because it is asked a hundred times.
    """

    def __init__(self) -> None:
        self._shell = subprocess.Popen(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def dump_after_death(self, directory: Path, scratch: Path) -> Dump:
        """What is there for the next process if this one dies now."""
        assert self._shell.stdin
        assert self._shell.stdout
        self._shell.stdin.write(f"cp '{directory}/spool.db' '{directory}/spool.db-wal' '{scratch}' && echo copied\n")
        self._shell.stdin.flush()
        assert self._shell.stdout.readline() == "copied\n"
        found = dump(scratch)
        for file in scratch.iterdir():
            file.unlink()
        return found

    def close(self) -> None:
        """End it."""
        self._shell.communicate(timeout=60)


@pytest.fixture
def copier() -> Iterator[Copier]:
    """See above."""
    one = Copier()
    yield one
    one.close()


def mixed(letter: str) -> list[Parked]:
    """Four recipients in all the states in which something can begin."""
    kinds = ("pending", "pending", "held", "failed")
    return [Parked(f"{letter}{n}@lists.test", kind, "451") for n, kind in enumerate(kinds)]


async def in_verb(store: Store, verb: Callable[..., Any]) -> None:
    """Run an operator's verb on everything."""
    assert list(verb(store.database, Selection(), NOW + 50))


async def in_control(store: Store) -> None:
    """Pause."""
    store.database.write(lambda connection: control.pause(connection, "why", None, NOW))


OPERATIONS: list[tuple[str, Callable[[Store], Awaitable[Any]]]] = [
    ("store a small one", lambda store: put(store, "small", *mixed("s"))),
    ("store a large one", lambda store: put(store, "large", *mixed("l"), message=a_message(2_500_000))),
    ("claim", lambda store: store.claim(NOW, 10)),
    (
        "settle some",
        lambda store: store.settle(
            "small", [Settlement(0, "delivered", "250"), Settlement(1, "pending", "451", next_attempt=NOW)], NOW
        ),
    ),
    ("settle others", lambda store: store.settle("large", [Settlement(0, "failed", "550")], NOW)),
    ("hold", lambda store: in_verb(store, verbs.hold)),
    ("release", lambda store: in_verb(store, verbs.release)),
    ("claim again", lambda store: store.claim(NOW + 99, 10)),
    (
        "settle the last",
        lambda store: store.settle("small", [Settlement(n, "delivered", "250") for n in range(1, 4)], NOW),
    ),
    (
        "give back",
        lambda store: store.settle(
            "large", [Settlement(n, "pending", "", next_attempt=NOW, tried=False) for n in range(4)], NOW
        ),
    ),
    ("pause", in_control),
    ("drop", lambda store: in_verb(store, verbs.drop)),
]


@pytest.mark.parametrize("after", [False, True], ids=["before a statement", "after a statement"])
async def test_all_or_nothing(
    store: Store,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    copier: Copier,
    caplog: pytest.LogCaptureFixture,
    after: bool,
) -> None:
    scratch = tmp_path_factory.mktemp("dead")
    fault = Fault(store, after=after)
    steps = 0
    for name, operation in OPERATIONS:
        before = dump(tmp_path)
        for number in range(1, 40):
            fault.arm(number)
            try:
                await operation(store)
            except SpoolError:
                assert dump(tmp_path) == before, (name, number)
                assert copier.dump_after_death(tmp_path, scratch) == before, (name, number)
                assert fault.fired, name
                steps += 1
            else:
                break
        # An operator's verb is not kept from its work by the history; that this lacks something is in the log.
        told = "the history lacks something" in caplog.text and name in {"hold", "release", "drop"}
        caplog.clear()
        assert told or not fault.fired, f"{name}: step {number} failed and nobody was told"
        done = dump(tmp_path)
        assert done != before, name
        assert copier.dump_after_death(tmp_path, scratch) == done, name
    assert steps > 40


@pytest.mark.parametrize("after", [False, True], ids=["before a statement", "after a statement"])
async def test_a_history_that_fails_keeps_no_operator_from_acting(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, after: bool
) -> None:
    await put(store, "one", *mixed("o"))
    fault = Fault(store, after=after, history=True)
    failed = 0
    for number in range(1, 40):
        verb, state = (verbs.hold, "held") if number % 2 else (verbs.release, "pending")
        caplog.clear()
        before = [row for row in dump(tmp_path) if row[0].startswith("history")]
        fault.arm(number)
        await in_verb(store, verb)
        rows = dump(tmp_path)
        assert {row[5] for row in rows if row[0] == "recipients"} == {state}
        if not fault.fired:
            break
        failed += 1
        assert f"operator.{verb.__name__}: the history lacks something" in caplog.text
        assert [row for row in rows if row[0].startswith("history")] == before
    assert (failed > 3, fault.fired) == (True, False)
