"""What the verdict door found of messages, kept for the relay door in the spool: `mailgate.ports.Records`.

Promises: a record is found for the very message that it was made of (Exim's id and the body's digest), or not at all;
one that `keep` has returned from survives a restart; mail comes first: none is written where the disk is short of room.
How it fails: never with an exception. The first failure after a success is told (`records.failed`), and the message is
looked at anew at the relay door.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mailgate.core.record import Miss, Record, from_json
from mailgate.edge.spool.opening import Serving
from mailgate.edge.spool.verdicts import Kept, look_up
from mailgate.ports import SpoolError


class Records:
    """See `mailgate.ports.Records`. `serving` raises SpoolError while the spool is not open; `tell` says the words of
    a failure.
    """

    def __init__(self, serving: Callable[[], Serving], tell: Callable[[str], None]) -> None:
        self._serving = serving
        self._tell = tell
        self._failing = False

    async def keep(self, exim_id: str, digest: str, record: Record, timeout: float) -> None:
        """Keep it: see `mailgate.ports.Records.keep`."""
        kept = Kept(exim_id, digest, record.at, record.to_json())
        try:
            spool = self._serving()
            await spool.writer.do(spool.work.keep, kept, timeout, kept.size)
        except SpoolError as error:
            self._failed(str(error))
        else:
            self._failing = False

    async def find(self, exim_id: str, digest: str, timeout: float) -> Record | Miss:
        """Look for it: see `mailgate.ports.Records.find`."""
        now = time.time()
        try:
            spool = self._serving()
            async with asyncio.timeout(timeout):
                text = await spool.aside(
                    lambda: spool.database.read(lambda c: look_up(c, exim_id, digest, now), "recognising")
                )
        except TimeoutError:
            return self._missed(f"recognising: not done within {timeout:g} s")
        except SpoolError as error:
            return self._missed(str(error))
        if isinstance(text, Miss):
            return text
        return from_json(text) or self._missed(f"the record of {exim_id} makes no sense")

    def _missed(self, words: str) -> Miss:
        self._failed(words)
        return Miss.TROUBLE

    def _failed(self, words: str) -> None:
        if not self._failing:
            self._failing = True
            self._tell(words)
