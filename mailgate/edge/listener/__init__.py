"""The relay door: LMTP and SMTP servers on aiosmtpd. `Listener` listens; `session` speaks; `wire` reads in bulk."""

from mailgate.edge.listener.listener import Listener

__all__ = ["Listener"]
