"""Mail from hosts that a test machine has no addresses of: a front passes it on to Exim by the PROXY protocol."""

from tests.stack.client import Client, Result
from tests.stack.mails import Mail
from tests.stack.stack import Stack

FRONT = "127.0.66.1"  # what Exim lets say whom it passes on: all of 127/8 is ourselves, to SPF


def take_from_front(stack: Stack) -> None:
    """Have Exim believe the front."""
    stack.exim.set(stack.exim.macros | {"hosts_proxy": FRONT})


def post_from(stack: Stack, mail: Mail, host: str) -> Result:
    """Give it to Exim as from this host."""
    with Client(stack.exim.address, source=FRONT, hello=False) as client:
        client.send(f"PROXY TCP4 {host} 192.0.2.1 4711 25\r\n".encode())
        client.reply()
        client.hello("mx.example.org")
        return client.deliver(mail.sender, mail.recipients, mail.octets, mail.parameters)
