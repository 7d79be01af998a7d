"""File descriptors: whether one is left, and how many this process may have.

Each connection takes one. Without any, whoever connects is hung up on (libuv takes and closes what it can't serve), and
what is missing shows as trouble of Mailman's, or of the scorer's. So the shortage is said by its own name.
Events: `descriptors.few` (at the start: fewer than the configuration may take), `descriptors.exhausted`,
`descriptors.free`.
"""

from __future__ import annotations

import errno
import os
import resource

from mailgate.ports import Telemetry

_CALM = 5.0  # seconds for which there have to be some before it is over: one that is given back is taken at once


class Descriptors:
    """`look` is to be called several times a second."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._short: float | None = None  # when there was none, the last time

    def begin(self, needed: int) -> None:
        """Say it if there may be fewer than that."""
        allowed = limit()
        if allowed < needed:
            cause = f"{allowed} files may be open, and connections may take {needed}: raise LimitNOFILE= (ulimit -n)"
            self._telemetry.event("descriptors.few", {"cause": cause}, level="warning")

    def look(self, now: float) -> None:
        """Is there one? Said when that changes."""
        if exhausted():
            if self._short is None:
                cause = f"{limit()} files are open, and more may not be: whoever connects is hung up on (LimitNOFILE=)"
                self._telemetry.event("descriptors.exhausted", {"cause": cause}, level="error")
            self._short = now
        elif self._short is not None and now - self._short >= _CALM:
            self._short = None
            self._telemetry.event("descriptors.free", {})


def exhausted() -> bool:
    """Can no file be opened, for want of a descriptor?"""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def limit() -> int:
    """How many files this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
