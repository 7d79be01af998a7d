"""A real rspamd of Debian in a directory, on a port and a unix socket of its own, run by an unprivileged user.

Its built-in rules only: no module that asks the DNS, redis or another server, and no configuration of the machine.
`start` returns when its normal worker answers.
"""

from pathlib import Path

from tests.stack.children import Child, account, me
from tests.stack.ports import Port
from tests.stack.program import Program

PROGRAM = "/usr/bin/rspamd"
SHARE = Path("/usr/share/rspamd")
_CONFIGURATION = """
options {{
  filters = "regexp,chartable";
  pidfile = "{directory}/pid";
  cache_file = "{directory}/symbols.cache";
  dynamic_conf = "{directory}/dynamic";
  history_file = "{directory}/history";
  hs_cache_dir = "{directory}/";
  tempdir = "{directory}";
  url_tld = "{directory}/tlds";
  control_socket = "{directory}/control.sock mode=0600";
  local_addrs = [];
  disable_hyperscan = true;
  dns {{ nameserver = ["127.0.0.1:{nowhere}"]; }}
}}
logging {{ type = "console"; level = "info"; }}
worker "normal" {{
  bind_socket = "127.0.0.1:{port}";
  bind_socket = "{directory}/rspamd.sock mode=0666";
  count = 1;
}}
actions {{ reject = 15; add_header = 6; greylist = 4; }}
lua = "{share}/rules/rspamd.lua"
"""


class Rspamd(Program):
    """Scores on `port` and on the unix socket `path`."""

    name = "rspamd"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, account("nobody"))
        self.path = directory / "rspamd.sock"
        self._nowhere = Port()  # no resolver is to be asked, and this one does not answer
        self._config = directory / "rspamd.conf"
        directory.mkdir(mode=0o755)
        self._config.write_text(
            _CONFIGURATION.format(directory=directory, share=SHARE, port=self.port.number, nowhere=self._nowhere.number)
        )
        (directory / "tlds").write_text("com\nexample\nnet\norg\ntest\n")  # to read all that exist takes it 25 s
        if self._drop:
            self._drop.own(directory)

    def begin(self) -> None:
        """Start it; `ready` waits until it listens."""
        owner = self._drop or me()
        here = [f"--var={name}={self.directory}" for name in ("CONFDIR", "LOCAL_CONFDIR", "DBDIR", "RUNDIR", "LOGDIR")]
        self._child = Child(
            [PROGRAM, "--no-fork", f"--config={self._config}", f"--user={owner.name}", "--insecure", *here],
            directory=self.directory,
            log=self.output,
            run_as=self._drop,
        )

    def close(self) -> None:
        """Kill it and give its ports back."""
        super().close()
        self._nowhere.close()
