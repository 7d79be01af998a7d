"""A gate and a fake Mailman behind it, in a directory of their own: what the tests of this folder stand on.

Times are short, and with IMPATIENT so short that what hangs is given up in a moment: for tests in which nothing that
is well may take long. `close` fails when the gate wrote a traceback that the
test did not announce with `expect_trouble`.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mailgate.edge.spool import Database
from mailgate.edge.spool.listing import Person, Selection, listed
from tests.stack.client import Client, Result
from tests.stack.fake_mailman import FakeMailman
from tests.stack.fake_session import Manner
from tests.stack.gate import Gate, merged
from tests.stack.waiting import PATIENCE, wait_until

QUICK: dict[str, Any] = {
    "relay": {"budget": "20s"},
    "mailman": {"connect_timeout": "8s", "reply_timeout": "8s", "probe_interval": "0.1s"},
    "spool": {"retry_first": "0.1s", "retry_max": "0.2s"},
}
IMPATIENT: dict[str, Any] = {"mailman": {"connect_timeout": "2s", "reply_timeout": "2s"}}


class Pair:
    """The gate is not started yet; `settings` go over QUICK."""

    def __init__(self, settings: Mapping[str, Any] | None = None, manner: Manner = Manner()) -> None:  # noqa: B008
        self.directory = Path(tempfile.mkdtemp(prefix="mailgate-edge-"))
        self.directory.chmod(0o711)  # the gate is not root and must reach its own folder
        self.fake = FakeMailman(manner)
        self.gate = Gate(self.directory / "gate", self.fake.address)
        self.configure(settings or {})
        self._database: Database | None = None
        self._troubled = False

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Write the configuration: QUICK with `settings` over it."""
        self.gate.configure(merged(QUICK, settings))

    def client(self, *, lmtp: bool = True, **options: Any) -> Client:
        """A client at the LMTP door, or the SMTP door."""
        return Client(self.gate.lmtp if lmtp else self.gate.smtp, lmtp=lmtp, **options)

    def send(
        self,
        *recipients: str,
        octets: bytes = b"",
        sender: str = "bob@example.net",
        parameters: str = "",
        lmtp: bool = True,
    ) -> Result:
        """One message by a connection of its own, to the end."""
        with self.client(lmtp=lmtp) as client:
            result = client.deliver(sender, recipients, octets or mail("<m@example.net>"), parameters)
            client.quit()
        return result

    def mailman_is(self, manner: Manner) -> None:
        """From now on Mailman is of this manner, on new connections: those that are open are reset."""
        self.fake.refuse()
        self.fake.manner = manner
        self.fake.accept()

    def people(self, message_id: str = "") -> dict[str, Person]:
        """The recipients that the spool knows (of one message), by address; settled ones, too."""
        if self._database is None:
            if not self.gate.spool.exists():
                return {}
            self._database = Database(self.gate.spool, "gate.lists.test", serve=False)
        selection = Selection(ids=(message_id,) if message_id else ())
        return {one.address: one for found in listed(self._database, selection) for one in found.recipients}

    def states(self, message_id: str = "") -> dict[str, str]:
        """The same, the state only."""
        return {address: one.state for address, one in self.people(message_id).items()}

    def waiting(self) -> float:
        """How many messages wait in the spool to be replayed, as /metrics says it."""
        samples = self.gate.metrics()
        return sum(samples.get(f'mailgate_spool_messages{{state="{state}"}}', 0) for state in ("pending", "uncertain"))

    def wait_drained(self, deadline: float = PATIENCE) -> None:
        """Until nothing waits in the spool."""
        wait_until(lambda: self.waiting() == 0, "the spool is drained", deadline=deadline)

    def up(self) -> bool:
        """Is the breaker closed?"""
        return '"mailman": "up"' in self.gate.page("/readyz")[1]

    def connections(self) -> float:
        """How many sessions the gate counts at its doors."""
        return self.gate.metric("mailgate_connections")

    def settle(self) -> None:
        """Have Mailman behave as usual, wait until nothing is under way any more, and forget what Mailman took."""
        self.fake.behave()
        self.mailman_is(Manner())
        wait_until(self.up, "the breaker has closed")
        self.wait_drained()
        wait_until(lambda: self.connections() == 0, "all sessions have ended")
        self.fake.taken.clear()
        self.fake.commands.clear()

    def expect_trouble(self) -> None:
        """Tracebacks in the log are what this test asks for."""
        self._troubled = True

    def close(self) -> None:
        """Take all down."""
        try:
            traces = [event for event in self.gate.events() if "trace" in event]
            noise = self.gate.noise()
        finally:
            if self._database is not None:
                self._database.close()
            self.gate.close()
            self.fake.close()
            shutil.rmtree(self.directory)
        assert self._troubled or (not traces and not noise), f"{noise}\n" + "\n".join(one["trace"] for one in traces)


@contextmanager
def started(settings: Mapping[str, Any] | None = None, manner: Manner = Manner()) -> Iterator[Pair]:  # noqa: B008
    """A pair with its gate running."""
    pair = Pair(settings, manner)
    try:
        pair.gate.start()
        yield pair
    except BaseException:
        pair.expect_trouble()  # the test's own failure says more
        print(pair.gate.log.read_text()[-6000:])
        raise
    finally:
        pair.close()


def mail(message_id: str, body: bytes = b"A line.\r\n") -> bytes:
    """A small message."""
    head = f"From: Bob <bob@example.net>\r\nTo: list@lists.test\r\nSubject: A test\r\nMessage-ID: {message_id}\r\n"
    return head.encode() + b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\n\r\n" + body


def body(octets: bytes) -> bytes:
    """What is behind the header."""
    return octets.partition(b"\r\n\r\n")[2]


def at_once(jobs: int) -> ThreadPoolExecutor:
    """Threads for clients that speak at the same time."""
    return ThreadPoolExecutor(jobs, "client")
