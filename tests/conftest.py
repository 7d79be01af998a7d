"""What all tests share: the stack (tests/stack/fixtures.py), and which worker does what when several share the work."""

import gc
import signal

import pytest
from xdist.scheduler import LoadFileScheduling

pytest_plugins = ["tests.stack.fixtures"]

# A shell that starts the tests in the background has them ignore SIGINT, and all that they start as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Files that one worker does, in this order, since to start a Mailman of its own for each costs many seconds.
_SHARING = (
    ("tests/whole/test_outage.py", "tests/test_stack.py", "tests/test_fake_mailman.py", "tests/health/test_mailman.py",
     "tests/monitoring/test_live.py"),  # which ends with a dead one
    ("tests/whole/test_asked.py", "tests/whole/test_octets.py", "tests/whole/test_senders.py",
     "tests/whole/test_disk.py", "tests/whole/test_debian.py", "tests/whole/test_no_such_list.py",
     "tests/networks/test_exim.py", "tests/spam/test_mailman_rule.py"),
)  # fmt: skip
# What takes long begins first: else one worker is still at it when the others have ended.
_LONG = (
    *(file for files in _SHARING for file in files),
    "tests/whole/",
    "tests/networks/test_million.py",
    "tests/networks/",
    "tests/edge/",
    "tests/spam/",
)
_TOGETHER = {file: files[0] for files in _SHARING for file in files}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the real Exim and Mailman, and other long ones, in front; all else stays in its order."""

    def place(item: pytest.Item) -> int:
        return next((n for n, name in enumerate(_LONG) if item.nodeid.startswith(name)), len(_LONG))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What is there by now stays: to look through five thousand tests for garbage again and again takes long."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling:
    """A file a worker, in our order."""
    return Scheduler(config, log)


class Scheduler(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives a file, or those that share a Mailman, to one worker; what takes long first."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return _TOGETHER.get(file, file)
