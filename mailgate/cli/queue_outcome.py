"""What `queue replay` waits for, and what became of it: the same words with the daemon up or down.

A recipient is done with when it has been tried once, however that ended, or when it is no longer to be tried at all.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from mailgate.cli.output import Bar, counted, line, objects
from mailgate.cli.queue_options import Manner
from mailgate.config import Config
from mailgate.core.envelope import printable
from mailgate.core.units import said_seconds
from mailgate.edge.spool import Database
from mailgate.edge.spool.listing import Listed, Person, Selection, listed
from mailgate.edge.spool.verbs import Change

_LOOKED_AT = 500  # messages in one look; replay goes oldest first, as they do
_WORDS = ("delivered", "dropped", "held", "deferred", "uncertain", "failed", "corrupt")


@dataclass(slots=True)
class Outcomes:
    """What is awaited: by message id, by recipient number, the attempts made before. And what came of the others."""

    as_json: bool
    every: bool  # a line also for what was delivered
    awaited: dict[str, dict[int, int]] = field(default_factory=dict)
    addresses: dict[tuple[str, int], str] = field(default_factory=dict)
    became: Counter[str] = field(default_factory=Counter)
    bar: Bar | None = None

    def passing(self, messages: Iterable[Listed]) -> Iterator[Listed]:
        """The same messages; their recipients are awaited."""
        for one in messages:
            self.awaited[one.id] = {person.number: person.attempts for person in one.recipients}
            self.addresses.update(((one.id, person.number), person.address) for person in one.recipients)
            yield one

    @property
    def left(self) -> int:
        """Recipients that have not been tried yet."""
        return sum(map(len, self.awaited.values()))

    def tell(self, gate_id: str, number: int, word: str, reply: str) -> None:
        """One recipient is done with. To tell it again changes nothing."""
        numbers = self.awaited.get(gate_id, {})
        if numbers.pop(number, None) is None:
            return
        if not numbers:
            del self.awaited[gate_id]
        address = self.addresses.pop((gate_id, number))
        self.became[word] += 1
        if self.as_json:
            row = {"id": gate_id, "number": number, "address": address, "outcome": word, "reply": reply}
            objects([row], vital=True)
        elif self.every or word != "delivered":
            line(f"{gate_id}  {word:<9}  {printable(address)}  {printable(reply)}".rstrip(), vital=True)
        if self.bar:
            self.bar.step(1, str(self))

    def look(self, database: Database) -> bool:
        """Tell of the oldest awaited ones what the spool knows by now. False if that is nothing new."""
        before = self.left
        ids = tuple(itertools.islice(self.awaited, _LOOKED_AT))
        for one in listed(database, Selection(ids=ids)):
            for person in one.recipients:
                attempts = self.awaited.get(one.id, {}).get(person.number)
                if attempts is not None and (word := _became(person, attempts)):
                    self.tell(one.id, person.number, word, person.reply)
        return self.left < before

    def __str__(self) -> str:
        """The words counted, as in "12 delivered, 1 failed"."""
        return ", ".join(f"{self.became[word]} {word}" for word in _WORDS if self.became[word]) or "none tried"

    def summary(self, seconds: float, trouble: str) -> str:
        """The last line for a person. `trouble`: why not all of it was tried."""
        told = [f"{self} in {said_seconds(seconds)}"]
        if self.left:
            those = f"{counted(self.left, 'recipient')} of {counted(len(self.awaited), 'message')}"
            told.append(f"{those} not tried, still in the spool")
        if trouble:
            told.append(trouble)
        return "; ".join(told)

    @property
    def all_delivered(self) -> bool:
        """Nothing is left, and nothing but deliveries came of it."""
        return not self.awaited and set(self.became) <= {"delivered"}


def _became(person: Person, attempts: int) -> str:
    """The word for a recipient that is done with, "" for one that is not."""
    if person.busy or (person.state in {"pending", "uncertain"} and person.attempts <= attempts):
        return ""
    return "deferred" if person.state == "pending" else person.state


@dataclass(slots=True)
class Job:
    """A replay to be done: of these messages, made due by `changes`, which shows a bar if it is given words for it."""

    config: Config
    database: Database
    ids: list[str]
    changes: Callable[[list[str], str], Iterable[Change]]
    outcomes: Outcomes
    manner: Manner

    def make_due(self, ids: list[str], doing: str = "") -> None:
        """Let these be tried from now on. What is being tried already is left alone, and awaited like the others."""
        for one in self.changes(ids, doing):
            if one.refused == "corrupt":
                self.outcomes.tell(one.id, one.number, "corrupt", "its content is damaged (mailgate spool verify)")

    def bar(self) -> Bar:
        """The bar of the whole, to be entered."""
        self.outcomes.bar = Bar("replaying", self.outcomes.left)
        return self.outcomes.bar
