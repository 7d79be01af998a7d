"""`--help` teaches: what a verb does, an example, how it ends. And it comes quickly."""

import subprocess
import sys

import pytest

from tests.cli.site import Site

VERBS = [
    *(f"queue {verb}" for verb in ("list", "show", "replay", "hold", "release", "drop", "export", "stats")),
    "status",
    "pause",
    "resume",
    *(f"spool {verb}" for verb in ("backup", "verify", "adopt")),
    "unscored list",
    "explain",
    *(f"networks {verb}" for verb in ("list", "check", "add", "remove", "export", "reload")),
    "status",
]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_teaches(site: Site, verb: str) -> None:
    ran = site.run(*verb.split(), "--help")

    assert ran.status == 0
    examples = ran.out.partition("For example:")[2].partition("Exit status:")[0]
    assert f"mailgate {verb}" in examples
    for line in filter(None, map(str.strip, examples.splitlines())):
        assert line.count("mailgate ") <= 1, "an example a line"
    assert "Exit status: 0 " in ran.out
    assert "--config" in ran.out


def test_a_usage_error_speaks_of_nothing_else(site: Site) -> None:
    for arguments in (("pause",), ("queue", "list", "--limit", "x"), ("networks", "add", "192.0.2.1")):
        ran = site.run(*arguments)
        assert (ran.status, "env var" in ran.err) == (2, False)


def test_help_does_not_load_the_database() -> None:
    program = "import sys, mailgate.cli; assert 'sqlalchemy' not in sys.modules"

    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
