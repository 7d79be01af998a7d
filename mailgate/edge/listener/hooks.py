"""What aiosmtpd asks its handler about MAIL and RCPT: the unusual ones, which the session did not do at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailgate.edge.listener.session import Session

MAX_RECIPIENTS = 1000  # RFC 5321 §4.5.3.1.8 asks for 100
MAIL_TAKEN = b"250 2.1.0 Ok\r\n"
RCPT_TAKEN = b"250 2.1.5 Ok\r\n"


@cache
def commands_of(session: type) -> Mapping[str, str]:
    """The name of the method that does a command; without those of aiosmtpd that no door of ours offers."""
    verbs = [name.removeprefix("smtp_") for name in dir(session) if name.startswith("smtp_")]
    return MappingProxyType({verb: f"smtp_{verb}" for verb in verbs if verb not in {"AUTH", "STARTTLS"}})


class Hooks:
    """What aiosmtpd asks its handler."""

    def __dir__(self) -> list[str]:
        return ["handle_MAIL", "handle_RCPT"]  # aiosmtpd looks through all members for every session

    async def handle_MAIL(  # noqa: N802  aiosmtpd's name
        self, server: Session, _session: Any, envelope: Any, address: str, options: list[str]
    ) -> str | bytes:
        if not server.listener.has_room:
            return "452 4.3.1 too much mail in flight, try again later"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return MAIL_TAKEN[:-2]

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, _server: Session, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str | bytes:
        if address == "<>":
            return "553 5.1.3 the null path is no recipient"
        if len(envelope.rcpt_tos) >= MAX_RECIPIENTS:
            return "452 4.5.3 too many recipients"  # RFC 5321 §4.5.3.1.10
        envelope.rcpt_tos.append(address)
        return RCPT_TAKEN[:-2]
