"""Fixtures of the spool's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mailgate.edge.spool import Store
from tests.spool.kit import Recorder, spool


@pytest.fixture
def telemetry() -> Recorder:
    """What the spool says."""
    return Recorder()


@pytest.fixture
async def store(tmp_path: Path, telemetry: Recorder) -> AsyncIterator[Store]:
    """An open spool in a directory of its own."""
    async with spool(tmp_path, telemetry) as opened:
        yield opened
