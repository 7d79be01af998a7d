"""What all tests share: the stack (tests/stack/fixtures.py)."""

pytest_plugins = ["tests.stack.fixtures"]
