"""`mailgate pause` and `resume`."""

import time

import pytest

from tests.cli.site import Mail, Site


def test_paused_and_resumed(site: Site) -> None:
    site.fill(Mail())

    paused = site.run("pause", "--reason", "upgrade of Mailman", "--for", "2h")
    again = site.run("pause", "--reason", "takes longer")
    resumed = site.run("resume")
    gone = site.run("resume")

    assert [ran.status for ran in (paused, again, resumed, gone)] == [0, 0, 0, 3]
    assert "(in 2h): upgrade of Mailman" in paused.out
    assert "was paused since" in again.out
    assert "upgrade of Mailman: replaced" in again.out
    assert "paused until mailgate resume: takes longer" in again.out
    assert "takes longer" in resumed.out
    assert "not paused" in gone.err


def test_a_pause_ends_by_itself(site: Site) -> None:
    site.fill(Mail())
    begun = time.monotonic()
    site.run("pause", "--reason", "for a moment", "--for", "1ms")
    while time.monotonic() < begun + 0.002:
        pass

    assert site.run("resume").status == 3


@pytest.mark.parametrize(
    "arguments", [[], ["--for", "2h"], ["--reason", " "], ["--reason", "why", "--for", "a while"]], ids=str
)
def test_a_pause_has_a_reason(site: Site, arguments: list[str]) -> None:
    site.fill(Mail())

    assert site.run("pause", *arguments).status == 2
    assert site.run("resume").status == 3


def test_without_a_spool_there_is_nothing_to_pause(site: Site) -> None:
    ran = site.run("pause", "--reason", "why")

    assert ran.status == 1
    assert "there is no spool" in ran.err
