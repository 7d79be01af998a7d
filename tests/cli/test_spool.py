"""`mailgate spool backup`, `verify` and `adopt`."""

import shutil
import sqlite3

import pytest

from tests.cli.site import Mail, Site

A, B = "announce@lists.test", "dev@lists.test"


@pytest.fixture
def two(site: Site) -> list[str]:
    """Two messages."""
    return site.fill(Mail({A: "pending"}, age=100), Mail({B: "held"}))


def test_a_backup_is_whole_and_not_replayed_before_it_is_adopted(site: Site, two: list[str]) -> None:
    target = site.directory / "backup.db"

    ran = site.run("spool", "backup", str(target))
    for path in site.directory.glob("spool.db*"):
        path.unlink()
    shutil.copy(target, site.spool)
    replayed = site.run("queue", "replay", "--all")
    unasked = site.run("spool", "adopt")
    dry = site.run("spool", "adopt", "--dry-run")
    before = site.states()
    adopted = site.run("spool", "adopt", "--yes")

    assert (ran.status, ran.out.split()[0]) == (0, f"{target}:")
    assert (replayed.status, unasked.status, dry.status, adopted.status) == (1, 2, 0, 0)
    assert "is a copy that was made of" in replayed.err
    assert "is a copy that was made of" in unasked.err
    assert "2 recipients will be this gate's" in dry.err
    assert before == {(two[0], A): "pending", (two[1], B): "held"}
    assert "2 recipients newly marked as uncertain" in adopted.out
    assert site.states() == {(two[0], A): "uncertain", (two[1], B): "held"}
    assert site.run("spool", "adopt", "--yes").status == 3


def test_adopting_what_was_not_touched_doubts_nothing(site: Site, two: list[str]) -> None:
    target = site.directory / "backup.db"
    site.run("spool", "backup", str(target))
    shutil.copy(target, site.spool)
    for ending in ("-wal", "-shm"):
        site.spool.with_name(f"spool.db{ending}").unlink(missing_ok=True)

    assert site.run("spool", "adopt", "--yes", "--untouched").status == 0
    assert site.states()[two[0], A] == "pending"


def test_a_backup_overwrites_nothing(site: Site, two: list[str]) -> None:
    target = site.directory / "backup.db"
    target.write_text("precious")

    ran = site.run("spool", "backup", str(target))
    itself = site.run("spool", "backup", str(site.spool))
    nowhere = site.run("spool", "backup", str(site.directory / "none" / "backup.db"))

    assert (ran.status, itself.status, nowhere.status) == (1, 1, 1)
    assert target.read_text() == "precious"
    assert len(site.states()) == 2


def test_verify_finds_damage_and_sets_it_aside(site: Site, two: list[str]) -> None:
    well = site.run("spool", "verify")
    with sqlite3.connect(site.spool) as database:
        database.execute("UPDATE bodies SET data = x'00' WHERE message_id = ?", (two[1],))
    database.close()

    ran = site.run("spool", "verify")
    rows = site.run("spool", "verify", "--json").rows

    assert (well.status, well.out, well.err) == (0, "", "all is well\n")
    assert ran.status == 1
    assert ran.out.startswith(f"{two[1]}: ")
    assert "(set aside)" in ran.out
    assert [(row["id"], row["done"]) for row in rows] == [(two[1], "")]
    assert site.states() == {(two[0], A): "pending", (two[1], B): "corrupt"}
