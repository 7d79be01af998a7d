"""`queue replay`: what matches is tried now, by the daemon, or by this command where none is running.

Nothing is replayed while deliveries are paused or the spool is another gate's: the verb says so and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from mailgate.cli.options import opened
from mailgate.cli.output import DONE, FAILED, fail, say, stamp
from mailgate.cli.queue_act import preview
from mailgate.cli.queue_choice import changeable, changes, listed, seen, selection
from mailgate.cli.queue_follow import follow
from mailgate.cli.queue_options import Filters, Manner
from mailgate.cli.queue_outcome import Job, Outcomes
from mailgate.cli.queue_run import run
from mailgate.config import Config
from mailgate.edge.spool import Database, SpoolBusy, control, verbs
from mailgate.edge.spool.listing import Selection
from mailgate.edge.spool.verbs import Change

_TAKES, _USUAL = ("pending", "uncertain", "failed"), ("pending", "uncertain")


def replay(config: Config, chosen: Filters, manner: Manner) -> int:
    """Do it. The exit status: 0 when all that matched was delivered, or made due if no more than that was asked."""
    with opened(config) as database:
        now = time.time()
        which = selection(database, chosen, now, changeable(chosen, "replay", _TAKES, _USUAL))
        outcomes = Outcomes(manner.as_json, manner.every)
        found = seen(outcomes.passing(listed(database, chosen, which)))

        def verb(some: Selection) -> Iterable[Change]:
            return verbs.replay(database, some, time.time(), dry=manner.dry)

        if manner.dry:
            return preview(changes(verb, which, found.ids, "looking"), as_json=manner.as_json)
        must_be_open(database, now)
        say(f"replay: {found}")
        job = Job(config, database, found.ids, lambda ids, doing: changes(verb, which, ids, doing), outcomes, manner)
        try:
            trouble = run(job)
        except SpoolBusy:
            if not (manner.wait or manner.rate):
                job.make_due(found.ids, "making due")
                say("made due: the daemon tries them now")
                return DONE
            trouble = follow(job)
        say(outcomes.summary(time.time() - now, trouble))
        return DONE if outcomes.all_delivered else FAILED


def must_be_open(database: Database, now: float) -> None:
    """End the verb if nothing may be replayed."""
    pause = database.read(lambda connection: control.paused(connection, now))
    if pause:
        raise fail(f"paused since {stamp(pause.since)} ({pause.reason}): nothing was changed; mailgate resume first")
    foreign = database.read(lambda connection: control.foreign(connection, database.owner_mark))
    if foreign:
        raise fail(f"{foreign}: nothing was changed; mailgate spool adopt first")
