"""One scan for one of the doors: by its deadline even if the scanner has a bug."""

from __future__ import annotations

from mailgate.core.envelope import Client, Envelope
from mailgate.core.message import Message
from mailgate.core.scan import Scored, Unscored
from mailgate.deadlines import Deadlines
from mailgate.ports import Scanner

_GRACE = 1.0  # seconds past its deadline after which a scanner that should have answered is not waited for


class Scanning:
    """The scanner, not trusted to keep its time."""

    def __init__(self, scanner: Scanner, deadlines: Deadlines) -> None:
        self._scanner = scanner
        self._deadlines = deadlines

    async def scan(
        self, envelope: Envelope, message: Message, client: Client, deadline: float, gate_id: str
    ) -> Scored | Unscored:
        """The score of the message, by `deadline` (of the loop's clock) and a second. Never an exception for time."""
        found = self._scanner.scan(envelope, message, client, deadline, gate_id)
        try:
            return await self._deadlines.wait(found, deadline + _GRACE)
        except TimeoutError:
            return Unscored("timeout", "the scan did not end in time")
