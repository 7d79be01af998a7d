"""What all tests share: the stack (tests/stack/fixtures.py)."""

import signal

pytest_plugins = ["tests.stack.fixtures"]

# A shell that starts the tests in the background has them ignore SIGINT, and all that they start as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
