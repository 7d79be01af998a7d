"""The stack as pytest fixtures; tests/conftest.py loads this as a plugin.

`stack` is made once for the whole run (Mailman takes its six seconds to start), and put in order before each test.
`gate`, `fake` and `a_list` are new for each test. When a test fails, the ends of the logs are shown with it.
"""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.stack.fake_mailman import FakeMailman
from tests.stack.gate import Gate
from tests.stack.stack import Stack

_TAIL = 40  # lines of each log


@pytest.fixture(scope="session")
def _session_stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.fixture
def stack(_session_stack: Stack) -> Iterator[Stack]:
    """Exim and Mailman, running, with nothing between them but the recorders, whose records are empty."""
    _session_stack.restore()
    yield _session_stack
    _session_stack.direct()


@pytest.fixture(scope="session")
def stack_with_long_lines() -> Iterator[Stack]:
    """A second stack, of its own, whose Mailman takes lines of any length, and the gate's word for who vouches for a
    sender. Costs some seconds: for what needs it.
    """
    with Stack(long_lines=True, trusting=True) as stack:
        yield stack


@pytest.fixture
def gate(stack: Stack) -> Gate:
    """A gate with the settings of the tests and an empty spool, between Exim and Mailman; or `stack.start_gate`."""
    return stack.start_gate()


@pytest.fixture
def a_list(stack: Stack) -> str:
    """The address of a new list that takes any post."""
    return stack.new_list()


@pytest.fixture
def fake() -> Iterator[FakeMailman]:
    """A stand-in for Mailman's LMTP server that can be told to misbehave."""
    with FakeMailman() as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of the logs with a failure."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(stack, Stack):
        logs = [stack.exim.log, stack.mailman.var / "logs" / "mailman.log"]
        logs += [stack.gate.log] if stack.gate else []
        report.sections += [
            (f"the end of {log.relative_to(stack.directory)}", _end(log)) for log in logs if log.exists()
        ]
    return report


def _end(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL:])
