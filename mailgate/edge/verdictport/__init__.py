"""The verdict door: what Exim's `spam` condition connects to. `VerdictPort` listens; `session` reads and answers."""

from mailgate.edge.verdictport.port import VerdictPort

__all__ = ["VerdictPort"]
