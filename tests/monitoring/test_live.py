"""A real Prometheus scrapes a real gate between Exim, Mailman and spamd, which are broken one by one.

The tests of this file are one story, told in order: all is well and no alert is heard; then each part fails, the alert
that is for it fires, and ends when the part is back. Rules are the shipped ones, in short times (quick.py).
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.dashboard import annotations, queries
from tests.monitoring.quick import quick
from tests.monitoring.rules import ALERTS, RECORDING, alerts, metrics, recordings
from tests.stack.children import Child, remove, temporary_directory
from tests.stack.client import Client
from tests.stack.dns import DnsServer
from tests.stack.gate import Gate
from tests.stack.mailman import PROGRAMS, REST_SECRET
from tests.stack.mails import mails
from tests.stack.prometheus import Prometheus
from tests.stack.spamd import Spamd
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until

PROMTOOL = "/usr/bin/promtool"
_LISTED = "127.66.0.1"
_BROKEN_WORDS = ("<error", "<no value>", "%!")


class Site:
    """All of it, and a list to post to. `said` is what the alerts that fired said, by their names."""

    def __init__(self, directory: Path, stack: Stack, undo: ExitStack) -> None:
        self._directory = directory
        self._marks = count()
        self.stack = stack
        self.spamd = Spamd(directory / "spamd")
        undo.callback(self.spamd.close)
        self.spamd.begin()
        self._names = undo.enter_context(DnsServer())
        self._public("abuse.txt", "127.66.0.0/16\n")
        self._public("rest", REST_SECRET.decode())
        # What other tests sent to runners that this Mailman does not have; and each post leaves something for `out`.
        for left in (stack.mailman.var / "queue").glob("*/*.pck"):
            left.unlink()
        out = Child(
            [PROGRAMS / "runner", "-C", stack.mailman._config, "--runner=out:0:1"],
            directory=stack.mailman.directory,
            log=directory / "out-runner",
            run_as=stack.mailman._drop,
        )
        self.list = stack.new_list()
        self.said: dict[str, dict[str, str]] = {}
        self.fired_at = 0.0
        undo.callback(out.kill)
        self.gate = stack.new_gate()
        undo.callback(stack.direct)
        rules = {file.name: quick(file) for file in (RECORDING, ALERTS)}
        self.prometheus = Prometheus(directory / "prometheus", self.gate.http, rules)
        undo.callback(self.prometheus.close)
        self.prometheus.begin()  # it takes five seconds to look for its target
        self.spamd.ready()
        self.gate.configure(self._settings(self.gate))
        self.gate.start()
        stack.to_gate.upstream = self.gate.lmtp
        stack.ask()
        self.prometheus.ready()
        wait_until(lambda: self.value("up") == 1, "the gate is scraped")
        self.wait_silence(*alerts())
        self.begun = self.value("vector(time())")

    def _public(self, name: str, text: str) -> None:
        (self._directory / name).write_text(text)
        (self._directory / name).chmod(0o644)

    def _settings(self, gate: Gate) -> dict[str, Any]:
        return {
            "mailman": {
                **self.stack.mailman.watched,
                "connect_timeout": "1s",
                "reply_timeout": "2s",
                "rest_secret_file": str(self._directory / "rest"),
                "stalled_after": "3s",
            },
            "verdict": {"listen": ["{}:{}".format(*gate.verdict)]},
            "auth": dict.fromkeys(("spf", "dkim", "dmarc", "arc"), True) | {"nameservers": [str(self._names.at)]},
            "spam": {"engine": "spamd", "servers": [str(self.spamd.port)], "timeout": "5s", "probe_interval": "0.2s"},
            "networks": {
                "files": [str(self._directory / "abuse.txt")],
                "own_file": str(self._directory / "own.txt"),
                "action": "hold",
            },
        }

    def post(self, posts: int = 1, client: str = "127.0.9.1") -> None:
        """Some posts to the list, by Exim."""
        for _ in range(posts):
            mail = mails()["plain"].at(self.list).marked(f"monitored-{next(self._marks)}")
            with Client(self.stack.exim.address, source=client) as session:
                assert session.deliver(mail.sender, mail.recipients, mail.octets, mail.parameters).codes == [250]

    def firing(self) -> set[str]:
        """The alerts that fire now; what they say is kept."""
        found = self.prometheus.alerts()
        self.said |= {alert["labels"]["alertname"]: alert["annotations"] for alert in found}
        return {alert["labels"]["alertname"] for alert in found}

    def wait_firing(self, *names: str, posting: bool = False) -> None:
        """Until all of these fire; `posting` goes on meanwhile, since a rate needs something to go on with."""
        assert set(names) <= alerts().keys()
        missing = set(names)

        def heard() -> bool:
            if posting:
                self.post()
            missing.difference_update(self.firing())
            return not missing

        self._wait(heard, missing)
        self.fired_at = self.value("vector(time())")

    def wait_silence(self, *names: str) -> None:
        """Until none of these fires any more."""
        loud: set[str] = set()

        def silent() -> bool:
            loud.clear()
            loud.update(self.firing() & set(names))
            return not loud

        self._wait(silent, loud)

    @staticmethod
    def _wait(condition: Callable[[], bool], left: set[str]) -> None:
        try:
            wait_until(condition, "all of these alerts")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: still to come or to go: {left}") from None

    def families(self) -> set[str]:
        """The metrics that the gate has, as their families are called."""
        status, text = self.gate.page("/metrics")
        assert status == 200
        return {line.split()[2].removesuffix("_total") for line in text.splitlines() if line.startswith("# TYPE ")}

    def value(self, expression: str) -> float:
        """What a query with one result comes to; NaN while there is none."""
        found = self.prometheus.query(expression)
        return float(found[0]["value"][1]) if found else float("nan")


@pytest.fixture(scope="module")
def site(_session_stack: Stack) -> Iterator[Site]:
    """Everything, started once for this file."""
    directory = temporary_directory("mailgate-monitoring-")
    directory.chmod(0o755)
    _session_stack.restore()
    with ExitStack() as undo:
        undo.callback(remove, directory)
        yield Site(directory, _session_stack, undo)


def test_all_is_well_and_no_alert_is_heard(site: Site) -> None:
    """Mail flows, every rule is evaluated without an error, and nothing fires or is about to."""
    site.post(10)
    site.post(client=_LISTED)
    wait_until(
        lambda: site.value('sum(mailgate_recipients_total{outcome="delivered"})') == 10, "ten deliveries are scraped"
    )
    seen = site.value("vector(time())")
    # So long that whatever these ten may set off has been pending for its time: the longest `for` but that of a pause.
    wait_until(lambda: site.value("vector(time())") > seen + 2.5, "rules are evaluated after that")
    assert [rule for rule in site.prometheus.rules() if rule["health"] != "ok"] == []
    assert site.firing() == set()
    # On a busy machine a scrape of a quarter of a second may fail, and what that sets off is pending for a moment.
    wait_until(lambda: site.prometheus.alerts("pending") == [], "nothing is about to fire")
    so_far = int(site.value("vector(time())") - site.begun)
    assert site.prometheus.query(f'count_over_time(ALERTS{{alertstate="firing"}}[{so_far}s])') == []


def test_a_dead_scorer_is_heard(site: Site) -> None:
    """Mail goes unscored: by its rate, by its share, and by the breaker of spamd."""
    site.spamd.kill()
    site.wait_firing("MailgateScorerDown", "MailgateUnscoredMail", "MailgateUnscoredShare", posting=True)
    site.spamd.begin()
    assert "MailgateMailmanUnreachable" not in site.said


def test_a_mailman_that_takes_mail_and_does_nothing_is_heard(site: Site) -> None:
    """Its LMTP server says 250 to everything, and the runner behind it stands still."""
    site.stack.mailman.freeze("in")
    site.post(2)
    site.wait_firing("MailgateMailmanStalled", "MailgateMailmanQueueOld")
    site.stack.mailman.thaw()
    site.wait_silence("MailgateMailmanStalled", "MailgateMailmanQueueOld")


def test_a_mailman_that_hangs_is_heard(site: Site) -> None:
    """Mail waits in the spool, more and more of it, and for long."""
    site.stack.mailman.freeze("lmtp")
    site.post(8)
    site.wait_firing("MailgateMailmanUnreachable", "MailgateSpoolGrowing", "MailgateSpoolOld")
    site.stack.mailman.thaw()
    site.wait_silence("MailgateMailmanUnreachable", "MailgateSpoolOld")
    site.spamd.ready()
    site.wait_silence("MailgateScorerDown")


def test_a_dead_exim_is_heard(site: Site) -> None:
    """Nothing comes any more, where much came before."""
    site.stack.exim.kill()
    site.wait_firing("MailgateNoMail")
    site.stack.exim.start()
    site.post()
    site.wait_silence("MailgateNoMail")


def test_every_query_of_the_dashboard_shows_something(site: Site) -> None:
    """As Grafana would ask, at a moment when alerts fired and all kinds of mail had passed."""
    blank = []
    for title, query in queries():
        found = site.prometheus.query(query, site.fired_at)
        if all(isnan(float(sample["value"][1])) for sample in found):
            blank.append((title, query))
    assert blank == []


def test_every_metric_that_is_asked_for_exists(site: Site) -> None:
    """In rules and dashboard; and Prometheus has nothing to say against how the metrics are written."""
    expressions = [rule["expr"] for rule in (*alerts().values(), *recordings().values())]
    asked = {
        name for text in (*expressions, *(query for _, query in queries()), *annotations()) for name in metrics(text)
    }
    assert asked <= site.families()
    text = site.gate.page("/metrics")[1]
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_dead_mailman_is_heard(site: Site) -> None:
    """Nobody is there any more: neither LMTP, nor REST, nor a runner."""
    site.stack.mailman.kill()
    site.stack.to_mailman.refuse()
    site.post()  # that LMTP is gone is seen when there is something to deliver
    site.wait_firing("MailgateMailmanUnreachable", "MailgateMailmanRunnerDead", "MailgateMailmanRestDown")


def test_a_dead_gate_is_heard(site: Site) -> None:
    """Nobody answers Prometheus; and the dashboard shows when it came back."""
    site.gate.kill()
    site.wait_firing("MailgateDown")
    site.gate.start()
    site.wait_silence("MailgateDown")
    (started,) = annotations()
    assert site.prometheus.query(started)


def test_what_the_alerts_said_can_be_read(site: Site) -> None:
    """Each label and value was there to be put into the text."""
    assert len(site.said) > 6
    for name, said in site.said.items():
        for text in said.values():
            assert not any(word in text for word in _BROKEN_WORDS), f"{name}: {text}"
            assert "  " not in text, f"{name}: {text}"
