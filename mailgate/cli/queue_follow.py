"""`queue replay` beside a running daemon: what matches is made due, then watched in the spool until it was tried.

It ends when all was tried, when `--for` runs out, or, if no `--for` was given, as soon as there is nothing to hope
for: the daemon has ended, deliveries are paused, or the daemon says that Mailman is down.
"""

from __future__ import annotations

import contextlib
import time

from mailgate.cli.daemon_page import asked
from mailgate.cli.queue_outcome import Job
from mailgate.config import Config
from mailgate.edge.spool import SpoolBusy
from mailgate.edge.spool.place import Lock

_PAUSE = 0.2  # seconds between two looks
_STILL = 2.0  # seconds without an outcome after which the daemon is asked why


def follow(job: Job) -> str:
    """Make due and watch. Why it was not watched to the end, "" if it was."""
    try:
        with job.bar():
            return _follow(job)
    except KeyboardInterrupt:
        return "interrupted; the daemon goes on"


def _follow(job: Job) -> str:
    outcomes, rate, patience = job.outcomes, job.manner.rate, job.manner.patience
    began = moved = time.monotonic()
    due = 0
    while outcomes.awaited:
        now = time.monotonic()
        if due < len(job.ids):
            allowed = int((now - began) * rate) + 1 if rate else len(job.ids)
            job.make_due(job.ids[due:allowed])
            due = max(due, allowed)
        if outcomes.look(job.database):
            moved = now
            continue
        if patience and now - began > patience:
            return "--for has run out; the daemon goes on"
        if now - moved > _STILL:
            moved = now
            trouble = _trouble(job, hopeful=bool(patience))
            if trouble:
                return trouble
        time.sleep(_PAUSE)
    return ""


def _trouble(job: Job, *, hopeful: bool) -> str:
    """Why nothing moves. Someone `hopeful` waits for Mailman to return."""
    with contextlib.suppress(SpoolBusy):  # it is: the daemon is up
        Lock(job.database.path, 0).release()
        return "the daemon has ended: the same command again replays without it"
    said = daemon_says(job.config)
    if said.get("foreign"):
        return f"nothing is replayed: foreign: {said['foreign']}"
    if said.get("shut"):
        return f"nothing is replayed: {said['shut']}"
    mailman = said.get("mailman", "up")
    if mailman == "up" or hopeful:
        return ""
    return f"Mailman is {mailman}; the daemon delivers when it is back"


def daemon_says(config: Config) -> dict[str, str]:
    """What /readyz of the running daemon says; {} if it does not answer."""
    return {key: str(value) for key, value in asked(config, "/readyz").items() if value}
