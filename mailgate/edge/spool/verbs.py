"""What an operator does to spooled recipients: hold, release, drop, replay. Synchronous; the daemon may be up.

Work is done in small transactions while the result is being iterated, so that the daemon's writes find their turn
between them; a verb that is broken off has done what it has said. A recipient that a replay is just trying is never
touched but reported `busy`; one whose content is damaged can only be dropped, and is reported `corrupt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, exists, select, update

from mailgate.core.envelope import address_text, printable
from mailgate.core.spam import AWAITS_SCORE
from mailgate.edge.spool import by_hand
from mailgate.edge.spool.database import Database
from mailgate.edge.spool.listing import PAGE, Selection, in_parts, of_message, of_recipient
from mailgate.edge.spool.query import shown
from mailgate.edge.spool.schema import CORRUPT, DROPPED, FAILED, HELD, LIVE, PENDING, messages, recipients
from mailgate.edge.spool.storing import remove_settled_content, text
from mailgate.edge.spool.upkeep import end_old_leases

MOST_OCTETS = 64 * 2**20  # whose content one transaction may drop


_CHANGE = (
    update(recipients)
    .where(
        recipients.c.message_id == bindparam("of"),
        recipients.c.number == bindparam("which"),
        recipients.c.lease == "",
    )
    .values(
        state=bindparam("new_state"),
        reply=bindparam("new_reply"),
        since=bindparam("new_since"),
        next_attempt=bindparam("again"),
    )
)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a verb makes of a state that is written: the new one, None if it is not for that."""

    verb: str
    becomes: Mapping[str, str]

    def of(self, row: Any) -> str | None:
        """For this recipient. One that is held only until it can be scored goes on by itself, so it can be held."""
        waits = row.state == HELD and row.reply == AWAITS_SCORE
        return HELD if waits and self.verb == "hold" else self.becomes.get(row.state)


@dataclass(frozen=True, slots=True)
class Change:
    """What was done, or in a dry run would be, to one recipient: its state as shown `before` and `after`. `refused`
    is "busy" or "corrupt" where nothing was done, else "".
    """

    id: str
    number: int
    address: str
    before: str
    after: str
    refused: str = ""


def hold(
    database: Database, selection: Selection, now: float, *, dry: bool = False, reason: str = ""
) -> Iterator[Change]:
    """Keep pending and failed recipients until they are released, and those that are held until they can be scored."""
    rules = {PENDING: HELD, FAILED: HELD}
    return _run(database, selection, now, _Rule("hold", rules), dry=dry, reason=reason)


def release(
    database: Database, selection: Selection, now: float, *, dry: bool = False, reason: str = ""
) -> Iterator[Change]:
    """Make held, failed and waiting recipients due now; their lifetime begins anew."""
    rules = {PENDING: PENDING, HELD: PENDING, FAILED: PENDING}
    return _run(database, selection, now, _Rule("release", rules), dry=dry, reason=reason)


def replay(
    database: Database, selection: Selection, now: float, *, dry: bool = False, reason: str = ""
) -> Iterator[Change]:
    """Make pending recipients due now, and failed ones if they are named by id or state."""
    rules = {PENDING: PENDING} | ({FAILED: PENDING} if selection.names(FAILED) else {})
    return _run(database, selection, now, _Rule("replay", rules), dry=dry, reason=reason)


def drop(
    database: Database, selection: Selection, now: float, *, dry: bool = False, reason: str = ""
) -> Iterator[Change]:
    """Give recipients up for good; the content goes with the last one of a message."""
    rules = dict.fromkeys(LIVE, DROPPED)
    return _run(database, selection, now, _Rule("drop", rules), dry=dry, reason=reason)


def _run(
    database: Database, selection: Selection, now: float, rule: _Rule, *, dry: bool, reason: str
) -> Iterator[Change]:
    if not dry:
        end_old_leases(database)
    for part in in_parts(selection):
        for ids in _batches(database, part):
            act = _Act(part, ids, now, rule, reason)
            yield from database.read(act.changes) if dry else database.write(act.do)


def _batches(database: Database, selection: Selection) -> Iterator[list[str]]:
    chosen = exists().where(recipients.c.message_id == messages.c.id, of_recipient(selection))
    query = select(messages.c.id, messages.c.size).where(of_message(selection), chosen)
    rows = database.read(lambda c: c.execute(query.order_by(messages.c.received, messages.c.id)).all(), "choosing")
    batch: list[str] = []
    octets = 0
    for gate_id, size in rows:
        batch.append(gate_id)
        octets += size
        if len(batch) >= PAGE or octets >= MOST_OCTETS:
            yield batch
            batch, octets = [], 0
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class _Act:
    selection: Selection
    ids: Sequence[str]
    now: float
    rule: _Rule
    reason: str

    def changes(self, connection: Connection) -> list[Change]:
        """What would be done."""
        return [change for change, _ in self._planned(connection)]

    def do(self, connection: Connection) -> list[Change]:
        """Do it. The choice is made anew: much may have happened since the batch was put together."""
        planned = self._planned(connection)
        rows = [self._row(row) for change, row in planned if not change.refused]
        if rows:
            connection.execute(_CHANGE, rows)
            dropped = dict.fromkeys(row["of"] for row in rows if row["new_state"] == DROPPED)
            if dropped:
                remove_settled_content(connection, list(dropped), self.now)
        by_hand.note(connection, f"operator.{self.rule.verb}", self._told(planned), self.now)
        return [change for change, _ in planned]

    def _told(self, planned: Sequence[tuple[Change, Any]]) -> list[dict[str, object]]:
        """The same for the history, message by message."""
        said: dict[str, dict[str, str]] = {}
        for change, _ in planned:
            if not change.refused:
                changed = f"{change.before} -> {change.after}"
                said.setdefault(change.id, {})[printable(change.address)] = changed
        by = {"by": by_hand.who()} | ({"reason": printable(self.reason)} if self.reason else {})
        return [{"id": gate_id, **by, "recipients": recipients} for gate_id, recipients in said.items()]

    def _planned(self, connection: Connection) -> list[tuple[Change, Any]]:
        query = (
            select(recipients)
            .where(recipients.c.message_id.in_(self.ids), of_recipient(self.selection))
            .order_by(recipients.c.received, recipients.c.message_id, recipients.c.number)
        )
        planned = []
        for row in connection.execute(query):
            after = self.rule.of(row)
            refused = "busy" if row.lease else "corrupt" if row.state == CORRUPT and after is None else ""
            if after is None and not refused:
                continue
            before = shown(row.state, uncertain=row.uncertain)
            then = before if refused or after is None else shown(after, uncertain=row.uncertain)
            change = Change(row.message_id, row.number, address_text(row.address), before, then, refused)
            planned.append((change, row))
        return planned

    def _row(self, row: Any) -> dict[str, Any]:
        after = self.rule.of(row)
        revived = after == PENDING
        return {
            "of": row.message_id,
            "which": row.number,
            "new_state": after,
            # An operator has taken it in hand: it is not released again by a scorer that comes back.
            "new_reply": text(self.reason) or ("" if row.reply == AWAITS_SCORE else row.reply),
            "new_since": self.now if revived and row.state != PENDING else row.since,
            "again": self.now if revived else row.next_attempt,
        }
