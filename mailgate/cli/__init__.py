"""The command `mailgate`: one module a group of verbs. Exit 0 done, 1 failed, 2 usage, 3 nothing matched."""

import gc

# What is loaded now stays: to look through it for garbage again and again is a fifth of the start. The daemon has
# bounds of its own once it has started.
gc.set_threshold(100_000)

from mailgate.cli.main import main  # noqa: E402

__all__ = ["main"]
