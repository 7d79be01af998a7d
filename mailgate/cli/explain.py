"""`mailgate explain`: what the doors would find out of a message, and what would become of it.

The parts are those of the doors; nothing is sent on, stored or counted. The scorer and the name servers are asked.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailgate.cli.explain_page import Explained, as_object, show
from mailgate.cli.options import ConfigFile, Json, none_blank, not_blank, read_config
from mailgate.cli.output import fail, objects, say
from mailgate.config import Config
from mailgate.core import headers, origin, spam, stamp
from mailgate.core.envelope import Client, Envelope, Peer, address_octets, address_text
from mailgate.core.facts import MessageFacts, of_message
from mailgate.core.mbox import Unwrapper
from mailgate.core.message import Message, message
from mailgate.core.rules import after_acceptance, decide
from mailgate.core.verdict import Action

if TYPE_CHECKING:
    from mailgate.checking import Checking, Subject

_UNKNOWN = Peer("lmtp", "", "explain")


def explain(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The message as a file; - is stdin.")],
    client: Annotated[
        str | None, typer.Option(callback=not_blank, metavar="IP", help="The host that it comes from.")
    ] = None,
    helo: Annotated[
        str | None, typer.Option(callback=not_blank, metavar="NAME", help="What that host called itself.")
    ] = None,
    sender: Annotated[
        str | None,
        typer.Option("--from", callback=not_blank, metavar="ADDRESS", help="The reverse-path; '<>' is the null one."),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(callback=none_blank, metavar="ADDRESS", help="A recipient; may be repeated."),
    ] = None,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """What would become of a message, and why: every fact, the verdict with all its reasons, the headers put in front.

    Nothing is sent and nothing is stored; the scorer and the name servers are asked as they are for real mail. Without
    --client it comes from whom its header says (X-Mailgate-Client, or the topmost Received if it is Exim's), without
    --from from its Return-Path.

    For example:
      mailgate explain post.eml --client 192.0.2.7 --helo mx.example.net --from a@example.net --to list@example.org
      mailgate explain - --json < post.eml | jq .auth.dmarc

    Exit status: 0 done, 1 failed, 2 usage.
    """
    if client and not origin.address(client):
        raise typer.BadParameter(f"{client!r} is not an IP address", param_hint="--client")
    if helo and not client:
        raise typer.BadParameter("goes with --client", param_hint="--helo")
    read, _ = read_config(config)
    received = _read(file)
    told = Client(origin.address(client), helo or "", source="verdict") if client else None
    found = asyncio.run(_explained(read, received, told, _envelope(received, sender, to or [])))
    if as_json:
        objects([as_object(file, found)])
    else:
        show(file, found)


def _read(file: str) -> Message:
    try:
        octets = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise fail(f"{file}: {error.strerror}") from None
    unwrapper = Unwrapper()
    return message([unwrapper.feed(octets, last=True)], unwrapper.ends.bare_cr)


def _envelope(received: Message, sender: str | None, recipients: list[str]) -> Envelope:
    if sender is None:
        path = headers.first(received.head, b"return-path") if received.bounded else b""
        sender = address_text(path)
    octets = address_octets(sender).strip().removeprefix(b"<").removesuffix(b">")
    return Envelope(address_text(octets), tuple(dict.fromkeys(recipients)))


async def _explained(config: Config, received: Message, told: Client | None, envelope: Envelope) -> Explained:
    from mailgate.checking import Checking, Subject
    from mailgate.deadlines import Deadlines
    from mailgate.relay import new_gate_id
    from mailgate.wiring import Senders, scorers_of

    policy, telemetry = config.for_rules, _Heard()
    scorers, senders = scorers_of(config, telemetry), Senders(telemetry)
    checking = Checking(scorers, telemetry, Deadlines())
    senders.serve(config, [checking])
    try:
        secret = config.relay.client_secret_file.octets
        client = told or (origin.origin(received.exims_head, None, secret).client if received.bounded else Client())
        clean = headers.cut(received.head, config.authserv_id) if received.bounded else received.head
        subject = Subject(new_gate_id(), envelope, replace(received, head=clean), received, client, {})
        facts = _looked(config, subject)
        decision = decide(facts, policy)
        if decision.action is Action.ACCEPT and checking.lacks(facts, policy, client):
            facts = await _checked(config, checking, facts, subject)
            decision = decide(facts, policy)
        results = checking.field(config.authserv_id, facts, policy)
    finally:
        await scorers.close()
        await senders.close()
    ours = stamp.fields(subject.id, envelope, _UNKNOWN, config.hostname, time.time(), facts, policy)
    return Explained(subject, facts, policy, decision, after_acceptance(decision, policy), results + ours)


def _looked(config: Config, subject: Subject) -> MessageFacts:
    from mailgate.core.network_table import Table
    from mailgate.core.networks import span
    from mailgate.edge.networks import making, sources_of

    ip, now = subject.client.ip, time.time()
    skipped = spam.skipped(config.spam.policy, subject.message.size, ip, subject.envelope.recipients)
    facts = of_message(subject.message, subject.envelope.recipients, skipped)
    if not ip or spam.trusted(config.spam.skip_networks, ip):
        return facts
    at = span(ip)
    table = Table(making.made(sources_of(config), making.load(config.networks_table), now))
    return replace(facts, listed=table.find(at.family, at.first, now))


async def _checked(config: Config, checking: Checking, facts: MessageFacts, subject: Subject) -> MessageFacts:
    now = asyncio.get_running_loop().time()
    scan_by, auth_by = now + config.spam.timeout, now + config.auth.timeout
    return await checking.check(facts, subject, config.for_rules, scan_by, auth_by)


class _Heard:
    """Telemetry of this command: nothing is counted, trouble is said."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        pass

    def observe(self, name: str, value: float, exemplar: str = "", **labels: str) -> None:
        pass

    def event(self, name: str, fields: Mapping[str, object], *, level: str = "info") -> None:
        from mailgate.edge.log import as_text

        if level in {"warning", "error"}:
            say(as_text(datetime.now(UTC), name, level, fields))
