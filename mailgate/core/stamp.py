"""The header fields that mailgate puts in front of a message, but for Authentication-Results, which stands before them.

DESIGN §7 is the contract; each field's own module says what it promises.
"""

from __future__ import annotations

from mailgate.core import headers, networks, spam, spam_fields
from mailgate.core.envelope import Envelope, Peer
from mailgate.core.facts import MessageFacts
from mailgate.core.rules import Policy
from mailgate.core.scan import Scored


def fields(
    gate_id: str, envelope: Envelope, peer: Peer, hostname: str, arrived: float, facts: MessageFacts, policy: Policy
) -> bytes:
    """The whole fields, in their order. `arrived` in seconds since the epoch."""
    ours = headers.received(envelope, peer, hostname, gate_id, arrived)
    if isinstance(facts.scan, Scored):
        ours += spam_fields.of_score(facts.scan, spam.thresholds(policy.spam, envelope.recipients))
    elif facts.scan:
        ours += spam_fields.without_score(facts.scan)
    return ours + networks.field(policy.networks, facts.listed) + headers.field("X-Mailgate-Id", gate_id)
