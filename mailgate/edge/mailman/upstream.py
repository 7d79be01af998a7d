"""Mailman as the relay sees it: a pool of connections behind a circuit breaker.

Promises: `deliver` answers for each recipient by its deadline; while Mailman is down it answers `unreached` at once;
fresh mail goes before replayed mail; a connection with a doubt about it is never used again.
How it fails and how that shows: every failure to reach Mailman opens the breaker (event `upstream.down`); a probe
that is greeted closes it (`upstream.up`), and deliveries start again one at a time (`core.breaker`), fresh ones beside
what is replayed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

from mailgate.config import MailmanConfig
from mailgate.core.breaker import Breaker
from mailgate.core.envelope import Envelope
from mailgate.core.message import Message
from mailgate.core.outcome import Outcome, Result
from mailgate.core.triage import all_alike, silence
from mailgate.edge.mailman.connection import Broken, Connection, open_connection
from mailgate.edge.mailman.transaction import Stale, Transaction
from mailgate.ports import DOT_PATIENCE, Telemetry

_IDLE = 60.0  # seconds a free connection is kept; Mailman's server closes them after 300
_UNHEARD = 60.0  # seconds without mail after which Mailman is asked whether it is there


class Mailman:
    """The next hop. `watch` must run as a task for the breaker to close again; `config` may be replaced.

    `on_change` is called when the breaker opened or closed.
    """

    def __init__(self, config: MailmanConfig, hostname: str, telemetry: Telemetry) -> None:
        self._config = config
        self.on_change: Callable[[], None] = lambda: None
        self._hostname = hostname
        self._telemetry = telemetry
        self._breaker = Breaker(config.connections)
        self._free: list[Connection] = []
        self._busy = [0, 0]  # slots that are taken: by fresh mail, by replayed mail
        self._answered = 0.0  # when a delivery was answered last, by the monotonic clock
        self._waiters: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = (deque(), deque())
        self._opened = asyncio.Event()

    @property
    def config(self) -> MailmanConfig:
        """The configuration; a new one holds for what begins from now on."""
        return self._config

    @config.setter
    def config(self, config: MailmanConfig) -> None:
        self._config = config
        self._breaker.resize(config.connections)
        self._wake()

    @property
    def up(self) -> bool:
        """False while the breaker is open."""
        return not self._breaker.is_open

    @property
    def reason(self) -> str:
        """Why the breaker is open."""
        return self._breaker.reason

    async def deliver(
        self, envelope: Envelope, message: Message, deadline: float, *, background: bool = False
    ) -> tuple[Outcome, ...]:
        """One outcome for each recipient, by `deadline` (of the loop's clock). `background`: fresh mail goes first."""
        count = len(envelope.recipients)
        try:
            if not self._enter_at_once(background):
                # For half of the time only: who begins with little time left ends uncertain.
                async with asyncio.timeout((deadline - asyncio.get_running_loop().time()) / 2):
                    await self._enter(background)
        except TimeoutError:
            return all_alike(Result.UNREACHED, silence("no connection to Mailman became free in time"), count)
        except Broken as error:
            return all_alike(Result.UNREACHED, silence(str(error)), count)
        try:
            return await self._attempt(envelope, message, deadline, DOT_PATIENCE if background else 1)
        except Broken as error:
            self._down(str(error))
            return all_alike(Result.UNREACHED, silence(str(error)), count)
        finally:
            self._leave(background)

    async def watch(self) -> None:
        """Probe while the breaker is open, and look whether it should be where no mail comes, while the daemon runs."""
        while True:
            if self.up:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_UNHEARD):
                        await self._opened.wait()
                await self._look()
                continue
            with contextlib.suppress(Broken):
                self._put_back(await self._connect())
                self._up()
                continue
            await asyncio.sleep(self.config.probe_interval)

    async def _look(self) -> None:
        """Is it there? Only where no delivery says so."""
        heard = self._free[-1].idle_since if self._free else float("-inf")
        if not self.up or any(self._busy) or time.monotonic() - heard < _UNHEARD:
            return
        try:
            (await self._connect()).close()
        except Broken as error:
            self._down(str(error))

    def close(self) -> None:
        """Close what is idle."""
        while self._free:
            self._free.pop().close()

    async def _attempt(
        self, envelope: Envelope, message: Message, deadline: float, patience: int
    ) -> tuple[Outcome, ...]:
        while True:
            connection = await self._take(deadline)
            began, wait = time.monotonic(), self._config.reply_timeout
            transaction = Transaction(connection, envelope, message, deadline, wait, wait * patience)
            try:
                outcomes = await transaction.run()
            except Stale:
                connection.close()
                continue
            except BaseException:
                connection.close()  # cancelled, or failed in a way we did not foresee: it is half used
                raise
            if transaction.trouble:
                self._telemetry.event("upstream.trouble", {"cause": transaction.trouble}, level="warning")
            if not transaction.lost:
                self._breaker.succeeded()
                self._answered = time.monotonic()
            elif not connection.expired or self._answered < began:
                self._down(transaction.trouble)
            # else Mailman has answered others meanwhile: it is this message that it does not answer
            self._put_back(connection)
            return outcomes

    # connections

    async def _take(self, deadline: float) -> Connection:
        there = self._config.lmtp
        while self._free:
            connection = self._free.pop()
            same = connection.endpoint is there or connection.endpoint == there
            if same and time.monotonic() - connection.idle_since < _IDLE and connection.usable:
                connection.reused = True
                return connection
            connection.close()
        return await self._connect(deadline)

    async def _connect(self, deadline: float = float("inf")) -> Connection:
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(deadline, now + self.config.connect_timeout)):
                return await open_connection(self.config.lmtp, self._hostname)
        except TimeoutError:
            raise Broken(f"{self.config.lmtp}: no greeting within mailman.connect_timeout") from None

    def _put_back(self, connection: Connection) -> None:
        if connection.usable and len(self._free) < self._config.connections:
            connection.idle_since = time.monotonic()
            self._free.append(connection)
        else:
            connection.close()

    # the breaker and its gate

    def _may_enter(self, background: bool) -> bool:  # noqa: FBT001  two queues, told apart by one bit
        """Is there a slot? Replayed mail keeps none from fresh mail that the breaker allows: it may wait for long."""
        fresh, replayed = self._busy
        if background:
            return fresh + replayed < self._breaker.allowed
        return fresh < self._breaker.allowed and fresh + replayed < self._breaker.width

    def _enter_at_once(self, background: bool) -> bool:  # noqa: FBT001
        """Take a slot if nobody has to wait. Raises Broken when the breaker is open."""
        if not self._breaker.allowed:
            raise Broken(f"Mailman is down: {self._breaker.reason}")
        if self._waiters[0] or (background and self._waiters[1]) or not self._may_enter(background):
            return False
        self._busy[background] += 1
        return True

    async def _enter(self, background: bool) -> None:  # noqa: FBT001
        """Take a slot, in turn. Raises Broken when the breaker is open or opens meanwhile."""
        slot = asyncio.get_running_loop().create_future()
        self._waiters[background].append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                self._leave(background)  # it was ours already
            else:
                with contextlib.suppress(ValueError):
                    self._waiters[background].remove(slot)
            raise
        if not self.up:
            self._leave(background)
            raise Broken(f"Mailman is down: {self._breaker.reason}")

    def _leave(self, background: bool) -> None:  # noqa: FBT001
        self._busy[background] -= 1
        self._wake()

    def _wake(self) -> None:
        """Hand free slots to who waits, fresh mail first; when the breaker is open, to everybody, to be told so."""
        for background, queue in enumerate(self._waiters):
            while queue and (not self.up or self._may_enter(bool(background))):
                slot = queue.popleft()
                if not slot.done():
                    self._busy[background] += 1
                    slot.set_result(None)

    def _down(self, reason: str) -> None:
        self.close()
        if self._breaker.failed(reason):
            self._opened.set()
            self._telemetry.event("upstream.down", {"cause": reason}, level="error")
            self._wake()
            self.on_change()

    def _up(self) -> None:
        self._opened.clear()
        if self._breaker.probed():
            self._telemetry.event("upstream.up", {}, level="info")
            self._wake()
            self.on_change()
