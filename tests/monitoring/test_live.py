"""A real Prometheus scrapes a real gate between Exim, Mailman and spamd, which are broken one by one.

The tests of this file are one story, told in order: all is well and no alert is heard; then each part fails, the alert
that is for it fires, and ends when the part is back. Rules are the shipped ones, in short times (quick.py).
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.quick import quick
from tests.monitoring.rules import ALERTS, RECORDING, alerts
from tests.stack.children import remove, temporary_directory
from tests.stack.mails import mails
from tests.stack.prometheus import Prometheus
from tests.stack.spamd import Spamd
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until

_BROKEN_WORDS = ("<error", "<no value>", "%!")


class Site:
    """All of it, and a list to post to. `said` is what the alerts that fired said, by their names."""

    def __init__(self, directory: Path, stack: Stack) -> None:
        self._marks = count()
        self.stack = stack
        self.spamd = Spamd(directory / "spamd")
        self.spamd.begin()
        networks = directory / "abuse.txt"
        networks.write_text("127.66.0.0/16\n")
        networks.chmod(0o644)
        self.list = stack.new_list()
        self.said: dict[str, dict[str, str]] = {}
        self.spamd.ready()
        self.gate = stack.start_gate(self._settings(networks), asked=True)
        rules = {file.name: quick(file) for file in (RECORDING, ALERTS)}
        self.prometheus = Prometheus(directory / "prometheus", self.gate.http, rules)
        self.prometheus.start()

    def _settings(self, networks: Path) -> dict[str, Any]:
        return {
            "spam": {"engine": "spamd", "servers": [str(self.spamd.port)], "timeout": "5s", "probe_interval": "0.2s"},
            "networks": {"files": [str(networks)], "own_file": str(networks.with_name("own.txt")), "action": "hold"},
        }

    def post(self, posts: int = 1) -> None:
        """Some posts to the list, by Exim."""
        for _ in range(posts):
            mark = f"monitored-{next(self._marks)}"
            mail = mails()["plain"].at(self.list).marked(mark)
            result = self.stack.post(mail)
            assert result.codes == [250]

    def firing(self) -> set[str]:
        """The alerts that fire now; what they say is kept."""
        found = self.prometheus.alerts()
        self.said |= {alert["labels"]["alertname"]: alert["annotations"] for alert in found}
        return {alert["labels"]["alertname"] for alert in found}

    def wait_firing(self, *names: str, posting: bool = False) -> None:
        """Until all of these fire; `posting` goes on meanwhile, since a rate needs something to go on with."""
        assert set(names) <= alerts().keys()

        def heard() -> bool:
            if posting:
                self.post()
            return set(names) <= self.firing()

        wait_until(heard, f"{names} fire, not only {self.firing()}", deadline=20)

    def wait_silence(self, *names: str) -> None:
        """Until none of these fires any more."""
        wait_until(lambda: not set(names) & self.firing(), f"{names} are over", deadline=30)

    def value(self, expression: str) -> float:
        """What a query with one result comes to; NaN while there is none."""
        found = self.prometheus.query(expression)
        return float(found[0]["value"][1]) if found else float("nan")

    def close(self) -> None:
        """Take down what is ours."""
        self.prometheus.close()
        self.spamd.close()


@pytest.fixture(scope="module")
def site(_session_stack: Stack) -> Iterator[Site]:
    """Everything, started once for this file."""
    directory = temporary_directory("mailgate-monitoring-")
    directory.chmod(0o755)
    _session_stack.restore()
    made = Site(directory, _session_stack)
    yield made
    made.close()
    _session_stack.restore()
    remove(directory)


def test_all_is_well_and_no_alert_is_heard(site: Site) -> None:
    """Mail flows, every rule is evaluated without an error, and nothing fires or is about to."""
    site.post(10)
    wait_until(
        lambda: site.value('sum(mailgate_recipients_total{outcome="delivered"})') == 10, "ten deliveries are scraped"
    )
    seen = site.value("vector(time())")
    # So long that whatever these ten may set off has been pending for its time: the longest `for` but that of a pause.
    wait_until(lambda: site.value("vector(time())") > seen + 1.5, "rules are evaluated after that")
    assert [rule for rule in site.prometheus.rules() if rule["health"] != "ok"] == []
    assert site.firing() == set()
    assert site.prometheus.alerts("pending") == []
    assert site.prometheus.query("count_over_time(ALERTS[1m])") == []


def test_a_dead_scorer_is_heard(site: Site) -> None:
    """Mail goes unscored: by its rate, by its share, and by the breaker of spamd."""
    site.spamd.kill()
    site.wait_firing("MailgateScorerDown", "MailgateUnscoredMail", "MailgateUnscoredShare", posting=True)
    site.spamd.begin()
    assert "MailgateMailmanUnreachable" not in site.said


def test_a_dead_mailman_is_heard(site: Site) -> None:
    """Mail waits in the spool, more and more of it, and for long."""
    site.stack.mailman.kill()
    site.stack.to_mailman.refuse()
    site.wait_firing("MailgateMailmanUnreachable", "MailgateSpoolGrowing", "MailgateSpoolOld", posting=True)
    site.spamd.ready()
    site.stack.start_mailman()
    site.wait_silence("MailgateMailmanUnreachable", "MailgateSpoolGrowing", "MailgateSpoolOld", "MailgateScorerDown")


def test_a_dead_exim_is_heard(site: Site) -> None:
    """Nothing comes any more, where much came before."""
    site.stack.exim.kill()
    site.wait_firing("MailgateNoMail")
    site.stack.exim.start()
    site.post()
    site.wait_silence("MailgateNoMail")


def test_a_dead_gate_is_heard(site: Site) -> None:
    """Nobody answers Prometheus."""
    site.gate.kill()
    site.wait_firing("MailgateDown")


def test_what_the_alerts_said_can_be_read(site: Site) -> None:
    """Each label and value was there to be put into the text."""
    assert len(site.said) > 6
    for name, said in site.said.items():
        for text in said.values():
            assert not any(word in text for word in _BROKEN_WORDS), f"{name}: {text}"
            assert "  " not in text, f"{name}: {text}"
