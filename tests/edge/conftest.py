"""A pair that many tests share, since starting a gate takes most of a second."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.edge.pair import Pair, started


class _Shared:
    """The pair, once somebody asked for it; a new one when a test left the last one in disorder."""

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._pair: Pair | None = None

    def get(self) -> Pair:
        """The pair."""
        if self._pair is None:
            self._pair = self._undo.enter_context(started())
        return self._pair

    def close(self) -> None:
        """End it."""
        self._pair = None
        self._undo.close()


@pytest.fixture(scope="package")
def _shared() -> Iterator[_Shared]:
    shared = _Shared()
    yield shared
    shared.close()


@pytest.fixture
def pair(_shared: _Shared) -> Iterator[Pair]:
    """A gate with the settings of QUICK before a fake Mailman that has taken nothing yet."""
    pair = _shared.get()
    yield pair
    try:
        pair.settle()
    except TimeoutError:
        _shared.close()
        raise
