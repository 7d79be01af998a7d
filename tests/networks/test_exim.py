"""The real Exim, and clients from many addresses of 127.0.0.0/8 and ::1: who is refused where, and how it reads."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.stack.children import remove, temporary_directory
from tests.stack.client import Client, Result
from tests.stack.gate import Gate
from tests.stack.mails import Mail, mails
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until

REFUSED = ["127.20.0.1", "127.20.3.4", "127.20.255.255", "127.23.0.7", "::1"]
TAKEN = ["127.0.0.1", "127.19.255.255", "127.21.0.1", "127.23.0.6", "127.23.0.8"]
BOTH_FAMILIES = {"SMTP_INTERFACE": "<; 127.0.0.1 ; ::1"}
SITE = {
    "blocked_nets": {"context": ["mx", "ferm"], "networks": ["127.20.0.1/16", "::1", "127.23.0.7-127.23.0.7"]},
    "of_the_web": {"context": ["varnish"], "networks": ["127.21.0.0/16"]},
    "held": {"context": ["mx"], "networks": ["127.24.0.0/16"]},
    "tagged": {"context": ["mx"], "networks": ["127.25.0.0/16"]},
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """With the site's list; everybody may read there."""
    made = temporary_directory("mailgate-lists-")
    made.chmod(0o755)
    (made / "site.json").write_text(json.dumps({"abuse_networks": SITE}))
    (made / "site.json").chmod(0o644)
    yield made
    remove(made)


def settings(folder: Path) -> dict[str, Any]:
    own, actions = str(folder / "own.txt"), {"held": "hold", "tagged": "tag"}
    return {"networks": {"files": [str(folder / "site.json")], "own_file": own, "actions": actions}}


def at(stack: Stack, source: str) -> tuple[str, int]:
    """Exim's address in that family."""
    return "::1" if ":" in source else "127.0.0.1", stack.exim.port.number


def post(stack: Stack, address: str, source: str, mark: str) -> tuple[Mail, Result]:
    """A post from there."""
    mail = mails()["plain"].at(address).marked(mark)
    with Client(at(stack, source), source=source) as client:
        result = client.deliver(mail.sender, mail.recipients, mail.octets, mail.parameters)
    return replace(mail, client=source), result


def test_listed_clients_are_refused_in_the_session(stack: Stack, a_list: str, folder: Path) -> None:
    gate = asked(stack, folder)
    for number, source in enumerate(REFUSED):
        mail, result = post(stack, a_list, source, f"refused{number}")
        (reply,) = result.final
        said = r"550 5\.7\.1 ([0-9a-z]{18}) your network is blocked here \(network-reject\)"
        found = re.fullmatch(said, str(reply))
        assert found, reply
        event = gate.wait_for_event("verdict.given", id=found[1])
        assert (event["client"], event["networks"]) == (source, ["blocked_nets"])
        assert event["message_id"] == mail.message_id
    for number, source in enumerate(TAKEN):
        assert post(stack, a_list, source, f"taken{number}")[1].codes == [250]
    wait_until(
        lambda: gate.metric("mailgate_recipients_total", outcome="delivered") == len(TAKEN), "they are delivered"
    )
    assert gate.metric("mailgate_network_hits_total", set="blocked_nets") == len(REFUSED)
    assert gate.metric("mailgate_network_drift_total", context="ferm") == len(REFUSED)
    assert stack.exim.bounces() == []


def asked(stack: Stack, folder: Path) -> Gate:
    """A gate that Exim asks, and Exim on both families."""
    gate = stack.start_gate(settings(folder), asked=True)
    host, port = gate.verdict
    stack.exim.set(BOTH_FAMILIES | {"MAILGATE_VERDICT": f"{host} {port}"})
    return gate


def test_held_and_tagged_mail_is_so_behind_the_queue(stack: Stack, a_list: str, folder: Path) -> None:
    gate = asked(stack, folder)
    held, result = post(stack, a_list, "127.24.1.2", "held")
    assert result.codes == [250]
    event = gate.wait_for_event("message.held", message_id=held.message_id)
    assert (event["client"], event["reasons"]) == ("127.24.1.2", ["network-hold"])
    tagged, result = post(stack, a_list, "127.25.1.2", "tagged")
    assert result.codes == [250]
    assert gate.wait_for_event("message.delivered", message_id=tagged.message_id)["reasons"] == ["network-tag"]
    assert gate.metric("mailgate_network_hits_total") == 2


def test_without_the_verdict_door_nobody_gets_a_bounce(stack: Stack, a_list: str, folder: Path) -> None:
    gate = stack.start_gate(settings(folder))
    mail, result = post(stack, a_list, "127.20.0.1", "behind")
    assert result.codes == [250]
    event = gate.wait_for_event("message.held", message_id=mail.message_id)
    assert (event["client"], event["reasons"]) == ("127.20.0.1", ["network-reject"])
    assert stack.exim.bounces() == []


def test_what_is_exported_is_dropped_before_helo(stack: Stack, a_list: str, folder: Path) -> None:
    blocked = folder / "blocked"
    stack.start_gate(settings(folder))
    gate = stack.gate
    assert gate is not None
    stack.exim.set(BOTH_FAMILIES | {"MAILGATE_BLOCKED": blocked})
    assert post(stack, a_list, "127.20.0.1", "nofile")[1].codes == [250]  # without the file nobody is blocked
    blocked.touch()
    blocked.chmod(0o666)  # the verb runs as the gate's user here
    folder.chmod(0o777)
    gate.cli("networks", "export", "--format", "exim", "--output", str(blocked))
    for source in REFUSED:
        with Client(at(stack, source), source=source, hello=False) as client:
            assert str(client.reply()) == "550 your network is blocked here"
    for number, source in enumerate(TAKEN):
        assert post(stack, a_list, source, f"free{number}")[1].codes == [250]
