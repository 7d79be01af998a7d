"""`unscored list`: which posts passed unscored, in which outage; with the daemon up and down."""

import asyncio
import contextlib
import re
import signal
import sqlite3
import time
from datetime import UTC, datetime, timedelta

import pytest

from mailgate.core.envelope import Envelope
from mailgate.core.fate import Fate
from mailgate.edge.spool import Store
from mailgate.ports import Facts, Parked, Post, Settlement
from tests.cli.site import Mail, Site
from tests.cli.test_beside_the_daemon import Daemon
from tests.cli.test_terminal import Terminal, terminal
from tests.spool.kit import a_message
from tests.stack.fake_mailman import FakeMailman
from tests.stack.waiting import wait_until

__all__ = ["terminal"]  # a fixture

A, B, OWNER = "announce@lists.test", "dev@lists.test", "announce-owner@lists.test"
HOUR, DAY = 3600.0, 86400.0
NOON = (datetime.now(UTC) - timedelta(days=3)).replace(hour=12, minute=0, second=0, microsecond=0)
PASSED = {
    "noon-01": {A: "delivered"},
    "noon-02": {A: "delivered", B: "delivered"},
    "noon-03": {OWNER: "uncertain"},
    "soon-01": {B: "delivered"},
}
KEPT = {"soon-02": {A: "scored"}, "soon-03": {A: "pending"}, "soon-04": {A: "held"}}


def unscored(gate_id: str, received: float, *to: str, reason: str = "timeout") -> Post:
    """A post without a score."""
    facts = Facts(
        f"1vMhGk-0004sm-{gate_id[-2:]}", f"<{gate_id}@example.org>", "ip=192.0.2.7", f"unscored:{reason}: why"
    )
    return Post(gate_id, Envelope("ann@example.org", to), 2048, facts, received)


def pass_on(store: Store, *posts: Post, fate: Fate = Fate.DELIVERED) -> None:
    """They went on. Then a scan worked."""
    for post in posts:
        store.ledger.passing(post).became(dict.fromkeys(post.envelope.recipients, fate))
    store.ledger.scored()


async def _outages(site: Site) -> None:
    store, noon, now = site.store(), NOON.timestamp(), time.time()
    await store.open()
    pass_on(store, unscored("noon-01", noon, A), unscored("noon-02", noon + 90, A, B, reason="refused"))
    pass_on(store, unscored("noon-03", noon + 600, OWNER), fate=Fate.UNCERTAIN)
    pass_on(store, unscored("soon-01", now - 2 * HOUR, B))
    for number, (name, state) in enumerate((("soon-02", "pending"), ("soon-03", "pending"), ("soon-04", "held"))):
        post = unscored(name, now - HOUR + number, A)
        await store.store(name, post.envelope, a_message(), [Parked(A, state, "")], post.facts, post.received, 5)
    await store.claim(now, 1)
    await store.settle("soon-02", [Settlement(0, "delivered", "250")], now, 'scored:[3.25, 5, "", "s"]')
    await store.close()


@pytest.fixture
def ledger(site: Site) -> Site:
    """A site with four outages, in the last of which nothing passed unscored."""
    asyncio.run(_outages(site))
    return site


def states(site: Site, *arguments: str) -> dict[str, dict[str, str]]:
    """The states of the posts that are listed with these options, by recipient."""
    ran = site.run("unscored", "list", "--json", *arguments)
    assert ran.status == (0 if ran.rows else 3), ran.err
    return {row["id"]: {one["address"]: one["state"] for one in row["recipients"]} for row in ran.rows}


def test_what_passed_unscored_is_listed_outage_by_outage(ledger: Site) -> None:
    ran = ledger.run("unscored", "list")

    assert (ran.status, ran.err) == (0, "")
    noon, late, soon = ran.out.split("\n\n")
    head, columns, *rows = noon.splitlines()
    said = r"outage \S+ to \S+ \(1m 30s, last post .* ago\): 2 posts unscored, refused 1, timeout 1"
    assert re.fullmatch(said, head), head
    assert [datetime.fromisoformat(head.split()[n]) - NOON for n in (1, 3)] == [timedelta(), timedelta(seconds=90)]
    assert columns.split() == [
        "ID",
        "RECEIVED",
        "SIZE",
        "STATE",
        "SENDER",
        "RECIPIENT",
        "EXIM",
        "ID",
        "MESSAGE-ID",
        "WHY",
    ]
    assert [line.split()[0] for line in rows] == ["noon-01", "noon-02", "noon-02"]
    last = f"2.0 KiB delivered ann@example.org {B} 1vMhGk-0004sm-02 <noon-02@example.org> refused"
    assert rows[2].split()[2:] == last.split()
    assert "1 post unscored, timeout 1" in late
    assert "uncertain" in late
    assert "soon-01" in soon


def test_all_of_the_ledger(ledger: Site) -> None:
    assert states(ledger) == PASSED
    assert states(ledger, "--all") == PASSED | KEPT
    lines = ledger.run("unscored", "list", "--all", "--since", "90m").out.splitlines()
    assert "3 posts without a score, timeout 3" in lines[0]
    assert lines[2].split()[4:6] == ["scored", "ann@example.org"]
    assert lines[2].endswith("timeout, then scored 3.2")


def test_an_object_has_all_that_is_known(ledger: Site) -> None:
    rows = ledger.run("unscored", "list", "--json").rows
    assert rows[2] == {
        "id": "noon-03",
        "outage": "noon-03",
        "received": NOON.timestamp() + 600,
        "size": 2048,
        "sender": "ann@example.org",
        "exim_id": "1vMhGk-0004sm-03",
        "message_id": "<noon-03@example.org>",
        "client": "ip=192.0.2.7",
        "reason": "timeout",
        "detail": "why",
        "score": None,
        "recipients": [{"address": OWNER, "list": A, "state": "uncertain"}],
    }
    assert [row["outage"] for row in rows] == ["noon-01", "noon-01", "noon-03", "soon-01"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--since", "1d"], ["soon-01"]),
        (["--since", f"{NOON.date()}T12:01:30+00:00", "--until", "1d"], ["noon-02", "noon-03"]),
        (["--until", f"{NOON.date()}T12:01Z"], ["noon-01"]),
        (["--since", f"{NOON.date() - timedelta(days=1)}", "--until", "1d"], ["noon-01", "noon-02", "noon-03"]),
        (["--until", f"{NOON.date() - timedelta(days=1)}"], []),
        (["--since", "5m"], []),
        (["--list", B], ["noon-02", "soon-01"]),
        (["--list", "ANNOUNCE@*"], ["noon-01", "noon-02", "noon-03"]),
        (["--list", "announce-owner@*"], ["noon-03"]),
        (["--list", "other@*"], []),
        (["--list", A, "--all", "--since", "90m"], ["soon-02", "soon-03", "soon-04"]),
    ],
)
def test_filters(ledger: Site, arguments: list[str], found: list[str]) -> None:
    assert list(states(ledger, *arguments)) == found


def test_only_those_recipients_are_listed_that_are_meant(ledger: Site) -> None:
    assert states(ledger, "--list", B)["noon-02"] == {B: "delivered"}


def test_the_outages_alone(ledger: Site) -> None:
    ran = ledger.run("unscored", "list", "--outages")
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0] == ["BEGAN", "LAST", "POST", "LASTED", "POSTS", "WHY"]
    assert [line[2:] for line in lines[1:]] == [
        *(
            ["1m", "30s", "2", "refused", "1,", "timeout", "1"],
            ["0s", "1", "timeout", "1"],
            ["0s", "1", "timeout", "1"],
        ),
    ]
    rows = ledger.run("unscored", "list", "--outages", "--json", "--all", "--list", A).rows
    assert [(row["outage"], row["ended"] - row["began"], row["posts"], row["reasons"]) for row in rows] == [
        ("noon-01", 90, 2, {"timeout": 1, "refused": 1}),
        ("noon-03", 0, 1, {"timeout": 1}),
        ("soon-02", 2, 3, {"timeout": 3}),
    ]


@pytest.mark.parametrize("options", [[], ["--json"], ["--outages"], ["--outages", "--json"]])
def test_nothing_matched(site: Site, options: list[str]) -> None:
    site.fill(Mail())
    ran = site.run("unscored", "list", *options)
    assert (ran.status, ran.out, ran.err) == (3, "", "mailgate: no such post in the ledger\n")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--since", "yesterday"], 2, "--since: 'yesterday' is not a time"),
        (["--until", "5x"], 2, "2026-11-22T03:10"),
        (["--nonsense"], 2, "nonsense"),
        (["--config", "/nonexistent/mailgate.toml"], 1, "/nonexistent/mailgate.toml"),
    ],
)
def test_misuse_is_told(ledger: Site, arguments: list[str], status: int, words: str) -> None:
    ran = ledger.run("unscored", "list", *arguments)
    assert (ran.status, ran.out) == (status, "")
    assert words in ran.err


def test_many_posts_are_streamed(site: Site) -> None:
    async def fill() -> None:
        store = site.store()
        await store.open()
        pass_on(store, *(unscored(f"m{n:04}", NOON.timestamp() + n % 7, A) for n in range(1500)))
        await store.close()

    asyncio.run(fill())
    listed = list(states(site))
    assert listed == sorted(listed, key=lambda name: (int(name[1:]) % 7, name))
    assert len(listed) == 1500
    ran = site.run("unscored", "list")
    assert "1500 posts unscored" in ran.out
    assert len(ran.out.splitlines()) == 1502


def test_a_terminal_gets_tables_without_control_characters(
    site: Site, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill() -> None:
        store = site.store()
        await store.open()
        facts = Facts("", "<\x1b[2J@example.org>", "", "unscored:garbage: \x1b]0;owned\x07")
        pass_on(
            store, Post("one", Envelope("x\x9b2J@example.org", ("b\udcf6b@lists.test",)), 9, facts, NOON.timestamp())
        )
        await store.close()

    asyncio.run(fill())
    with terminal.taken_over(monkeypatch):
        assert site.call("unscored", "list") == 0
        assert site.call("unscored", "list", "--outages") == 0
    terminal.wait_for("LASTED")
    terminal.wait_for("garbage 1\r\n")
    assert "─────" in terminal.text
    assert r"b\udcf6b@lists.test" in terminal.text
    assert terminal.text.replace("\r", "").replace("\n", "").isprintable()
    assert b"\x1b[2J" not in terminal.octets
    assert site.run("unscored", "list", "--json").rows[0]["recipients"][0]["address"] == "b\udcf6b@lists.test"


def test_beside_a_running_daemon(fed: Site, fake: FakeMailman) -> None:
    """What waits in the spool goes out while it is listed; nobody scores, so it passes unscored."""
    asyncio.run(_outages(fed))
    fed.config.write_text(fed.config.read_text() + '[spam]\nengine = "rspamd"\nservers = ["127.0.0.1:9"]\n')
    daemon = Daemon(fed)
    try:
        wait_until(lambda: states(fed) == PASSED | {"soon-03": {A: "delivered"}}, "the ledger knows it")
        assert [taken.message_id for taken in fake.taken] == ["<1@example.org>"]
        assert states(fed, "--all")["soon-04"] == {A: "held"}
        daemon.child.send(signal.SIGTERM)
        assert daemon.child.wait(60) == 0
    finally:
        daemon.child.kill()
    assert states(fed) == PASSED | {"soon-03": {A: "delivered"}}


def test_a_spool_of_version_1_is_brought_forward(site: Site) -> None:
    site.fill(Mail())
    with contextlib.closing(sqlite3.connect(site.spool, isolation_level=None)) as database:  # as version 1 made it
        for statement in (
            "ALTER TABLE messages DROP COLUMN scan",
            "DROP TABLE unscored",
            "DROP TABLE unscored_recipients",
            "UPDATE meta SET value = '1' WHERE key = 'version'",
        ):
            database.execute(statement)
    assert site.run("unscored", "list").status == 3
    asyncio.run(_outages(site))
    assert states(site) == PASSED
