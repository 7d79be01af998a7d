"""Asking for the checks of a message, as the doors do."""

import asyncio

from mailgate.core.auth import Authenticated
from mailgate.core.envelope import Client, Envelope
from mailgate.core.message import in_pieces, message
from mailgate.edge.auth import Authentication
from tests.auth.keys import MAIL

CLIENT = Client(ip="192.0.2.7", helo="plain.example.test")


async def check(
    authentication: Authentication,
    mail: bytes = MAIL,
    *,
    client: Client = CLIENT,
    sender: str = "alice@example.test",
    seconds: float = 10.0,
) -> Authenticated:
    """What they come to within so many seconds."""
    deadline = asyncio.get_running_loop().time() + seconds
    envelope = Envelope(sender, ("list@lists.test",))
    return await authentication.check(envelope, message(in_pieces([mail])), client, deadline)
