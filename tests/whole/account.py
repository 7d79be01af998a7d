"""The account of a run: what was promised, what arrived, and whether each repeat had been announced.

Of every recipient of every message these must hold:

* lost: a 250 was given under a gate id, and nothing has arrived under that id;
* unannounced: under one gate id it arrived more often than once, and the spool does not show it as `uncertain`, or it
  arrived more often than the spool counts attempts;
* unexplained: it arrived under a gate id that the client was never told, and no reply was missing (the documented
  window: the gate died, or the connection broke, between Mailman's 250 and ours, so the client sent it again), or under
  one that was answered 4xx without the log calling it uncertain;
* torn: what arrived is not what was sent.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.stack.fake_session import Taken
from tests.whole.load import Attempt, whole

Key = tuple[str, str]  # a gate id, or a Message-ID, and a recipient


@dataclass
class Account:
    """The faults found, a line each, and how many there were of what."""

    lost: list[str] = field(default_factory=list)
    unannounced: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> list[str]:
        """All of them."""
        named = {"lost": self.lost, "unannounced": self.unannounced, "unexplained": self.unexplained, "torn": self.torn}
        return [f"{name}: {one}" for name, all_of_it in named.items() for one in all_of_it]


@dataclass(frozen=True)
class Spooled:
    """What the spool remembers of a recipient."""

    state: str
    uncertain: bool
    attempts: int


def spooled(rows: Iterable[Mapping[str, Any]]) -> dict[Key, Spooled]:
    """The recipients in the rows of `mailgate queue list --json`."""
    return {
        (row["id"], one["address"]): Spooled(one["state"], one["uncertain"], one["attempts"])
        for row in rows
        for one in row["recipients"]
    }


def called_uncertain(events: Iterable[Mapping[str, Any]]) -> set[Key]:
    """Recipients that a `message.…` event of the log calls uncertain."""
    return {
        (event["id"], recipient)
        for event in events
        for recipient, said in event["recipients"].items()
        if "uncertain, " in said
    }


def settle(
    attempts: Mapping[str, Sequence[Attempt]],
    taken: Sequence[Taken],
    spool: Mapping[Key, Spooled],
    announced: set[Key],
) -> Account:
    """Compare what the clients were told with what Mailman has, and with what the spool and the log say of it."""
    account = Account()
    arrived = Counter((gate_id(one), recipient) for one in taken for recipient in one.recipients)
    account.torn = [one.message_id for one in taken if not whole(one.message_id, one.octets)]
    told = {
        (identifier, recipient): code
        for tries in attempts.values()
        for one in tries
        for recipient, (code, identifier) in one.answers.items()
    }
    account.lost = [f"{key}" for key, code in told.items() if code == 250 and not arrived[key]]
    account.unannounced = list(_unannounced(arrived, spool))
    account.unexplained = [*_unexpected(arrived, told, announced), *_untold(arrived, told, attempts, taken)]
    _count(account, attempts, arrived, spool)
    return account


def gate_id(taken: Taken) -> str:
    """The id that the gate wrote into the message."""
    return taken.octets.partition(b"X-Mailgate-Id: ")[2].partition(b"\r\n")[0].decode()


def _unannounced(arrived: Counter[Key], spool: Mapping[Key, Spooled]) -> Iterator[str]:
    for key, count in arrived.items():
        known = spool.get(key)
        if count > 1 and (known is None or not known.uncertain or known.attempts < count):
            yield f"{key} arrived {count} times: {known}"


def _unexpected(arrived: Counter[Key], told: Mapping[Key, int], announced: set[Key]) -> Iterator[str]:
    for key, code in told.items():
        if code != 250 and arrived[key] and key not in announced:
            yield f"{key} was answered {code} and arrived"


def _untold(
    arrived: Counter[Key],
    told: Mapping[Key, int],
    attempts: Mapping[str, Sequence[Attempt]],
    taken: Sequence[Taken],
) -> Iterator[str]:
    message_of = {gate_id(one): one.message_id for one in taken}
    under: Counter[Key] = Counter((message_of[key[0]], key[1]) for key in arrived if key not in told)
    for (message_id, recipient), count in under.items():
        missing = sum(recipient in one.in_doubt for one in attempts[message_id])
        if count > missing:
            yield f"{message_id} {recipient}: {count} gate ids that nobody was told, {missing} replies missing"


def _count(
    account: Account, attempts: Mapping[str, Sequence[Attempt]], arrived: Counter[Key], spool: Mapping[Key, Spooled]
) -> None:
    tried = [one for tries in attempts.values() for one in tries]
    wanted = {(one.message_id, recipient) for one in tried for recipient in (*one.answers, *one.in_doubt)}
    account.counts.update(
        {
            "messages": len(attempts),
            "recipients": len(wanted),
            "spooled": len(spool),
            "shown uncertain": sum(one.uncertain for one in spool.values()),
            "replies that never came": sum(len(one.in_doubt) for one in tried),
            "arrivals": arrived.total(),
            "repeats of one gate id": sum(count - 1 for count in arrived.values()),
            "repeats by sending again": len(arrived) - len(wanted),
        }
    )
