"""Asking for the checks of a message, as the doors do."""

import asyncio

from mailgate.core.auth import Authenticated
from mailgate.core.envelope import Client, Envelope
from mailgate.core.message import Message, in_pieces, message
from mailgate.edge.auth import Authentication
from tests.auth.keys import MAIL

CLIENT = Client(ip="192.0.2.7", helo="plain.example.test")


async def check(
    authentication: Authentication,
    mail: bytes | Message = MAIL,
    *,
    client: Client = CLIENT,
    sender: str = "alice@example.test",
    seconds: float = 60.0,
) -> Authenticated:
    """What they come to within so many seconds."""
    deadline = asyncio.get_running_loop().time() + seconds
    envelope = Envelope(sender, ("list@lists.test",))
    return await authentication.check(envelope, mail if isinstance(mail, Message) else cut(mail), client, deadline)


def cut(mail: bytes) -> Message:
    """The mail in pieces, as a door has it."""
    return message(in_pieces([mail]))
