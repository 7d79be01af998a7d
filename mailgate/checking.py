"""What of a message costs time to know: its spam score, and who vouches for its sender. Both doors ask for it here.

Promises: the two are found out together, each by its own deadline, even if what finds it out has a bug; a bug in the
checks of the sender costs their results, never the mail.
How it fails: without results the message is judged without them, and the event `auth.failed` says why.
"""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass, replace

from mailgate.core import auth, auth_policy
from mailgate.core.auth import Authenticated
from mailgate.core.envelope import Client, Envelope
from mailgate.core.facts import MessageFacts
from mailgate.core.message import Message
from mailgate.core.rules import Policy
from mailgate.core.scan import Scored, Unscored
from mailgate.deadlines import Deadlines
from mailgate.ports import Authenticator, Results, Scanner, Telemetry
from mailgate.strays import Stray, caught

_GRACE = 1.0  # seconds past its deadline after which an edge that should have answered is not waited for


@dataclass(frozen=True, slots=True)
class Subject:
    """A message under its gate id. `received` is as it came, which is what signatures are of; `message` is without
    what was forged. `took` is filled in: seconds by stage.
    """

    id: str
    envelope: Envelope
    message: Message
    received: Message
    client: Client
    took: dict[str, float]


class Checking:
    """Finds out what facts lack. `authenticator` and `results` are given at the start, or there is none of that."""

    def __init__(self, scanner: Scanner, telemetry: Telemetry, deadlines: Deadlines) -> None:
        self._scanner = scanner
        self._telemetry = telemetry
        self._deadlines = deadlines
        self.authenticator: Authenticator | None = None
        self.results: Results | None = None

    def lacks(self, facts: MessageFacts, policy: Policy, client: Client) -> bool:
        """Is there anything to find out?"""
        return facts.scan is None or self._unvouched(facts, policy, client)

    def _unvouched(self, facts: MessageFacts, policy: Policy, client: Client) -> bool:
        if not policy.auth.enabled or facts.auth is not None or self.authenticator is None:
            return False
        return not auth_policy.skipped(policy.auth, client)

    async def check(
        self, facts: MessageFacts, subject: Subject, policy: Policy, scan_by: float, auth_by: float
    ) -> MessageFacts:
        """The facts with what they lacked, each by its deadline (of the loop's clock) and a second."""
        unvouched = self._unvouched(facts, policy, subject.client)
        if not unvouched:
            return replace(facts, scan=await self._scan(subject, scan_by)) if facts.scan is None else facts
        if facts.scan is not None:
            return replace(facts, auth=await self._authenticate(subject, auth_by))
        async with asyncio.TaskGroup() as together:
            scan = together.create_task(self._scan(subject, scan_by))
            found = together.create_task(self._authenticate(subject, auth_by))
        return replace(facts, scan=scan.result(), auth=found.result())

    async def _scan(self, subject: Subject, deadline: float) -> Scored | Unscored:
        found = self._scanner.scan(subject.envelope, subject.message, subject.client, deadline, subject.id)
        started = asyncio.get_running_loop().time()
        try:
            return await self._deadlines.wait(caught(found), deadline + _GRACE)
        except TimeoutError:
            return Unscored("timeout", "the scan did not end in time")
        except Stray:
            failed = {"id": subject.id, "trace": traceback.format_exc()}
            self._telemetry.event("spam.failed", failed, level="error")
            return Unscored("error", "trouble of our own")
        finally:
            subject.took["spam"] = round(asyncio.get_running_loop().time() - started, 4)

    async def _authenticate(self, subject: Subject, deadline: float) -> Authenticated | None:
        assert self.authenticator is not None
        loop = asyncio.get_running_loop()
        started = loop.time()
        checks = self.authenticator.check(subject.envelope, subject.received, subject.client, deadline)
        try:
            found = await self._deadlines.wait(caught(checks), deadline + _GRACE)
        except Exception:  # noqa: BLE001  what a stranger wrote into a header must not keep his mail in Exim's queue
            failed = {"id": subject.id, "trace": traceback.format_exc()}
            self._telemetry.event("auth.failed", failed, level="error")
            return None
        finally:
            subject.took["auth"] = round(loop.time() - started, 4)
        self._telemetry.observe("stage_seconds", loop.time() - started, subject.id, stage="auth")
        for method, result in auth.results(found):
            self._telemetry.count("auth_results", method=method, result=result)
        return found

    def field(self, authserv_id: str, facts: MessageFacts, policy: Policy) -> bytes:
        """The header field that says what was found; nothing where checks are off."""
        return self.results(authserv_id, facts.auth) if policy.auth.enabled and self.results else b""
