"""`queue hold`, `release` and `drop`: what is changed, what is asked, what is left alone."""

import time
from dataclasses import dataclass

import pytest

from mailgate.core.spam import AWAITS_SCORE
from tests.cli.site import Mail, Site

A, OWNER, B = "announce@lists.test", "announce-owner@lists.test", "dev@lists.test"


@dataclass(frozen=True)
class Queue:
    """A spool with one message of each sort."""

    pending: str
    mixed: str
    failed: str
    held: str


@pytest.fixture
def queue(site: Site) -> Queue:
    """See `Queue`."""
    return Queue(
        *site.fill(
            Mail({A: "pending"}, age=400, uncertain=True),
            Mail({A: "pending", OWNER: "held", B: "failed"}, age=300),
            Mail({B: "failed"}, age=200),
            Mail({A: "held"}, age=100),
        )
    )


def test_hold_takes_what_waits_and_release_gives_it_back(site: Site, queue: Queue) -> None:
    held = site.run("queue", "hold", "--list", A, "--reason", "moderators asked")
    after = site.states()

    assert held.status == 0
    assert "2 recipients of 2 messages held" in held.err
    assert (after[queue.pending, A], after[queue.mixed, A], after[queue.mixed, B]) == ("held", "held", "failed")
    assert "moderators asked" in site.run("queue", "show", queue.pending).out

    released = site.run("queue", "release", "--list", "announce@*", "--yes")

    assert released.status == 0
    assert site.states() == {
        (queue.pending, A): "uncertain",
        (queue.mixed, A): "pending",
        (queue.mixed, OWNER): "pending",
        (queue.mixed, B): "failed",
        (queue.failed, B): "failed",
        (queue.held, A): "pending",
    }


def test_what_is_held_for_a_score_can_be_held_for_good(site: Site) -> None:
    one, _ = site.fill(Mail({A: "held"}, age=99, reply=AWAITS_SCORE), Mail({A: "held"}, reply="asked the moderators"))

    ran = site.run("queue", "hold", "--list", A, "--reason", "looks odd")

    assert ran.err.splitlines()[-1] == "1 recipient of 1 message held"
    assert "looks odd" in site.run("queue", "show", one).out
    assert site.run("queue", "hold", "--list", A).status == 3


def test_release_makes_due_now(site: Site, queue: Queue) -> None:
    before = time.time()
    site.run("queue", "release", queue.held)

    (person,) = next(row for row in site.rows() if row["id"] == queue.held)["recipients"]
    assert before <= person["next_attempt"] <= time.time()


def test_what_failed_is_touched_only_by_name(site: Site, queue: Queue) -> None:
    assert site.run("queue", "release", "--list", B, "--yes").status == 3
    assert site.run("queue", "hold", "--list", B).status == 3
    assert site.states()[queue.failed, B] == "failed"

    assert site.run("queue", "release", queue.failed).status == 0
    assert site.run("queue", "release", "--state", "failed", "--yes").status == 0
    assert (site.states()[queue.failed, B], site.states()[queue.mixed, B]) == ("pending", "pending")


def test_drop_takes_matching_recipients_and_the_content_with_the_last(site: Site, queue: Queue) -> None:
    ran = site.run("queue", "drop", "--list", A, "--yes")

    assert ran.status == 0
    assert "drop: 4 recipients of 3 messages" in ran.err
    assert "announce@lists.test (4)" in ran.err
    assert site.states()[queue.mixed, B] == "failed"
    assert site.run("queue", "show", queue.mixed, "--raw").status == 0
    assert site.run("queue", "show", queue.pending, "--raw").status == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["drop", "--all"],
        ["drop", "--state", "held"],
        ["release", "--all"],
        ["release", "--state", "held,failed"],
    ],
)
def test_without_a_yes_what_cannot_be_taken_back_is_only_told(site: Site, queue: Queue, arguments: list[str]) -> None:
    before = site.states()

    ran = site.run("queue", *arguments)

    assert ran.status == 2
    assert f"{arguments[0]}: " in ran.err
    assert "--yes" in ran.err
    assert site.states() == before


@pytest.mark.parametrize("verb", ["drop", "hold", "release", "replay"])
def test_a_dry_run_says_what_would_be_and_changes_nothing(site: Site, queue: Queue, verb: str) -> None:
    before = site.rows()
    dry = site.run("queue", verb, "--all", "--dry-run", "--json").rows
    table = site.run("queue", verb, "--all", "-n").out

    assert site.rows() == before
    assert len(table.splitlines()) == len(dry) + 1

    site.run("queue", verb, "--all", *(["--yes"] if verb in {"drop", "release"} else []))
    if verb != "replay":  # there is no Mailman here: its states stay
        states = site.states()
        assert [states[one["id"], one["address"]] for one in dry] == [one["after"] for one in dry]
        assert all(one["before"] != one["after"] for one in dry)


@pytest.mark.parametrize("verb", ["drop", "hold", "release", "replay"])
def test_everything_has_to_be_meant(site: Site, queue: Queue, verb: str) -> None:
    before = site.states()

    for arguments in ([], ["--limit", "1"], ["--all", "--list", "*"]):
        assert site.run("queue", verb, *arguments, "--dry-run").status == 2
    assert site.run("queue", verb, "--list", "nobody@*", "--dry-run").status == 3
    assert site.states() == before


def test_a_blank_filter_does_not_mean_everything_else(site: Site, queue: Queue) -> None:
    """A variable that is not set, beside a filter that is."""
    before = site.states()

    for option, blank in (
        ("--list", ""),
        ("--sender", " "),
        ("--older-than", ""),
        ("--newer-than", ""),
        ("--state", "held,"),
    ):
        other = "--sender" if option == "--list" else "--list"
        ran = site.run("queue", "drop", option, blank, other, "*", "--yes")
        assert (ran.status, option in ran.err) == (2, True)

    assert site.states() == before


def test_an_age_of_nothing_is_an_age(site: Site, queue: Queue) -> None:
    assert site.run("queue", "drop", "--newer-than", "0s", "--list", "*", "--yes").status == 3
    assert site.run("queue", "hold", "--older-than", "0s", "--dry-run").status == 0


def test_a_state_that_the_verb_is_not_for_is_misuse(site: Site, queue: Queue) -> None:
    ran = site.run("queue", "hold", "--state", "delivered")

    assert ran.status == 2
    assert "hold is for what is pending" in ran.err


def test_a_limit_takes_the_oldest(site: Site, queue: Queue) -> None:
    site.run("queue", "hold", "--state", "pending,uncertain", "--limit", "1")

    assert (site.states()[queue.pending, A], site.states()[queue.mixed, A]) == ("held", "pending")


async def test_what_is_being_tried_is_left_alone(site: Site, queue: Queue) -> None:
    store = site.store()
    await store.open()
    (claimed,) = await store.claim(time.time(), 1)

    ran = site.run("queue", "drop", "--list", A, "--yes", "--json")
    await store.close()

    assert claimed.id == queue.pending
    assert ran.status == 1
    assert f"{queue.pending} {A}: busy" in ran.err
    assert {(one["id"], one["address"]): one["refused"] for one in ran.rows} == {
        (queue.pending, A): "busy",
        (queue.mixed, A): "",
        (queue.mixed, OWNER): "",
        (queue.held, A): "",
    }


@pytest.mark.parametrize("verb", ["hold", "release", "drop", "replay"])
def test_an_empty_or_a_short_id_means_nothing(site: Site, verb: str) -> None:
    """A variable that is not set, in a script, must not name the only message that there is."""
    (only,) = site.fill(Mail({A: "held"}, age=100))
    for one, words in (("", "an id is empty"), (" ", "an id is empty"), (only[:3], "too short for an id")):
        said = site.run("queue", verb, one, *(["--yes"] if verb in {"release", "drop"} else []))
        assert said.status == 2
        assert words in said.err
