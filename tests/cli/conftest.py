"""A site of its own for each test of the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.site import Site
from tests.stack.fake_mailman import FakeMailman


@pytest.fixture
def site(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Iterator[Site]:
    """A site without Mailman: nobody listens at the discard port."""
    made = Site(tmp_path, "127.0.0.1:9", capsysbinary)
    yield made
    made.close()


@pytest.fixture
def fed(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], fake: FakeMailman) -> Iterator[Site]:
    """A site whose Mailman is the fake one."""
    made = Site(tmp_path, f"{fake.address[0]}:{fake.address[1]}", capsysbinary)
    yield made
    made.close()
