"""The daemon's housekeeping on a spool whose disk has trouble."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from mailgate import config as configuration
from mailgate import daemon
from mailgate.daemon import Daemon
from tests.spool.kit import HOST, wait_until


async def test_what_can_not_be_done_is_said_once_and_is_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(daemon, "_HOUSEKEEPING", 0.005)
    spool = {"url": f"sqlite:///{tmp_path}/spool.db", "min_free": "1B"}
    gate = Daemon(configuration.parse({"hostname": HOST, "spool": spool, "spam": {"engine": "off"}}), Path("/dev/null"))
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
