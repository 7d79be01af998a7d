"""The act about the site's list of abusive networks: a client on it is refused in the session."""

import re
from dataclasses import replace
from pathlib import Path

from tests.demo.scene import Demo
from tests.stack.gate import Gate, Settings
from tests.stack.mails import Mail, mails
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until

_CLIENT = "127.77.0.5"
_LIST = "abuse_networks:\n  bombers: {{context: [mx, ferm], networks: [{network}], comment: subscription bombing}}\n"


def settings(stack: Stack) -> Settings:
    """A list that names the client's network. (The gate is told before it starts; it need not be.)"""
    _write(stack, "127.77.0.0/16")
    return {"networks": {"files": [str(_file(stack))], "own_file": str(stack.directory / "own-networks.txt")}}


def show_block(demo: Demo, stack: Stack, gate: Gate, address: str) -> list[Mail]:
    """A post that is refused, and one that is not any more; that one is in Mailman."""
    plain = replace(mails()["plain"].at(address), client=_CLIENT)
    blocked, free = plain.marked("from-a-listed-network"), plain.marked("off-the-list")

    [reply] = stack.post(blocked).final
    demo.say(f"Exim to {_CLIENT}, behind the final dot: {reply}")
    found = re.fullmatch(r"550 5\.7\.1 (\w{18}) your network is blocked here \(network-reject\)", str(reply))
    known = found and gate.wait_for_event("verdict.given", id=found[1])
    demo.check(
        bool(known and known["networks"] == ["bombers"]),
        "it is refused in the session; the log knows which set lists it, the sender is not told",
    )
    demo.show(gate.cli("networks", "check", _CLIENT), f"mailgate networks check {_CLIENT}")

    loads = len(gate.events("networks.loaded"))
    _write(stack, "198.51.100.0/24")
    demo.say("The list is edited, and nobody is told.")
    wait_until(lambda: len(gate.events("networks.loaded")) > loads, "the new list is in force")
    demo.post_all(stack, [free])
    return [free]


def _file(stack: Stack) -> Path:
    return stack.directory / "abuse.yaml"


def _write(stack: Stack, network: str) -> None:
    new = _file(stack).with_suffix(".new")
    new.write_text(_LIST.format(network=network))
    new.chmod(0o644)  # the gate is not root
    new.rename(_file(stack))
