"""How long what waits has been waiting, by list or by domain: the table that `qshape` draws of a queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import case, func, select

from mailgate.core.addresses import list_of
from mailgate.edge.spool.database import Database
from mailgate.edge.spool.schema import PENDING, recipients

BUCKETS = (
    5,
    10,
    20,
    40,
    80,
    160,
    320,
    1280,
)  # minutes: a recipient is counted under the first that is not below its age


@dataclass(frozen=True, slots=True)
class Row:
    """A list or domain: recipients in all and in each of `BUCKETS`, with one bucket more for what is older."""

    name: str
    total: int
    buckets: tuple[int, ...]


def stats(
    database: Database, now: float, *, by: Literal["list", "domain"] = "list", states: Sequence[str] = (PENDING,)
) -> list[Row]:
    """Recipients in these (written) states by age; the largest group first."""
    ages = [(recipients.c.received >= now - 60 * minutes, index) for index, minutes in enumerate(BUCKETS)]
    bucket = case(*ages, else_=len(BUCKETS)).label("bucket")
    query = (
        select(recipients.c.address_text, bucket, func.count())
        .where(recipients.c.state.in_(states))
        .group_by(recipients.c.address_text, bucket)
    )
    counted: dict[str, list[int]] = {}
    for address, index, number in database.read(lambda c: c.execute(query).all(), "counting"):
        name = list_of(address) if by == "list" else address.rpartition("@")[2]
        counted.setdefault(name, [0] * (len(BUCKETS) + 1))[index] += number
    rows = [Row(name, sum(numbers), tuple(numbers)) for name, numbers in counted.items()]
    return sorted(rows, key=lambda row: (-row.total, row.name))
