"""The command `mailgate`: one module a group of verbs. Exit 0 done, 1 failed, 2 usage, 3 nothing matched."""

from mailgate.cli.main import main

__all__ = ["main"]
