"""`queue list` and `queue stats`: what is shown, which filters choose what, and how a verb ends."""

import re

import pytest

from mailgate.ports import Facts
from tests.cli.site import Mail, Site

HOUR, DAY = 3600.0, 86400.0


FILTERS: list[tuple[str, set[int]]] = [
    ("", {0, 1, 2, 3, 4}),
    ("--list announce@lists.test", {0, 1}),
    ("--list ANNOUNCE@*", {0, 1}),
    ("--list *@lists.test", {0, 1, 2, 3}),
    ("--list dev@lists.test", {2, 3}),  # a list is all its addresses, as in `stats`
    ("--list dev-bounces*", {3}),
    ("--list dev", set()),
    ("--sender <>", {1, 3}),
    ("--sender bob@*", {2}),
    ("--sender <ann@example.org>", {0, 4}),
    ("--older-than 1h", {0, 1, 2}),
    ("--newer-than 1h", {3, 4}),
    ("--older-than 1h --newer-than 1d", {1, 2}),
    ("--state pending", {1, 3, 4}),
    ("--state uncertain", {2}),
    ("--state held,failed", {0, 1}),
    ("--state held --state failed", {0, 1}),
    ("--state pending --sender <> --list announce*", {1}),
    ("--limit 2", {0, 1}),
]


@pytest.fixture
def queue(site: Site) -> list[str]:
    """Five messages, oldest first."""
    return site.fill(
        Mail({"announce@lists.test": "failed"}, age=2 * DAY, facts=Facts("1vMhGk-0004sm-35", "<one@example.org>", "")),
        Mail({"announce@lists.test": "pending", "announce-owner@lists.test": "held"}, sender="", age=5 * HOUR),
        Mail({"dev@lists.test": "pending"}, sender="Bob@Example.NET", age=2 * HOUR, uncertain=True),
        Mail({"dev-bounces+ann=example.org@lists.test": "pending"}, sender="", age=50 * 60),
        Mail({"users@other.test": "pending"}, age=30),
    )


def test_a_pipe_gets_aligned_lines_one_for_each_recipient(site: Site, queue: list[str]) -> None:
    ran = site.run("queue", "list")

    lines = ran.out.splitlines()
    title, rows = lines[0], lines[1:]
    assert (ran.status, ran.err) == (0, "")
    assert " ".join(title.split()) == "ID RECEIVED AGE SIZE STATE TRIES NEXT SENDER RECIPIENT LAST REPLY"
    assert [row.split()[0] for row in rows] == [queue[0], queue[1], queue[1], *queue[2:]]
    assert len({row.index("451 4.3.0") for row in rows} | {title.index("LAST REPLY")}) == 1
    assert re.search(r"announce@lists\.test +451", rows[0])
    assert re.search(r" 5h .* pending .* <> +announce@lists\.test ", rows[1])
    assert re.search(r"T\d\d:\d\d:\d\d[+-]\d\d:\d\d", rows[0]), "the local time says its offset"


def test_filters_choose(site: Site, queue: list[str]) -> None:
    for filters, chosen in FILTERS:
        ran = site.run("queue", "list", "--json", *filters.split())

        assert {queue.index(row["id"]) for row in ran.rows} == chosen, filters
        assert ran.status == (0 if chosen else 3), filters


def test_only_recipients_that_match_are_listed(site: Site, queue: list[str]) -> None:
    (row,) = site.run("queue", "list", "--json", "--state", "held").rows

    assert [(one["number"], one["address"]) for one in row["recipients"]] == [(1, "announce-owner@lists.test")]


def test_a_message_is_found_by_parts_of_its_names(site: Site, queue: list[str]) -> None:
    for name in (queue[0], queue[0].upper(), queue[0][-8:], "1vMhGk-0004sm-35", "<one@example.org>", "one@example.org"):
        (row,) = site.run("queue", "list", "--json", name).rows
        assert row["id"] == queue[0], name


def test_an_id_that_fits_several_is_refused_with_those(site: Site, queue: list[str]) -> None:
    ran = site.run("queue", "list", queue[0][:2])

    assert (ran.status, ran.out) == (2, "")
    assert all(gate_id in ran.err for gate_id in queue)


def test_an_id_that_fits_none_matches_nothing(site: Site, queue: list[str]) -> None:
    ran = site.run("queue", "list", queue[0][-8:], "nosuchid")

    assert (ran.status, ran.out) == (3, "")
    assert "nosuchid" in ran.err


def test_json_has_the_octets_of_an_address_and_tables_none_that_steer_a_terminal(site: Site) -> None:
    odd = "b\udcf6b\x1b[2J@lists.test"
    site.fill(Mail({odd: "pending"}, sender="\u202eevil\x07@example.org", reply="451 \x1b]0;title\x07"))

    (row,) = site.run("queue", "list", "--json").rows
    shown = site.run("queue", "list").out

    assert row["recipients"][0]["address"] == odd
    assert row["sender"] == "\u202eevil\x07@example.org"
    assert shown.replace("\n", "").isprintable()
    assert r"b\udcf6b\x1b[2J@lists.test" in shown


def test_what_is_settled_is_shown_when_asked_for(site: Site, queue: list[str]) -> None:
    site.run("queue", "drop", queue[4], "--yes")

    assert queue[4] not in site.run("queue", "list").out
    assert queue[4] in site.run("queue", "list", "--state", "dropped").out
    assert queue[4] in site.run("queue", "list", queue[4]).out


def test_very_many_rows_are_streamed_in_the_same_columns(site: Site) -> None:
    ids = site.fill(*(Mail(age=9000 - n) for n in range(620)))

    lines = site.run("queue", "list").out.splitlines()

    assert [line.split()[0] for line in lines[1:]] == ids
    assert len({line.index("announce@") for line in lines[1:]}) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--older-than", "5x"], 2, "Invalid value for --older-than: '5x' is not a duration"),
        (["--state", "gone"], 2, "'gone' is not a state"),
        (["--limit", "0"], 2, "limit"),
        (["--nonsense"], 2, "nonsense"),
        (["--config", "/nonexistent/mailgate.toml"], 1, "/nonexistent/mailgate.toml"),
    ],
)
def test_misuse_is_told(site: Site, queue: list[str], arguments: list[str], status: int, words: str) -> None:
    ran = site.run("queue", "list", *arguments)

    assert (ran.status, ran.out) == (status, "")
    assert words in ran.err


def test_a_spool_that_is_not_there_or_not_one_is_told(site: Site) -> None:
    absent = site.run("queue", "list")
    site.spool.write_bytes(b"this is not a database" * 100)
    other = site.run("queue", "list")

    assert (absent.status, other.status) == (1, 1)
    assert f"{site.spool}: there is no spool" in absent.err
    assert "not a database" in other.err


def test_stats_count_by_list_and_age(site: Site, queue: list[str]) -> None:
    site.fill(*(Mail({"dev-owner@lists.test": "pending"}, age=HOUR) for _ in range(3)))

    lines = [line.split() for line in site.run("queue", "stats").out.splitlines()]
    rows = site.run("queue", "stats", "--json").rows

    assert lines[0][:3] == ["LIST", "T", "5"]
    assert [line[:2] for line in lines[1:5]] == [
        ["TOTAL", "7"],
        ["dev@lists.test", "5"],
        ["announce@lists.test", "1"],
        ["users@other.test", "1"],
    ]
    assert rows[0] == {"list": "dev@lists.test", "total": 5, "minutes": rows[0]["minutes"]}
    assert {age: number for age, number in rows[0]["minutes"].items() if number} == {"80": 4, "160": 1}
    assert "6 pending, 1 uncertain, 1 held, 1 failed" in site.run("queue", "stats").out


def test_stats_count_by_domain(site: Site, queue: list[str]) -> None:
    rows = site.run("queue", "stats", "--by", "domain", "--json").rows

    assert [(row["domain"], row["total"]) for row in rows] == [("lists.test", 3), ("other.test", 1)]


def test_stats_of_an_empty_queue_match_nothing(site: Site) -> None:
    site.fill()

    ran, listed = site.run("queue", "stats"), site.run("queue", "list")

    assert (ran.status, listed.status) == (3, 3)
    assert (ran.err, listed.err, listed.out) == ("mailgate: nothing waits\n", "mailgate: nothing matches\n", "")
