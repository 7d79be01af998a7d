"""Has the client's address a name that has this address? RFC 8601 §3."""

from __future__ import annotations

import asyncio
import ipaddress

from mailgate.core.auth import Iprev, RecordType
from mailgate.core.envelope import Client
from mailgate.edge.auth.asking import Asking

_MOST = 4  # names that are looked at


async def check(client: Client, asking: Asking) -> Iprev | None:
    """What it comes to; None for a client without an address."""
    try:
        address = ipaddress.ip_address(client.ip)
    except ValueError:
        return None
    if client.host:
        return Iprev("pass", client.ip, client.host, "as our MTA found")
    reverse = await asking.ask(address.reverse_pointer, "PTR")
    if not reverse.known:
        return Iprev("temperror", client.ip, "", f"PTR: {reverse.answer}")
    if not reverse.records:
        return Iprev("permerror", client.ip, "", f"no PTR ({reverse.answer})")
    names = [name.decode("ascii", "replace") for name in reverse.records[:_MOST]]
    record: RecordType = "A" if address.version == 4 else "AAAA"
    forward = await asyncio.gather(*(asking.ask(name, record) for name in names))
    wanted = str(address).encode()
    for name, found in zip(names, forward, strict=True):
        if wanted in found.records:
            return Iprev("pass", client.ip, name, "")
    if unknown := [found.answer for found in forward if not found.known]:
        return Iprev("temperror", client.ip, "", f"{record}: {unknown[0]}")
    return Iprev("fail", client.ip, "", f"{names[0]} has another address")
