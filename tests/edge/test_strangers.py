"""Who has no business at a door is not let in, however fast he is gone: on the loop that the daemon runs on."""

import asyncio
import socket
import struct
from typing import Any

import pytest
import uvloop

from mailgate import config as configuration
from mailgate.edge.listener import Listener
from mailgate.edge.verdictport import VerdictPort
from tests.edge.pair import mail
from tests.edge.test_own_faults import Telemetry
from tests.spam.kit import until
from tests.stack.gate import merged
from tests.stack.ports import Port
from tests.verdict.asking import received, rspamc

OCTETS = {
    "lmtp": b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<list@lists.test>\r\nDATA\r\n" + mail("<gone@example.net>") + b".\r\n",
    "smtp": b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<list@lists.test>\r\nDATA\r\n" + mail("<gone@example.net>") + b".\r\n",
    "verdict": rspamc(received() + mail("<gone@example.net>")),
}


def say_all_and_reset(port: Port, octets: bytes) -> None:
    """Everything at once, and a reset behind it: who accepts the connection afterwards can't ask whose it is."""
    with socket.create_connection(port.address) as connection:
        connection.sendall(octets)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("door", OCTETS)
def test_a_stranger_who_is_gone_before_he_is_let_in(door: str) -> None:
    port, telemetry = Port(), Telemetry()
    at = {"verdict": {"listen": [str(port)]}} if door == "verdict" else {"relay": {door: [str(port)]}}
    tree = merged({"hostname": "gate.lists.test", "relay": {"trusted_peers": ["192.0.2.0/24"]}}, at)
    taken: list[object] = []

    async def take(*arguments: Any) -> Any:
        taken.append(arguments)

    async def story() -> None:
        config = configuration.parse(tree)
        doors = Listener(config, take, take, telemetry), VerdictPort(config, take, take, telemetry)  # type: ignore[arg-type]
        listening = doors[1] if door == "verdict" else doors[0]
        await listening.start()
        try:
            say_all_and_reset(port, OCTETS[door])  # while the loop stands still
            await until(lambda: taken or telemetry.events, "he was let in, or not")
        finally:
            await listening.stop()

    uvloop.run(asyncio.wait_for(story(), 10))
    port.close()
    assert not taken
    ((event, fields),) = telemetry.events
    assert (event, fields["peer"], fields["cause"]) == ("peer.refused", "unknown", "is not one of our trusted peers")
