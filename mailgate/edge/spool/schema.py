"""The tables of the spool and their version.

State is per recipient. A message's content (`bodies`) lives until its last recipient is settled; the rows stay a
little longer as history. A file of an older version is brought forward step by step, in one transaction; a newer
one is refused with words, never guessed at.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    func,
    insert,
    inspect,
    select,
    update,
)

from mailgate.ports import SpoolError

PENDING, HELD, FAILED, DELIVERED, DROPPED, CORRUPT = "pending", "held", "failed", "delivered", "dropped", "corrupt"
UNCERTAIN = "uncertain"  # shown for a pending recipient that the next hop may have; never written
LIVE = (PENDING, HELD, FAILED, CORRUPT)  # the content is still wanted
STATES = (PENDING, UNCERTAIN, HELD, FAILED, CORRUPT, DELIVERED, DROPPED)  # as shown

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("received", Double, nullable=False),
    Column("settled", Double),  # when the last recipient was; the content is gone from then on
    Column("sender", LargeBinary, nullable=False),  # the octets as they came
    Column("sender_text", Text, nullable=False),  # printable and lower-cased, for filters
    Column("smtputf8", Boolean, nullable=False),
    Column("eight_bit", Boolean, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("parts", Integer, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),  # SHA-256 of the whole
    Column("exim_id", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("scan", Text, nullable=False, server_default=""),  # of one that came in unscored: see ports.Facts
    Index("messages_by_age", "received", "id"),
    Index("messages_settled", "settled", "size"),  # the octets in use are summed up from this alone
)

bodies = Table(
    "bodies",
    metadata,
    Column("message_id", String(64), primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),  # 1 MiB at most: other engines limit what one statement carries
)

recipients = Table(
    "recipients",
    metadata,
    Column("message_id", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("address", LargeBinary, nullable=False),
    Column("address_text", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("uncertain", Boolean, nullable=False),
    Column("alone", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("received", Double, nullable=False),  # of the message: the order of the queue
    Column("since", Double, nullable=False),  # the lifetime counts from here: a release begins it anew
    Column("next_attempt", Double, nullable=False),
    Column("last_attempt", Double),
    Column("reply", Text, nullable=False),
    Column("lease", String(32), nullable=False),  # the run that is trying it now; "" for nobody
    # Claims and counts are answered from this index alone, so a queue of 100,000 does not have to be read for them.
    Index("recipients_queue", "state", "received", "message_id", "lease", "next_attempt", "uncertain"),
)

# The ledger: posts that went on, or are to, without the score that they should have. It outlives the messages.
unscored = Table(
    "unscored",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("outage", String(64), nullable=False),  # the id of its first post
    Column("received", Double, nullable=False),
    Column("sender", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("exim_id", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("reason", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("score", Double),  # that it came to in the spool
    Index("unscored_by_outage", "outage", "received"),
    Index("unscored_by_age", "received"),
    sqlite_with_rowid=False,
)

unscored_recipients = Table(
    "unscored_recipients",
    metadata,
    Column("post_id", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("address", LargeBinary, nullable=False),
    Column("address_text", Text, nullable=False),
    Column("fate", String(16), nullable=False),  # a word of core.fate
    sqlite_with_rowid=False,
)

# What the verdict door found, until the same message comes to the relay door: see `records`.
verdicts = Table(
    "verdicts",
    metadata,
    Column("exim_id", String(32), primary_key=True),
    Column("digest", String(64), primary_key=True),  # of the body: core.record.digest
    Column("at", Double, nullable=False),
    Column("size", Integer, nullable=False),  # octets that it counts for
    Column("record", Text, nullable=False),
    Index("verdicts_by_age", "at", "size"),
)

# What happened to messages: see `chronicle`. The events are apart, so that a search need not go through them.
history = Table(
    "history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("began", Double, nullable=False),
    Column("ended", Double, nullable=False),
    Column("size", Integer, nullable=False),  # octets that it takes, its events included
    Column("names", LargeBinary, nullable=False),
)

history_events = Table(
    "history_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("events", LargeBinary, nullable=False),
)


def unindexed(column: ColumnElement[str]) -> ColumnElement[str]:
    """The column, for a condition beside one on the message's id: SQLite would take the index on states instead and
    go through all that is pending for each message.
    """
    return func.coalesce(column, "")


def _with_scans(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE messages ADD COLUMN scan TEXT NOT NULL DEFAULT ''")
    metadata.create_all(connection, [unscored, unscored_recipients])


def _with_verdicts(connection: Connection) -> None:
    metadata.create_all(connection, [verdicts])


def _with_history(connection: Connection) -> None:
    metadata.create_all(connection, [history, history_events])


Step = Callable[[Connection], None]
STEPS: tuple[Step, ...] = (_with_scans, _with_verdicts, _with_history)  # STEPS[n] brings version n + 1 to n + 2


class Outdated(SpoolError):
    """The spool has an older version and was not to be brought forward."""


def prepare(connection: Connection, first: dict[str, str], *, forward: bool) -> bool:
    """Make the tables in an empty file, with `first` in `meta`, or if `forward` bring an older spool forward.

    True if they were made. Raises SpoolError for a newer version.
    """
    newest = len(STEPS) + 1
    if not inspect(connection).has_table("meta"):
        metadata.create_all(connection)
        rows = [{"key": key, "value": value} for key, value in (first | {"version": str(newest)}).items()]
        connection.execute(insert(meta), rows)
        return True
    found = connection.scalar(select(meta.c.value).where(meta.c.key == "version")) or ""
    if not found.isdecimal() or int(found) < 1:
        raise SpoolError(f"this database is not a spool: its version is {found!r}")
    if int(found) > newest:
        raise SpoolError(
            f"the spool has version {found}, this mailgate knows versions up to {newest}: install the newer mailgate"
        )
    if int(found) == newest:
        return False
    if not forward:
        raise Outdated(f"the spool has version {found} and is served by an older mailgate: restart it")
    for step in STEPS[int(found) - 1 :]:
        step(connection)
    connection.execute(update(meta).where(meta.c.key == "version").values(value=str(newest)))
    return False
