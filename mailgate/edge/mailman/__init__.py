"""Mailman's LMTP server: the connection, one transaction, and the whole as the relay sees it (`Mailman`)."""

from mailgate.edge.mailman.upstream import Mailman

__all__ = ["Mailman"]
