"""All of it together: Exim → recorder → mailgate → recorder → Mailman, in one directory under the temporary one.

`with Stack() as stack:` returns when Exim and Mailman answer, and takes all down at its end, also after a failure or
Ctrl-C; a test run that is killed leaves that to the reaper (`children.py`). Until `start_gate` is called Exim's mail
goes straight to Mailman, which is what mailgate is measured against. The directory is removed, unless
MAILGATE_KEEP_STACK is set in the environment.
"""

import os
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.stack.children import remove, temporary_directory
from tests.stack.client import Client, Result
from tests.stack.exim import Exim
from tests.stack.gate import Gate, Settings, merged
from tests.stack.mailman import Mailman
from tests.stack.mails import Mail
from tests.stack.wire import Recorder


class Stack:
    """The programs and the wire between them. `gate` is the one started last, if any."""

    def __init__(self, *, long_lines: bool = False, trusting: bool = False) -> None:
        """With `trusting` Mailman takes over what the gate says of senders."""
        self._undo = ExitStack()
        self._lists = 0
        self._gates = 0
        self.gate: Gate | None = None
        if os.environ.get("MAILGATE_KEEP_STACK"):
            self.directory = Path(tempfile.mkdtemp(prefix="mailgate-stack-"))
        else:
            self.directory = temporary_directory("mailgate-stack-")
            self._undo.callback(remove, self.directory)
        self.directory.chmod(0o711)  # the programs are not root and must reach their own folders
        try:
            self.mailman = Mailman(
                self.directory / "mailman", long_lines=long_lines, trusts="gate.lists.test" if trusting else ""
            )
            self._undo.callback(self.mailman.close)
            self.to_mailman = Recorder(self.mailman.address, "to-mailman")
            self._undo.callback(self.to_mailman.close)
            self.to_gate = Recorder(self.to_mailman.address, "to-gate")
            self._undo.callback(self.to_gate.close)
            self.exim = Exim(self.directory / "exim", self.to_gate.address)
            self._undo.callback(self.exim.close)
        except BaseException:
            self._undo.close()
            raise

    def start(self) -> None:
        """Start Exim and Mailman, together, and wait until both answer."""
        self.mailman.begin()
        self.exim.begin()
        self.exim.ready()
        self.mailman.ready()

    def close(self) -> None:
        """Take all down."""
        if self.gate is not None:
            self._undo.callback(self.gate.close)
        self._undo.close()

    def start_gate(
        self,
        settings: Settings | None = None,
        *,
        mailman: tuple[str, int] | None = None,
        environment: Mapping[str, str] | None = None,
        verdict: bool = False,
        asked: bool = False,
    ) -> Gate:
        """Put a gate, with an empty spool, between Exim and Mailman (or what listens at `mailman`). `verdict`: it has a
        verdict door; `asked`: and Exim asks there (`ask`).
        """
        gate = self.new_gate(settings, mailman=mailman)
        if verdict or asked:
            host, port = gate.verdict
            gate.configure(merged(settings or {}, {"verdict": {"listen": [f"{host}:{port}"]}}))
        gate.start(environment)
        self.to_gate.upstream = gate.lmtp
        if asked:
            self.ask()
        return gate

    def ask(self) -> None:
        """Have Exim ask the gate's verdict door before it accepts a message."""
        assert self.gate is not None
        host, port = self.gate.verdict
        self.exim.set({"MAILGATE_VERDICT": f"{host} {port}", "MAILGATE_PATIENCE": "6s"})

    def new_gate(self, settings: Settings | None = None, *, mailman: tuple[str, int] | None = None) -> Gate:
        """A gate that is not started, nor given Exim's mail yet. The one before it is ended."""
        self.direct()
        self._gates += 1
        directory = self.directory / f"gate-{self._gates}"
        self.gate = Gate(directory, mailman or self.to_mailman.address, settings)
        return self.gate

    def direct(self) -> None:
        """Take the gate away: Exim hands straight to Mailman."""
        self.to_gate.upstream = self.to_mailman.address
        if self.gate is not None:
            self.gate.close()
            self.gate = None

    def stop_mailman(self) -> None:
        """Stop Mailman; to connect to it is then refused."""
        self.to_mailman.refuse()
        if self.gate is None:
            self.to_gate.refuse()
        self.mailman.stop()

    def start_mailman(self) -> None:
        """Start Mailman again and wait until it answers."""
        self.mailman.start()
        self.to_mailman.accept()
        self.to_gate.accept()

    def restore(self) -> None:
        """Have Exim and Mailman run, joined directly, whatever a test has done to them; the records are empty."""
        self.direct()
        self.mailman.thaw()
        if not self.mailman.running:
            self.mailman.start()
        if not self.exim.running:
            self.exim.start()
        self.exim.set()
        self.exim.forget()
        for wire in (self.to_gate, self.to_mailman):
            wire.accept()
            wire.forget()

    def new_list(self) -> str:
        """The address of a list that nothing has been posted to."""
        self._lists += 1
        return self.mailman.create_list(f"list{self._lists}")

    def post(self, mail: Mail) -> Result:
        """Give a mail to Exim, from the mail's own client address."""
        with Client(self.exim.address, source=mail.client) as client:
            return client.deliver(mail.sender, mail.recipients, mail.octets, mail.parameters)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
