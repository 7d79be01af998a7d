"""Where the client of a message is listed: the same question at both doors, counted once a message.

Promises: a trusted relay (`spam.skip_networks`) is not looked up. A look-up waits for nothing.
"""

from __future__ import annotations

import time
from collections import Counter

from mailgate.core import spam
from mailgate.core.networks import NetworkSet
from mailgate.core.rules import Policy
from mailgate.ports import Networks, Telemetry


class Nothing:
    """No lists at all."""

    def find(self, ip: str, now: float) -> tuple[NetworkSet, ...]:  # noqa: ARG002  as ports.Networks has it
        """None."""
        return ()


class Blocking:
    """Looks clients up. `hits`: how often each set that mailgate acts on was found."""

    def __init__(self, networks: Networks, telemetry: Telemetry) -> None:
        self.hits: Counter[str] = Counter()
        self._networks = networks
        self._telemetry = telemetry

    def look(self, policy: Policy, ip: str, *, again: bool = False) -> tuple[NetworkSet, ...]:
        """The sets that list this client ("": unknown). `again`: the message was counted at the other door."""
        found = self._networks.find(ip, time.time())
        if not found or spam.trusted(policy.spam.skip_networks, ip):
            return ()
        if not again:
            self._count(policy, found)
        return found

    def _count(self, policy: Policy, found: tuple[NetworkSet, ...]) -> None:
        for name in {one.name for one in found if policy.networks.action_of(one)}:
            self.hits[name] += 1
            self._telemetry.count("network_hits", set=name)
        for context in policy.networks.drifted(found):
            self._telemetry.count("network_drift", context=context)
