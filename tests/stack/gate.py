"""mailgate itself, as a child: `mailgate serve` with a configuration of the test's, in a directory of its own.

`start` returns when /readyz answers 200. Its log (JSON, a line an event) is read with `events`, its metrics with
`metric`, its spool with the verbs of the command line: `cli("queue", "list", "--json")`.
"""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mailgate
from tests.stack.children import Child, account
from tests.stack.ports import Port
from tests.stack.waiting import PATIENCE, wait_until

PROGRAM = Path(sys.executable).with_name("mailgate")
Settings = Mapping[str, Any]


class Gate:
    """A gate that delivers to `mailman`. `settings` (a tree as in mailgate.toml) go over the defaults of the tests."""

    def __init__(self, directory: Path, mailman: tuple[str, int], settings: Settings | None = None) -> None:
        self.directory = directory
        self.config = directory / "mailgate.toml"
        self.log = directory / "log"
        self.spool = directory / "spool.db"
        self.socket = directory / "lmtp.sock"
        self._lmtp, self._smtp, self._http, self._verdict = Port(), Port(), Port(), Port()
        self._drop = account("nobody")
        self._child: Child | None = None
        directory.mkdir(mode=0o755)
        self.log.touch()
        if self._drop:
            self._drop.own(directory)
        self._defaults: dict[str, Any] = {
            "hostname": "gate.lists.test",
            "relay": {"lmtp": [str(self._lmtp), f"unix:{self.socket}"], "smtp": [str(self._smtp)]},
            "mailman": {"lmtp": f"{mailman[0]}:{mailman[1]}", "probe_interval": "0.2s"},
            "spool": {"url": f"sqlite:///{self.spool}", "retry_first": "0.2s", "retry_max": "2s"},
            "spam": {"engine": "off"},
            "auth": dict.fromkeys(
                ("spf", "dkim", "dmarc", "arc"), False
            ),  # no name server beyond this machine is asked
            "http": {"listen": str(self._http)},
        }
        self.configure(settings or {})

    @property
    def lmtp(self) -> tuple[str, int]:
        """The LMTP door on TCP (`socket` is the one on a unix socket)."""
        return self._lmtp.address

    @property
    def smtp(self) -> tuple[str, int]:
        """The SMTP door."""
        return self._smtp.address

    @property
    def verdict(self) -> tuple[str, int]:
        """Where the verdict door is, if the settings have it there: {"verdict": {"listen": ["HOST:PORT"]}}."""
        return self._verdict.address

    @property
    def http(self) -> str:
        """Where it serves /metrics."""
        return str(self._http)

    @property
    def pid(self) -> int:
        """The process id of the daemon."""
        assert self._child is not None
        return self._child.pid

    @property
    def running(self) -> bool:
        """Is the daemon there?"""
        return self._child is not None and self._child.running

    def configure(self, settings: Settings) -> None:
        """Write the configuration: the defaults of the tests with `settings` over them. For a restart, or SIGHUP."""
        self.config.write_text(toml(merged(self._defaults, settings)))

    def start(self, environment: Mapping[str, str] | None = None, deadline: float = PATIENCE) -> None:
        """Start the daemon and wait until it is ready."""
        self.begin(environment)
        child = self._child
        assert child is not None
        wait_until(lambda: not child.running or self.page("/readyz")[0] == 200, "the gate is ready", deadline=deadline)
        if not child.running:
            raise RuntimeError(f"mailgate ended: {self.log.read_text()}")

    def begin(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the daemon without waiting for it."""
        self._child = Child(
            [PROGRAM, "serve", "--config", self.config],
            directory=self.directory,
            log=self.log,
            run_as=self._drop,
            reads=[Path(sys.executable), Path(mailgate.__file__)],
            environment=environment,
        )

    def stop(self, deadline: float = PATIENCE) -> int:
        """SIGTERM, and wait; its exit status. Past the deadline it is killed, and TimeoutError says so."""
        assert self._child is not None
        child, self._child = self._child, None
        return child.stop(deadline)

    def ended(self, deadline: float = PATIENCE) -> int:
        """Wait for it to end by itself; its exit status."""
        assert self._child is not None
        child, self._child = self._child, None
        return child.wait(deadline)

    def kill(self) -> None:
        """SIGKILL, no farewell."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def close(self) -> None:
        """Kill it and give its ports back."""
        self.kill()
        for port in (self._lmtp, self._smtp, self._http, self._verdict):
            port.close()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal: SIGHUP to reload, SIGSTOP to freeze it."""
        assert self._child is not None
        self._child.send(number)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def cli(self, *arguments: str, check: bool = True, deadline: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a verb of the command line with this gate's configuration, as the gate's user."""
        reads = [Path(sys.executable), Path(mailgate.__file__)]
        launcher = self._drop.launcher(reads) if self._drop else []
        environment = {"MAILGATE_CONFIG": str(self.config), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        done = subprocess.run(
            [*launcher, PROGRAM, *arguments],
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
            cwd=self.directory,
            env=environment,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"mailgate {' '.join(arguments)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What a listing verb says with --json. Nothing matched (exit 3) is no rows."""
        done = self.cli(*arguments, "--json", check=False)
        if done.returncode not in {0, 3}:
            raise RuntimeError(f"mailgate {' '.join(arguments)}: exit {done.returncode}: {done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page of its HTTP server; 0 and the reason when there is none."""
        try:
            with urllib.request.urlopen(f"http://{self._http}{path}", timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def ask(self, path: str, accept: str) -> tuple[str, str]:
        """The content type and the text of a page, for who accepts that."""
        request = urllib.request.Request(f"http://{self._http}{path}", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.headers["Content-Type"], response.read().decode()

    def metrics(self) -> dict[str, float]:
        """All samples: `name{label="value"}` (labels in order of their names) → value."""
        status, text = self.page("/metrics")
        if status != 200:
            raise RuntimeError(f"/metrics: {status} {text}")
        samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in samples}  # the library's parser takes a hundred times as long

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name which have these labels; 0 when there is none."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            value
            for sample, value in self.metrics().items()
            if sample.partition("{")[0] == name and all(word in sample for word in wanted)
        )

    def events(self, name: str = "", **fields: Any) -> list[dict[str, Any]]:
        """The events of its log with that name (or all) and these fields."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):  # the last one may not be whole yet
                event: dict[str, Any] = json.loads(line)
                if name in {"", event["event"]} and fields.items() <= event.items():
                    found.append(event)
        return found

    def wait_for_event(self, name: str, *, deadline: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """The first such event."""
        return wait_until(lambda: self.events(name, **fields), f"{name} {fields} in the log", deadline=deadline)[0]

    def noise(self) -> str:
        """What it wrote to stderr that is no event: tracebacks, warnings."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.startswith("{"))


def merged(under: Mapping[str, Any], over: Settings) -> dict[str, Any]:
    """The tree `under` with the values of `over` in it."""
    tree = dict(under)
    for key, value in over.items():
        tree[key] = merged(tree.get(key, {}), value) if isinstance(value, Mapping) else value
    return tree


def toml(tree: Mapping[str, Any]) -> str:
    """A tree of sections as TOML. JSON's way to write text, numbers, truth and lists is TOML's as well."""
    plain = [f"{key} = {_value(value)}" for key, value in tree.items() if not isinstance(value, Mapping)]
    for name, section in tree.items():
        if isinstance(section, Mapping):
            plain += [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in section.items())]
    return "\n".join(plain) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(_value, value)) + "]" if isinstance(value, list) else json.dumps(value)
