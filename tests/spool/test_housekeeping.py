"""The daemon on a spool whose disk, or clock, has trouble: what it says."""

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from mailgate import config as configuration
from mailgate import daemon
from mailgate.daemon import Daemon
from tests.spool.kit import HOST, put, wait_until


def a_daemon(directory: Path) -> Daemon:
    """One that does not run."""
    spool = {"url": f"sqlite:///{directory}/spool.db", "min_free": "1B"}
    return Daemon(configuration.parse({"hostname": HOST, "spool": spool, "spam": {"engine": "off"}}), Path("/dev/null"))


async def test_mail_from_the_future_is_old(tmp_path: Path) -> None:
    """It came in while the clock was ahead: with an age of 0 nobody would look."""
    gate = a_daemon(tmp_path)
    await gate._open_spool()
    await put(gate._spool, "one", now=time.time() + 3600)
    ages = [values for name, _, values in gate._pages.samples() if name == "spool_oldest_seconds"]
    await gate._spool.close()
    gate._log.close()
    [age] = ages
    assert age == pytest.approx(3600, abs=60)


async def test_what_can_not_be_done_is_said_once_and_is_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(daemon, "_HOUSEKEEPING", 0.005)
    gate = a_daemon(tmp_path)
    tries: list[str] = []

    def fail(*args: Any) -> None:
        tries.append(str(args[2]))
        raise sqlite3.OperationalError("disk I/O error")

    await gate._open_spool()
    event.listen(gate._spool.database.writing, "before_cursor_execute", fail)
    tending = asyncio.create_task(gate._keep("housekeeping", gate._housekeeping))
    await wait_until(lambda: len(tries) > 3)
    tending.cancel()
    await asyncio.wait({tending})
    await gate._spool.close()
    gate._log.close()
    out, err = capsys.readouterr()
    assert ((out + err).count("spool.trouble"), "task.failed" in out + err) == (1, False)
