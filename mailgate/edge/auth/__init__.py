"""Who sent a message, by SPF, DKIM, ARC, DMARC and the client's name: all at once, within one deadline.

Promises: a result for all that is on, by the deadline; a check that could not be made is `temperror`; whatever records
and messages make us do, the questions to the DNS are bounded for each check, and the event loop is late by one step.
How it fails: never with an exception (a bug is `temperror`, and the event `auth.failed`).
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mailgate.core import arc as chains
from mailgate.core import author, origin
from mailgate.core.auth import Arc, Authenticated, Dmarc, Iprev, Lookup, Signature, Spf
from mailgate.core.dkim import Signed
from mailgate.core.envelope import Client, Envelope
from mailgate.core.message import Message
from mailgate.core.signed_fields import Fields
from mailgate.edge.auth import arc, dkim, dmarc, iprev, octets, spf
from mailgate.edge.auth.asking import Asked, Asking
from mailgate.ports import Resolver, Telemetry
from mailgate.strays import caught
from mailgate.turns import Turns

# Questions of a message to the DNS. What real mail asks is far below; what a stranger can make us ask is these.
_SPF, _DKIM, _ARC, _DMARC, _IPREV = 50, 10, 51, 45, 5
_FOR_THE_REST = 0.1  # seconds before the deadline at which the DNS is not waited for any longer

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Case:
    """One message on its way. `deadline` is of the loop's clock; the DNS has to answer a little earlier."""

    envelope: Envelope
    message: Message
    client: Client
    authors: tuple[str, ...] | None
    deadline: float
    asked: Asked


class Authentication:
    """Use one for all messages, on one loop. What is on may be changed at any time."""

    def __init__(
        self,
        resolver: Resolver,
        telemetry: Telemetry,
        *,
        spf: bool = True,
        dkim: bool = True,
        arc: bool = True,
        dmarc: bool = True,
    ) -> None:
        self.spf, self.dkim, self.arc, self.dmarc = spf, dkim, arc, dmarc
        self._resolver = resolver
        self._telemetry = telemetry
        self._turns = Turns()

    async def check(self, envelope: Envelope, message: Message, client: Client, deadline: float) -> Authenticated:
        """What the checks come to for these octets, by `deadline` (of the loop's clock). `message` is as it was
        received, before anything of it is cut.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        client = replace(client, ip=origin.address(client.ip))  # no zone, of which no check can make anything
        authors = author.domains(message.head) if message.bounded else ()
        asked = Asked(deadline - _FOR_THE_REST, [])
        case = _Case(envelope, message, client, authors, deadline, asked)
        known = not spf.nobody(client)  # what comes by way of this host may have come from the author's
        of_author = dmarc.Checking(authors if self.dmarc else (), self._asking(case, _DMARC), client_known=known)
        early = asyncio.create_task(self._guarded(case, of_author.policies(), None))
        try:
            of_client, (signatures, chain), name = await asyncio.gather(
                self._guarded(case, self._spf(case), spf.unknown(client, envelope.sender, "not done in time")),
                self._signed(case),
                self._guarded(case, iprev.check(client, self._asking(case, _IPREV)), _no_name(client)),
            )
            result = await self._dmarc(case, of_author, of_client, signatures or ())
        finally:
            early.cancel()  # what has not been answered was not needed
        lookups: tuple[Lookup, ...] = tuple(asked.lookups)
        return Authenticated(of_client, signatures, chain, result, name, lookups, loop.time() - started)

    def _asking(self, case: _Case, most: int) -> Asking:
        return Asking(self._resolver, case.asked, most)

    async def _guarded(self, case: _Case, checking: Coroutine[Any, Any, _T], otherwise: _T) -> _T:
        """What a check comes to, or `otherwise` at the deadline, and for a bug of ours."""
        try:
            async with asyncio.timeout_at(case.deadline):
                return await self._faultless(checking, otherwise)
        except TimeoutError:
            return otherwise

    async def _faultless(self, checking: Coroutine[Any, Any, _T], otherwise: _T) -> _T:
        try:
            return await caught(checking)
        except Exception:  # noqa: BLE001  a check must not stop the mail
            self._telemetry.event("auth.failed", {"trace": traceback.format_exc()}, level="error")
            return otherwise

    async def _spf(self, case: _Case) -> tuple[Spf, ...]:
        if not self.spf:
            return ()
        return await spf.check(case.client, case.envelope.sender, self._asking(case, _SPF), self._turns)

    async def _signed(self, case: _Case) -> tuple[tuple[Signature, ...] | None, Arc | None]:
        """DKIM and ARC, which look at the same octets."""
        no_signatures = () if self.dkim else None
        no_chain = Arc("none", (), "no ARC set") if self.arc else None
        if not (self.dkim or self.arc) or not case.message.bounded:
            return no_signatures, no_chain
        late = "not done in time"
        unknown = (
            (Signature("temperror", "", "", "", "", 0, covered=True, why=late),) if self.dkim else None,
            Arc("temperror", (), late) if self.arc else None,
        )
        return await self._guarded(case, self._of_octets(case), unknown)

    async def _of_octets(self, case: _Case) -> tuple[tuple[Signature, ...] | None, Arc | None]:
        fields = await octets.fields(case.message, self._turns)
        found = dkim.signatures(fields, time.time()) if self.dkim else []
        chain = await self._turns.take(lambda: _chain(fields)) if self.arc else None
        signed = [one for one in found if isinstance(one, Signed)]
        if isinstance(chain, chains.Chain):
            signed.append(chain.newest)
        bodies = octets.Bodies(case.message, self._turns, signed)
        of_dkim = dkim.Checking(fields, bodies, self._asking(case, _DKIM), self._turns)
        try:
            signatures, result = await asyncio.gather(
                of_dkim.all(found, case.deadline), self._of_chain(case, chain, fields, bodies)
            )
        finally:
            bodies.give_up()
        return signatures if self.dkim else None, result

    async def _of_chain(
        self, case: _Case, chain: chains.Chain | Arc | None, fields: Fields, bodies: octets.Bodies
    ) -> Arc | None:
        if not isinstance(chain, chains.Chain):
            return chain
        asking = self._asking(case, _ARC)
        checking = dkim.Checking(fields, bodies, asking, self._turns)
        return await arc.check(chain, checking, asking, self._turns, case.deadline)

    async def _dmarc(
        self, case: _Case, checking: dmarc.Checking, of_client: tuple[Spf, ...], signatures: tuple[Signature, ...]
    ) -> Dmarc | None:
        if not self.dmarc:
            return None
        domain = case.authors[0] if case.authors else ""
        bug = Dmarc("temperror", domain, "", "none", testing=False, why="trouble of our own")
        return await self._faultless(checking.result(of_client, signatures, case.deadline), bug)


def _chain(fields: Fields) -> chains.Chain | Arc:
    if not chains.present(fields):
        return Arc("none", (), "no ARC set")
    try:
        return chains.chain(fields)
    except chains.Broken as error:
        return Arc("fail", (), str(error))


def _no_name(client: Client) -> Iprev | None:
    return Iprev("temperror", client.ip, "", "not done in time") if client.ip else None
