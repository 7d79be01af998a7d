"""What all tests share: the stack (tests/stack/fixtures.py)."""

import signal

import pytest

pytest_plugins = ["tests.stack.fixtures"]

# A shell that starts the tests in the background has them ignore SIGINT, and all that they start as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What takes long begins first: else one worker is still at it when the others have ended.
_LONG = ("tests/whole/", "tests/test_stack.py", "tests/monitoring/", "tests/networks/", "tests/test_fake_mailman.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the real Exim and Mailman, and other long ones, in front; all else stays in its order."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))
