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
    from mailgate.edge.auth import Authenticator
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
    return Scorers(scorers, telemetry, timeout=config.spam.timeout, probe_interval=config.spam.probe_interval)


class Senders:
    """What checks senders, the same for all who check messages."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._resolver: Resolver | None = None
        self._authenticator: Authenticator | None = None

    def serve(self, config: Config, checkings: Iterable[Checking]) -> None:
        """Have these check senders as the configuration says; again after it has changed."""
        if self._authenticator:
            self._authenticator.config = config.auth
        elif config.auth.enabled:
            from mailgate.edge import results  # noqa: PLC0415
            from mailgate.edge.auth import Authenticator  # noqa: PLC0415
            from mailgate.edge.dns import Resolver, system_nameservers  # noqa: PLC0415

            self._resolver = Resolver(config.auth.nameservers or system_nameservers(), self._telemetry)
            self._authenticator = Authenticator(config.auth, self._resolver, self._telemetry)
            for checking in checkings:
                checking.authenticator, checking.results = self._authenticator, results.field

    async def close(self) -> None:
        """Give back what is held open."""
        if self._resolver:
            await self._resolver.close()
