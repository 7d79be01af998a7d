"""The operations of the daemon's writer on one open spool: what group commits are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from mailgate.config import SpoolConfig
from mailgate.edge.spool import chronicle, control, leases, place, storing, unscored, verdicts
from mailgate.edge.spool.chronicle import Packed
from mailgate.edge.spool.database import Database, give_back, reusable
from mailgate.edge.spool.errors import believing
from mailgate.edge.spool.leases import Those, Verdicts
from mailgate.edge.spool.schema import PENDING
from mailgate.edge.spool.storing import Deposit
from mailgate.edge.spool.unscored import Note
from mailgate.edge.spool.verdicts import Kept
from mailgate.edge.spool.writer import Operation
from mailgate.ports import Claimed, SpoolError, SpoolFull

BATCH = 500  # rows that housekeeping touches in one transaction
ENTRY = 1024  # octets that an entry of the ledger takes at most, for each recipient
PARTS = 50  # the same of the history, which are larger
FREE_KEPT = 64 * 2**20  # octets free inside the file that are not given back to the disk
GIVEN_BACK = 2048  # pages in one transaction


class Work:
    """The operations, by what they take:

    `store` a Deposit · `claim` and `claim_held` (now, Those) · `settle` and `settle_only` (which leaves the content)
    Verdicts · `note` Notes for the ledger · `set_aside` (id, reason) · `purge` the time before which
    settled messages are forgotten · `forget` (the same for the ledger, how many) · `chronicle` Packed rows of the
    history · `fade` (the time before which that is forgotten, the octets that it may have) · `keep` a Kept (a verdict's
    record) · `trim` now (the records) · `shrink` and `touch` (write something of no meaning) None.
    `shunned` are messages that are not claimed.
    """

    def __init__(self, database: Database, config: Callable[[], SpoolConfig]) -> None:
        """`config` is asked each time, so that it may be exchanged."""
        self._database = database
        self._config = config
        self._ballast = place.Ballast(database.path)
        self._spooled_at_most: int | None = None  # other processes only take away
        self._kept_at_most: int | None = None  # octets of records
        self.shunned: set[str] = set()
        self._given_up: set[str] = set()
        self.store = Operation("storing", self._store, self._unstore, vital=False)
        self.claim = Operation("claiming", self._claim, self._unclaim)
        self.claim_held = Operation("claiming held ones", self._claim_held, self._unclaim)
        self.settle = Operation("settling", self._settle)
        self.settle_only = Operation("settling without removing", self._settle_only)
        self.note = Operation("writing the ledger", self._note, vital=False)
        self.set_aside = Operation("setting aside", self._set_aside)
        self.purge = Operation("purging", self._purge)
        self.forget = Operation("forgetting old entries of the ledger", self._forget)
        self.chronicle = Operation("writing the history", self._chronicle, self._unchronicle, vital=False)
        self.fade = Operation("forgetting old history", self._fade)
        self.keep = Operation("keeping a verdict", self._keep, vital=False)
        self.trim = Operation("forgetting old verdicts", self._trim)
        self.shrink = Operation("shrinking", self._shrink)
        self.touch = Operation("trying to write", self._touch, vital=False)

    def _store(self, connection: Connection, deposits: Sequence[Deposit]) -> Sequence[SpoolError | None]:
        if gone := self._gone():
            return [gone for _ in deposits]
        answers, taken = self._admitted(connection, deposits)
        if taken:
            storing.insert_messages(connection, taken)
        notes = [unscored.of_deposit(deposit) for deposit in taken if deposit.outage]
        if notes:
            with unscored.aside(connection, "storing"):
                unscored.write(connection, notes)
        return answers

    def _gone(self) -> SpoolError | None:
        if not self._database.replaced:
            return None
        return SpoolError(f"{self._database.path}: it or its lock has been moved or deleted while in use")

    def _admitted(
        self, connection: Connection, deposits: Sequence[Deposit]
    ) -> tuple[list[SpoolError | None], list[Deposit]]:
        """Who may come in. The true sum and the free pages are only looked up once a limit seems to be reached."""
        config, room = self._config(), self._database.room(connection)
        sure = self._spooled_at_most is None
        spooled = storing.spooled(connection) if self._spooled_at_most is None else self._spooled_at_most
        owed = self._ballast.owed
        inside = reusable(connection) if sure else 0
        answers: list[SpoolError | None] = []
        taken: list[Deposit] = []
        more = 0
        for deposit in deposits:
            most = 1.0 if any(one.state == PENDING for one in deposit.parked) else place.HELD_SHARE
            words = place.refusal(config, room, spooled, more + deposit.size, inside, owed, most)
            if words and not sure:
                sure, spooled, inside = True, storing.spooled(connection), reusable(connection)
                words = place.refusal(config, room, spooled, more + deposit.size, inside, owed, most)
            answers.append(SpoolFull(words) if words else None)
            if not words:
                taken.append(deposit)
                more += deposit.size
        self._spooled_at_most = spooled + more
        return answers, taken

    def _unstore(self, connection: Connection, deposit: Deposit, _: None) -> None:
        # Its sender was told that it is not here. Undoing may fail: then it is not even looked at until it is gone.
        if deposit.gate_id in self._given_up:
            self.shunned.add(deposit.gate_id)
        self._given_up.add(deposit.gate_id)
        storing.remove_messages(connection, [deposit.gate_id])
        if deposit.outage:
            unscored.withdrawn(connection, deposit.gate_id)

    def _note(self, connection: Connection, calls: Sequence[Sequence[Note]]) -> Sequence[SpoolError | None]:
        notes = [note for call in calls for note in call]
        refusal = self._gone() or self._no_room(connection, ENTRY * sum(len(n.post.envelope.recipients) for n in notes))
        if not refusal:
            unscored.write(connection, notes)
        return [refusal] * len(calls)

    def _no_room(self, connection: Connection, octets: int) -> SpoolFull | None:
        """Mail comes first: the ledger stays away from what has to stay free, as mail does."""
        config, room, owed = self._config(), self._database.room(connection), self._ballast.owed
        if not place.refusal(config, room, 0, octets, 0, owed):
            return None
        words = place.refusal(config, room, 0, octets, reusable(connection), owed)
        return SpoolFull(words) if words else None

    def _claim(self, connection: Connection, calls: Sequence[tuple[float, Those]]) -> Sequence[list[Claimed]]:
        return self._claimed(connection, calls, held=False)

    def _claim_held(self, connection: Connection, calls: Sequence[tuple[float, Those]]) -> Sequence[list[Claimed]]:
        return self._claimed(connection, calls, held=True)

    def _claimed(
        self, connection: Connection, calls: Sequence[tuple[float, Those]], *, held: bool
    ) -> Sequence[list[Claimed]]:
        # Asked here, where nobody can turn it meanwhile: whoever claims may not have heard of it yet.
        if not control.may_replay(connection, self._database.owner_mark, calls[0][0]):
            return [[] for _ in calls]
        run, config, claims = self._database.run, self._config(), []
        shunned = self.shunned | self._given_up
        with believing("claiming"):
            for now, asked in calls:
                those = {gate_id: numbers for gate_id, numbers in asked.items() if gate_id not in shunned}
                claims.append(leases.claim(connection, run, those, leases.Due.at(now, config), held=held))
        return claims

    def _unclaim(self, connection: Connection, _: object, claimed: list[Claimed]) -> None:
        leases.unclaim(connection, self._database.run, claimed)

    def _settle(self, connection: Connection, settled: Sequence[Verdicts]) -> Sequence[None]:
        leases.settle(connection, self._database.run, settled)
        unscored.settled(connection, settled)
        return [None] * len(settled)

    def _settle_only(self, connection: Connection, settled: Sequence[Verdicts]) -> Sequence[None]:
        leases.settle(connection, self._database.run, settled, keep_content=True)
        unscored.settled(connection, settled)
        return [None] * len(settled)

    def _set_aside(self, connection: Connection, those: Sequence[tuple[str, str]]) -> Sequence[None]:
        for gate_id, reason in those:
            leases.set_aside(connection, gate_id, reason)
        return [None] * len(those)

    def _purge(self, connection: Connection, times: Sequence[float]) -> Sequence[int]:
        return [self._purged(connection, before) for before in times]

    def _purged(self, connection: Connection, before: float) -> int:
        ids = storing.history(connection, before, BATCH)
        if ids:
            unscored.outlived(connection, ids)
            storing.remove_messages(connection, ids)
        return len(ids)

    def _forget(self, connection: Connection, calls: Sequence[tuple[float | None, int]]) -> Sequence[int]:
        return [unscored.forget(connection, before, most) for before, most in calls]

    def _chronicle(
        self, connection: Connection, parts: Sequence[Sequence[Packed]]
    ) -> Sequence[Sequence[int] | SpoolError]:
        refusal = self._gone() or self._no_room(connection, sum(map(chronicle.size_of, parts)))
        if refusal:
            return [refusal] * len(parts)
        return [chronicle.write(connection, rows) for rows in parts]

    def _unchronicle(self, connection: Connection, rows: Sequence[Packed], numbers: Sequence[int]) -> None:
        chronicle.remove(connection, numbers, chronicle.size_of(rows))

    def _fade(self, connection: Connection, calls: Sequence[tuple[float, int]]) -> Sequence[int]:
        return [chronicle.forget(connection, before, octets, PARTS) for before, octets in calls]

    def _keep(self, connection: Connection, kept: Sequence[Kept]) -> Sequence[SpoolError | None]:
        more = sum(one.size for one in kept)
        if gone := self._gone():
            return [gone] * len(kept)
        if words := place.refusal(self._config(), self._database.room(connection), 0, more, owed=self._ballast.owed):
            return [SpoolFull(words)] * len(kept)
        if self._kept_at_most is None or self._kept_at_most + more > verdicts.MOST:
            self._kept_at_most = verdicts.trim(connection, max(one.at for one in kept), more)
        self._kept_at_most += more
        verdicts.write(connection, kept)
        return [None] * len(kept)

    def _trim(self, connection: Connection, times: Sequence[float]) -> Sequence[None]:
        self._kept_at_most = verdicts.trim(connection, max(times))
        return [None] * len(times)

    def _shrink(self, connection: Connection, calls: Sequence[None]) -> Sequence[bool]:
        for _ in calls:
            if reusable(connection) <= FREE_KEPT:
                return [False] * len(calls)
            give_back(connection, GIVEN_BACK)
        return [True] * len(calls)

    def _touch(self, connection: Connection, calls: Sequence[None]) -> Sequence[None]:
        control.touch(connection)
        return [None] * len(calls)
