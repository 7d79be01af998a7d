"""A real spamd of Debian in a directory, on a port and a unix socket of its own, run by an unprivileged user.

Local tests only (`--local`), with the rules that Debian ships: it asks nobody, learns nothing, and reads no
configuration of the machine.
`start` returns when it listens, which takes it a few seconds of reading rules.
"""

import os
import signal
from pathlib import Path

from tests.stack.children import Child, account, members
from tests.stack.ports import Port
from tests.stack.waiting import wait_until

PROGRAM = "/usr/sbin/spamd"
RULES = "/usr/share/spamassassin"
# No rule that asks the network or learns; a message is spam from 4.0, where the modelled site has it, too.
_CONFIGURATION = "required_score 4.0\nuse_bayes 0\nreport_contact postmaster@lists.test\n"
_PLUGINS = ("BodyEval", "Check", "HeaderEval", "HTMLEval", "MIMEEval", "MIMEHeader", "RelayEval", "URIEval", "WLBLEval")


class Spamd:
    """Scores on `port` and on the unix socket `path`, with `children` messages at once."""

    def __init__(self, directory: Path, *, children: int = 2) -> None:
        self.directory = directory
        self.port = Port()
        self.path = directory / "spamd.sock"
        self.log = directory / "output"
        self._children = children
        self._drop = account("nobody")
        self._child: Child | None = None
        directory.mkdir(mode=0o755)
        site = directory / "site"
        site.mkdir()
        (site / "local.cf").write_text(_CONFIGURATION)
        plugins = [f"loadplugin Mail::SpamAssassin::Plugin::{one}" for one in _PLUGINS]
        (site / "plugins.pre").write_text("\n".join([*plugins, ""]))
        if self._drop:
            self._drop.own(directory)

    @property
    def address(self) -> tuple[str, int]:
        """Where it scores by TCP."""
        return self.port.address

    def begin(self) -> None:
        """Start it; `ready` waits until it listens."""
        self._child = Child(
            [
                PROGRAM,
                "--local",
                "--nouser-config",
                f"--max-children={self._children}",
                f"--min-children={self._children}",
                f"--configpath={RULES}",
                f"--siteconfigpath={self.directory / 'site'}",
                f"--listen={self.port}",
                f"--listen={self.path}",
                f"--pidfile={self.directory / 'pid'}",
                "--syslog=stderr",
            ],
            directory=self.directory,
            log=self.log,
            run_as=self._drop,
        )

    def ready(self, deadline: float = 60.0) -> None:
        """Wait until it listens."""
        child = self._child
        assert child is not None
        wait_until(lambda: not child.running or self.port.open(), "spamd listens", deadline=deadline)
        if not child.running:
            raise RuntimeError(f"spamd ended: {self.log.read_text()}")

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.begin()
        self.ready()

    def freeze(self) -> None:
        """Stop it and its children in their tracks (SIGSTOP): it takes connections and never answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once (SIGKILL): its port refuses connections."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def close(self) -> None:
        """Kill it and give its port back."""
        self.kill()
        self.port.close()

    def _signal(self, number: signal.Signals) -> None:
        for pid in members(self._child.pid) if self._child else []:
            os.kill(pid, number)
