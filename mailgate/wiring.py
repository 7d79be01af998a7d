"""The parts that are loaded only when the configuration asks for them: what gives scores, and what checks senders.

For the daemon, and for `mailgate explain`, which asks the same of a message without one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mailgate.checking import Checking
from mailgate.config import Config
from mailgate.ports import Scorer, Telemetry
from mailgate.scanner import Scorers

if TYPE_CHECKING:
    from mailgate.edge.auth import Authentication
    from mailgate.edge.dns import Resolver


def scorers_of(config: Config, telemetry: Telemetry) -> Scorers:
    """What is asked for scores."""
    scorers: list[Scorer] = []
    if config.spam.engine == "spamd":
        from mailgate.edge.spamd import Spamd  # noqa: PLC0415

        scorers = [Spamd(at) for at in config.spam.servers]
    if config.spam.engine == "rspamd":
        from mailgate.edge.rspamd import Rspamd  # noqa: PLC0415

        scorers = [Rspamd(at) for at in config.spam.servers]
    return Scorers(
        scorers,
        telemetry,
        timeout=config.spam.timeout,
        connections=config.spam.connections,
        probe_interval=config.spam.probe_interval,
    )


class Senders:
    """What checks senders, the same for all who check messages."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._resolver: Resolver | None = None
        self._authentication: Authentication | None = None

    def serve(self, config: Config, checkings: Iterable[Checking]) -> None:
        """Have these check senders as the configuration says; again after it has changed."""
        if self._authentication is None and config.auth.enabled:
            from mailgate.edge import results  # noqa: PLC0415
            from mailgate.edge.auth import Authentication  # noqa: PLC0415
            from mailgate.edge.dns import Resolver, system_nameservers  # noqa: PLC0415

            self._resolver = Resolver(config.auth.nameservers or system_nameservers(), self._telemetry)
            self._authentication = Authentication(self._resolver, self._telemetry)
            for checking in checkings:
                checking.authenticator, checking.results = self._authentication, results.field
        if self._authentication:
            on = self._authentication
            on.spf, on.dkim, on.arc, on.dmarc = config.auth.spf, config.auth.dkim, config.auth.arc, config.auth.dmarc

    async def close(self) -> None:
        """Give back what is held open."""
        if self._resolver:
            await self._resolver.close()
