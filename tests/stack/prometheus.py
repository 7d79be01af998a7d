"""A real Prometheus of Debian in a directory and on a port of its own, run by an unprivileged user.

It scrapes one address as job "mailgate" and evaluates the rules that it is given, many times a second: what its rules
call minutes has to be made short for that (tests/monitoring/quick.py). `start` returns when it answers queries.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.stack.children import Child, account
from tests.stack.program import Program
from tests.stack.waiting import wait_until

PROGRAM = "/usr/bin/prometheus"
INTERVAL = "200ms"


class Prometheus(Program):
    """Scrapes `target` (HOST:PORT). `rules` are the contents of rule files by their names."""

    name = "Prometheus"

    def __init__(self, directory: Path, target: str, rules: Mapping[str, str]) -> None:
        super().__init__(directory, account("nobody"))
        self._config = directory / "prometheus.yml"
        directory.mkdir(mode=0o755)
        for file, text in rules.items():
            (directory / file).write_text(text)
        job = {"job_name": "mailgate", "static_configs": [{"targets": [target]}]}
        times = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL, "scrape_timeout": INTERVAL}
        self._config.write_text(yaml.safe_dump({"global": times, "rule_files": [*rules], "scrape_configs": [job]}))
        if self._drop:
            self._drop.own(directory)

    def begin(self) -> None:
        """Start it; `ready` waits until it answers."""
        self._child = Child(
            [
                PROGRAM,
                f"--config.file={self._config}",
                f"--storage.tsdb.path={self.directory / 'data'}",
                f"--web.listen-address={self.port}",
                "--web.enable-lifecycle",
                "--query.lookback-delta=1500ms",
                "--log.level=warn",
            ],
            directory=self.directory,
            log=self.output,
            run_as=self._drop,
        )

    def ready(self) -> None:
        """Wait until it answers queries."""
        super().ready()
        wait_until(self._answers, "Prometheus answers queries", deadline=self.patience)

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The samples that a query comes to, now or `at` some time: `metric` (labels) and `value` (time, text)."""
        found: list[dict[str, Any]] = self._ask("query", query=expression, **({"time": str(at)} if at else {}))[
            "result"
        ]
        return found

    def alerts(self, state: str = "firing") -> list[dict[str, Any]]:
        """The alerts that are firing, or pending: `labels` and `annotations`."""
        return [alert for alert in self._ask("alerts")["alerts"] if alert["state"] == state]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health, last error and last evaluation."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def _answers(self) -> bool:
        try:
            self._ask("query", query="1")
        except urllib.error.HTTPError:  # 503 while it reads what it has stored
            return False
        return True

    def _ask(self, what: str, **parameters: str) -> dict[str, Any]:
        address = f"http://{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=self.patience) as response:
                answer: dict[str, Any] = json.loads(response.read())
        except urllib.error.HTTPError as error:
            if error.code == 503:
                raise
            raise RuntimeError(f"Prometheus: {error} for {parameters}: {error.read().decode()}") from error
        data: dict[str, Any] = answer["data"]
        return data
