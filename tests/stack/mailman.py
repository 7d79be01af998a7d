"""A real Mailman core (`.parts/mailman`, see install.sh) in a directory and on ports of its own.

Its master runs in the foreground as an unprivileged user, with only those runners that take a post from LMTP to the
archive, and the REST interface, by which lists are made. Lists have no members, so nothing is sent. `start` returns
when LMTP and REST answer; that takes some six seconds of Mailman's own.
"""

import base64
import json
import os
import shutil
import signal
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from tests.stack.arrivals import Arrival, Arrivals
from tests.stack.children import Child, account, members
from tests.stack.ports import Port
from tests.stack.program import Program
from tests.stack.waiting import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".parts" / "mailman" / "bin"
PLUGINS = ROOT / "config" / "mailman"
QUICK = Path(__file__).with_name("quick")
KEY = ROOT / "fixtures" / "dkim.key.pem"
DOMAIN = "lists.test"
_RUNNERS = (
    "archive",
    "bounces",
    "command",
    "digest",
    "in",
    "lmtp",
    "out",
    "pipeline",
    "rest",
    "retry",
    "task",
    "virgin",
)
REST_SECRET = b"restadmin:restpass"
NEEDED = ("lmtp", "rest", "in", "pipeline", "archive")
# Any post, by anybody, of any size, goes to the archive without being held.
_OPEN_LIST = {
    "default_nonmember_action": "accept",
    "archive_policy": "public",
    "max_message_size": 0,
    "max_num_recipients": 0,
    "require_explicit_destination": False,
    "administrivia": False,
    "digests_enabled": False,
    "process_bounces": False,
}


class Mailman(Program):
    """A Mailman core. With `long_lines` (a plugin) its LMTP server takes lines of more than 999 octets. The
    Authentication-Results of whom it `trusts` it takes over.
    """

    name = "Mailman"
    patience = 2 * PATIENCE  # six processes, each of which takes a second to load

    def __init__(self, directory: Path, *, long_lines: bool = False, trusts: str = "") -> None:
        if not (PROGRAMS / "master").exists():
            raise RuntimeError("Mailman is not installed: run tests/stack/install.sh (make test does)")
        nobody = account("nobody")
        # In a checkout that only root can read it runs as root: it asks access(2), where no capability helps.
        readable = nobody and nobody.can_read([PROGRAMS / "master", PLUGINS, QUICK])
        super().__init__(directory, nobody if readable else None)
        self.var = directory / "var"
        self._rest = Port()
        self.arrivals = Arrivals(self.var)
        self._config = directory / "mailman.cfg"
        directory.mkdir(mode=0o755)
        self.var.mkdir()
        self._config.write_text(self._configuration(long_lines=long_lines, trusts=trusts))
        shutil.copyfile(KEY, directory / KEY.name)
        if self._drop:
            self._drop.own(directory, self.var)

    def _configuration(self, *, long_lines: bool, trusts: str) -> str:
        sections: dict[str, dict[str, object]] = {
            "mailman": {"layout": "stack", "site_owner": f"postmaster@{DOMAIN}"},
            "paths.stack": {"var_dir": self.var, "bin_dir": PROGRAMS},
            "mta": {
                "incoming": "mailman.mta.null.NullMTA",
                "lmtp_host": self.port.host,
                "lmtp_port": self.port.number,
            },
            "webservice": {"hostname": self._rest.host, "port": self._rest.number, "workers": 1},
            "archiver.prototype": {"enable": "yes"},
            # The rule that sites have for what Exim's ACL tagged: six or more are thrown away.
            "antispam": {"header_checks": "\n    X-Spam-Score: [^+]*[+]{6,}", "jump_chain": "discard"},
        }
        for name in _RUNNERS:
            sections[f"runner.{name}"] = {"sleep_time": "0.1s"} if name in NEEDED else {"start": "no"}
        if long_lines:
            sections["plugin.mailgate_longlines"] = {
                "class": "mailgate_longlines.plugin.LongLines",
                "enabled": "yes",
            }
        if trusts:
            sections["ARC"] = {
                "enabled": "yes",
                "dkim": "no",  # the gate has checked it
                "dmarc": "no",
                "authserv_id": f"mailman.{DOMAIN}",
                "trusted_authserv_ids": trusts,
                "privkey": self.directory / KEY.name,  # which it wants even where it seals nothing
                "selector": "garden",
                "domain": "example.org",
            }
        parts = [[f"[{name}]", *(f"{key}: {value}" for key, value in keys.items())] for name, keys in sections.items()]
        return "\n".join("\n".join(lines) for lines in parts) + "\n"

    @property
    def watched(self) -> dict[str, object]:
        """The keys of [mailman] by which a gate sees how it is. A file with REST_SECRET goes with them."""
        return {
            "queue_dir": str(self.var / "queue"),
            "pid_file": str(self.var / "master.pid"),
            "rest_url": f"http://{self._rest}/3.1",
        }

    def begin(self) -> None:
        """Start it; `ready` waits until it answers."""
        self._child = Child(
            [PROGRAMS / "master", "-C", self._config, "--force"],  # force: a killed one has left its lock behind
            directory=self.directory,
            log=self.output,
            run_as=self._drop,
            environment={"PYTHONPATH": f"{QUICK}:{PLUGINS}", "PYTHONWARNINGS": "ignore"},
        )

    def ready(self) -> None:
        """Wait until LMTP and REST answer."""
        super().ready()
        self._wait_open(self._rest)
        if not self._lists("/domains"):
            self._ask("/domains", {"mail_host": DOMAIN})

    def stop(self) -> None:
        """Stop it in good order: open LMTP connections are closed, then new ones refused."""
        if self._child is not None:
            self.thaw()
            self._child.stop()
            self._child = None

    def close(self) -> None:
        """Kill it and give its ports back. What it has accepted stays in its queues."""
        super().close()
        self._rest.close()

    def freeze(self, *runners: str) -> None:
        """Stop runners (SIGSTOP), the LMTP server if none is named: to connect to it succeeds, and it is silent."""
        for pid in self._pids(runners or ("lmtp",)):
            os.kill(pid, signal.SIGSTOP)

    def _pids(self, runners: tuple[str, ...]) -> list[int]:
        wanted = {f"--runner={name}:" for name in runners}
        found = []
        for pid in members(self._child.pid) if self._child else []:
            command = Path(f"/proc/{pid}/cmdline").read_text()
            if any(word in command for word in wanted):
                found.append(pid)
        return found

    def create_list(self, name: str) -> str:
        """Make a list that takes any post; its address."""
        address = f"{name}@{DOMAIN}"
        self._ask("/lists", {"fqdn_listname": address})
        self._ask(f"/lists/{address}/config", _OPEN_LIST, "PATCH")
        # Mailman writes down a list's archivers when it first asks for them. Two runners that do so at once, for a new
        # list's first posts, write them twice, and every post to the list is shunted from then on.
        self._ask(f"/lists/{address}/archivers")
        return address

    def delete_list(self, address: str) -> None:
        """Delete a list; its archive stays."""
        self._ask(f"/lists/{address}", method="DELETE")

    def arrived(self, address: str) -> Counter[str]:
        """How many times each Message-ID has arrived at a list's address or sub-address."""
        return self.arrivals.ids(address)

    def wait_arrived(self, address: str, message_id: str, deadline: float = PATIENCE) -> Arrival:
        """The first arrival of that Message-ID at the address."""

        def found() -> list[Arrival]:
            return [arrival for arrival in self.arrivals.at(address) if arrival.message_id == message_id]

        return wait_until(found, f"{message_id} in Mailman at {address}", deadline=deadline)[0]

    def _lists(self, path: str) -> list[Any]:
        entries: list[Any] = self._ask(path).get("entries", [])
        return entries

    def _ask(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://{self._rest}/3.1{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={
                "Content-Type": "application/json",
                "Authorization": "Basic " + base64.b64encode(REST_SECRET).decode(),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                answer: dict[str, Any] = json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"Mailman's REST: {error} for {path}: {error.read().decode()}") from error
        return answer
