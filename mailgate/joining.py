"""How the relay door recognises a message that Exim has asked the verdict door about: one scan, not two.

Promises: the record of a message is used for that very message only. Its Exim id must stand where only our own Exim
can have written it, and its body must be the one that was judged; whoever forges one of them is looked at anew.
How it fails: never with an exception, and within its time; a message without a record is treated as if Exim had never
asked. What shows: `mailgate_verdicts_joined_total`, by reason; a bug is the event `records.failed`.
"""

from __future__ import annotations

import asyncio
import traceback

from mailgate.core import headers, record
from mailgate.core.message import Message
from mailgate.core.record import Miss, Record
from mailgate.deadlines import Deadlines
from mailgate.ports import Records, Telemetry
from mailgate.strays import caught

_PATIENCE = 2.0  # seconds at most; to scan it anew takes less than to wait longer
_GRACE = 1.0  # seconds past its time after which the search is not waited for
_LARGE = 2**20  # octets from which on the digest is made in a thread, so that others need not wait for it


class Joining:
    """Finds the record of a message."""

    def __init__(self, records: Records, telemetry: Telemetry, deadlines: Deadlines) -> None:
        self._records = records
        self._telemetry = telemetry
        self._deadlines = deadlines

    async def find(self, message: Message, seconds: float) -> Record | Miss:
        """What the verdict door found of this message, within so many seconds; or why nothing is known of it."""
        loop = asyncio.get_running_loop()
        patience = min(seconds, _PATIENCE)
        try:
            found = await self._deadlines.wait(caught(self._find(message, patience)), loop.time() + patience + _GRACE)
        except TimeoutError:
            found = Miss.TROUBLE
        except Exception:  # noqa: BLE001  what was found before may help, and must not hinder
            self._telemetry.event("records.failed", {"trace": traceback.format_exc()}, level="error")
            found = Miss.TROUBLE
        self._telemetry.count("verdicts_joined", result=found.value if isinstance(found, Miss) else "joined")
        return found

    async def _find(self, message: Message, seconds: float) -> Record | Miss:
        exim_id = headers.own_exim_id(message.exims_head)
        if not exim_id:
            return Miss.NO_ID
        large = message.size > _LARGE
        digest = await asyncio.to_thread(record.digest, message) if large else record.digest(message)
        return await self._records.find(exim_id, digest, seconds)
