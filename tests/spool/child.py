"""A process with an open spool, to be killed, to have its disk taken away, or to write beside another.

    python -m tests.spool.child MODE DIRECTORY [ARGUMENT...]

What it has been told is done it says on a line of its own, at once.
"""

import asyncio
import os
import select
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from mailgate.edge.spool import Database, Store, control, verbs
from mailgate.edge.spool.listing import Selection
from mailgate.ports import Settlement, SpoolError
from tests.spool.kit import HOST, NOW, a_message, put, spool


def say(*words: object) -> None:
    """A line to the parent: once it is written it outlives this process."""
    os.write(1, " ".join(map(str, words)).encode() + b"\n")


async def load(directory: Path, prefix: str) -> None:
    """Store, claim and settle until it is killed."""

    async def storing(store: Store, client: int) -> None:
        for number in range(10**6):
            gate_id = f"{prefix}-{client}-{number}"
            await put(store, gate_id, "a@lists.test", "b@lists.test", message=a_message(4096, gate_id[-1].encode()))
            say("stored", gate_id)

    async def replaying(store: Store) -> None:
        while True:
            for claimed in await store.claim(NOW, 5):
                say("claimed", claimed.id)
                await store.settle(claimed.id, [Settlement(n, "delivered", "250") for n in claimed.numbers], NOW)
                say("settled", claimed.id)
            await asyncio.sleep(0.002)

    async with spool(directory) as store:
        say("ready")
        await asyncio.gather(*(storing(store, client) for client in range(8)), replaying(store))


async def obey(directory: Path) -> None:
    """Store what is asked for, and say how it went."""
    async with spool(directory) as store:
        say("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            gate_id = line.strip()
            try:
                await put(store, gate_id)
                say("stored", gate_id)
            except SpoolError as error:
                say("failed", gate_id, error)


async def operate(directory: Path) -> None:
    """Hold, release and drop beside a running gate until the parent hangs up, and say what was dropped."""
    database = Database(directory / "spool.db", HOST)
    say("ready")
    while not select.select([sys.stdin], [], [], 0)[0]:
        everything = Selection(states=("pending", "held"))
        for verb in (verbs.hold, verbs.release):
            list(verb(database, everything, NOW))
        for change in verbs.drop(database, Selection(recipient="drop*"), NOW):
            say(change.refused or "dropped", change.id, change.number)
    database.close()


async def pause(directory: Path) -> None:
    """Pause for each reason that is given, resume for an empty one."""
    database = Database(directory / "spool.db", HOST)
    for line in sys.stdin:
        reason = line.strip()
        if reason:
            database.write(partial(control.pause, reason=reason, until=None, now=NOW))
        else:
            database.write(partial(control.resume, now=NOW))
        say("done")
    database.close()


MODES: dict[str, Callable[..., Awaitable[None]]] = {"load": load, "obey": obey, "operate": operate, "pause": pause}

if __name__ == "__main__":
    asyncio.run(MODES[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:]))  # type: ignore[arg-type]
