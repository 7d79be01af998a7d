"""A real spamd of Debian in a directory, on a port and a unix socket of its own, run by an unprivileged user.

Local tests only (`--local`), with the rules that Debian ships: it asks nobody, learns nothing, and reads no
configuration of the machine.
`start` returns when it listens, which takes it a few seconds of reading rules.
"""

from pathlib import Path

from tests.stack.children import Child, account
from tests.stack.program import Program

PROGRAM = "/usr/sbin/spamd"
RULES = "/usr/share/spamassassin"
# No rule that asks the network or learns; a message is spam from 4.0, where the modelled site has it, too.
_CONFIGURATION = "required_score 4.0\nuse_bayes 0\nreport_contact postmaster@lists.test\n"
_PLUGINS = ("BodyEval", "Check", "HeaderEval", "HTMLEval", "MIMEEval", "MIMEHeader", "RelayEval", "URIEval", "WLBLEval")


class Spamd(Program):
    """Scores on `port` and on the unix socket `path`, with `children` messages at once."""

    name = "spamd"

    def __init__(self, directory: Path, *, children: int = 2) -> None:
        super().__init__(directory, account("nobody"))
        self.path = directory / "spamd.sock"
        self._children = children
        directory.mkdir(mode=0o755)
        site = directory / "site"
        site.mkdir()
        (site / "local.cf").write_text(_CONFIGURATION)
        plugins = [f"loadplugin Mail::SpamAssassin::Plugin::{one}" for one in _PLUGINS]
        (site / "plugins.pre").write_text("\n".join([*plugins, ""]))
        if self._drop:
            self._drop.own(directory)

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
            log=self.output,
            run_as=self._drop,
        )
