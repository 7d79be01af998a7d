"""How a session ends: by the clock, by the daemon, by its own last words; never within what it owes.

Promise: nobody is waited for without end (promise 6), neither one who says nothing nor one who reads nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal, cast

from aiosmtpd.smtp import SMTP

from mailgate.edge.listener.words import worded

_LAST_WORDS = 2.0  # seconds in which a peer may read what we said last


class Ending(SMTP):
    """The ends of a session. `_phase` is what it is about, `_heard` when (of the loop's clock) its peer last spoke."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._phase: Literal["command", "data", "relay"] = "command"
        self._heard = 0.0
        self._farewell = ""

    @property
    def _there(self) -> asyncio.Transport | None:
        return cast("asyncio.Transport | None", self.transport)  # uvloop's are no asyncio.Transport by their class

    def _reset_timeout(self, duration: float | None = None) -> None:  # noqa: ARG002  aiosmtpd's signature
        # aiosmtpd makes a new timer for each command; this one looks at the clock when it rings.
        self._heard = self.loop.time()
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_later(self._timeout_duration, self._timeout_cb)

    def _timeout_cb(self) -> None:
        left = self._heard + self._timeout_duration - self.loop.time()
        if self._phase == "relay":
            left = self._timeout_duration  # the relay keeps its own time
        if left > 0:
            self._timeout_handle = self.loop.call_later(left, self._timeout_cb)
        else:
            self.say_farewell("421 4.4.2 nothing was heard for too long", True)

    def say_farewell(self, reply: str, even_in_data: bool) -> None:  # noqa: FBT001  called by the loop
        """End the session with `reply`: now if it waits for a command (or mail data), else behind its replies."""
        self._farewell = reply
        if self._phase == "command" or (even_in_data and self._phase == "data"):
            self._hang_up()

    def abort(self) -> None:
        """End the session now, whatever it does."""
        if there := self._there:
            there.abort()

    def _hang_up(self) -> None:
        there = self._there
        if there and not there.is_closing():
            there.write(worded(self._farewell))
            self._close()

    def _close(self) -> None:
        if there := self._there:
            there.close()
            if there.get_write_buffer_size():
                # asyncio waits until all is sent: for ever, if the peer does not read.
                self.loop.call_later(_LAST_WORDS, self.abort)
