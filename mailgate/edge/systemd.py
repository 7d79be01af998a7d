"""What systemd wants to hear from a service: sd_notify(3), in the twenty lines that it takes.

Without NOTIFY_SOCKET nothing is said. A message that can't be sent is lost without harm: systemd's own time-outs
show it.
"""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*states: str) -> None:
    """Send states such as "READY=1" or "STATUS=..."."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.sendto("\n".join(states).encode(), "\0" + address[1:] if address.startswith("@") else address)


def watchdog_interval() -> float:
    """Seconds between two WATCHDOG=1 (half of what systemd waits for), 0 if it does not watch."""
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6


def under_journald() -> bool:
    """True if stderr goes to the journal, which reads a priority in front of each line."""
    return bool(os.environ.get("JOURNAL_STREAM"))
