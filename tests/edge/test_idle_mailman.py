"""Whether Mailman is up is known where no mail comes, too."""

import asyncio
import contextlib
import io

import pytest

from mailgate.config import Endpoint, MailmanConfig
from mailgate.edge.log import EventLog
from mailgate.edge.mailman import Mailman, upstream
from mailgate.edge.telemetry import Telemetry
from tests.stack.fake_mailman import FakeMailman
from tests.stack.waiting import wait_until


async def test_a_mailman_that_ends_while_no_mail_comes_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "_UNHEARD", 0.02)
    log = EventLog(stream=io.StringIO())
    with contextlib.closing(log), FakeMailman() as fake:
        config = MailmanConfig.model_validate({"lmtp": str(Endpoint(*fake.address)), "probe_interval": "20ms"})
        mailman = Mailman(config, "gate.lists.test", Telemetry(log))
        changes: asyncio.Queue[bool] = asyncio.Queue()
        mailman.on_change = lambda: changes.put_nowait(mailman.up)
        watching = asyncio.create_task(mailman.watch())
        async with asyncio.timeout(60):
            await asyncio.to_thread(wait_until, lambda: fake.connections >= 2, "it is asked again and again")
            assert mailman.up
            assert changes.empty()
            fake.refuse()
            assert await changes.get() is False
            fake.accept()
            assert await changes.get() is True
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        mailman.close()
