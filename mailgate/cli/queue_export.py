"""`queue export`: spooled messages as files, with their envelopes. The spool is left as it is."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

from mailgate.cli.output import DONE, FAILED, Bar, counted, fail, say
from mailgate.cli.queue_choice import listed, seen, selection
from mailgate.cli.queue_formats import FORMATS
from mailgate.cli.queue_list import as_object
from mailgate.cli.queue_options import HERE, Filters
from mailgate.edge.spool import Database, content, listing
from mailgate.ports import SpoolError


def export(database: Database, target: Path, form: str, chosen: Filters) -> int:
    """Write what matches; the exit status: 1 if some of it could not be, or was there already."""
    which = selection(database, chosen, time.time(), chosen.states or HERE)
    found = seen(listed(database, chosen, which))
    written = failed = 0
    try:
        with FORMATS[form](target) as add, Bar("exporting", len(found.ids)) as bar:
            for one in listing.listed(database, replace(which, ids=tuple(found.ids))):
                try:
                    add(one, content.octets(database, one.id), json.dumps(as_object(one)))
                    written += 1
                except (SpoolError, FileExistsError) as error:
                    say(f"mailgate: {error}")
                    failed += 1
                bar.step()
    except OSError as error:
        raise fail(f"{error.filename or target}: {error.strerror}" if error.strerror else str(error)) from error
    say(f"{counted(written, 'message')} written to {target}" + (f", {failed} not" if failed else ""))
    return FAILED if failed else DONE
