"""Whose spool it is, who may serve it, what pauses it, which versions it knows, and what keeps it from opening."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import Connection

from mailgate.core.spam import AWAITS_SCORE
from mailgate.edge.spool import Control, Database, Pause, SpoolAbsent, SpoolBusy, Store, control, place, schema, upkeep
from mailgate.ports import Parked, SpoolError
from tests.spool.kit import HOST, NOW, Recorder, a_message, config, octets, put, put_unscored, spool, sql, states
from tests.spool.processes import child

STEPS = schema.STEPS
VERSION = len(STEPS) + 1


async def foreign(directory: Path, host: str = HOST) -> str:
    """What a gate says of the spool in a directory."""
    store = Store(config(directory), host, Recorder())
    opened = await store.open()
    assert opened
    assert (await store.control(NOW)).foreign == opened.foreign
    await store.close()
    return opened.foreign


async def test_a_spool_is_its_gates_own_also_after_a_restart(tmp_path: Path) -> None:
    assert await foreign(tmp_path) == ""
    assert await foreign(tmp_path) == ""


async def test_a_name_without_its_domain_is_the_same_gate(tmp_path: Path) -> None:
    assert await foreign(tmp_path, "gate.lists.test") == ""
    assert await foreign(tmp_path, "Gate") == ""
    assert "host name 'gate.lists.test'; here it is host name 'other'" in await foreign(tmp_path, "other")


async def test_a_copy_is_foreign_until_it_is_adopted(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    async with spool(here) as store:
        await put(store, "one", "a@lists.test", "b@lists.test")
    shutil.copytree(here, there)

    words = await foreign(there)
    assert words.startswith("this spool was written with path ")
    assert str(here / "spool.db") in words
    assert str(there / "spool.db") in words
    assert await foreign(here) == ""

    async with spool(there) as store:
        await put(store, "two")  # new mail is taken all the same
        assert (await store.control(NOW)).foreign == words
        database = Database(there / "spool.db", HOST)
        assert upkeep.adopt(database) == 3
        database.close()
        assert (await store.control(NOW)).foreign == ""
        assert states(store) == {"uncertain": 3}
    assert await foreign(there) == ""


async def test_adopting_what_was_only_moved(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put(store, "one")
    database = Database(tmp_path / "spool.db", "other.lists.test")
    assert "host name" in await foreign(tmp_path, "other.lists.test")
    assert upkeep.adopt(database, uncertain=False) == 0
    database.close()
    assert await foreign(tmp_path, "other.lists.test") == ""
    assert "host name" in await foreign(tmp_path)


async def test_nothing_is_claimed_from_a_foreign_or_a_paused_spool(store: Store, tmp_path: Path) -> None:
    """Whoever claims may not have looked yet whose it is."""
    await put(store, "one")
    await put_unscored(store, "two", Parked("a@lists.test", "held", AWAITS_SCORE))
    sql(tmp_path, "INSERT INTO meta VALUES ('copy', 'yes')")
    assert await store.claim(NOW, 9) == await store.claim_awaiting(NOW + 1, NOW + 1, 9) == []
    upkeep.adopt(store.database)
    store.database.write(lambda c: control.pause(c, "upgrade", NOW + 60, NOW))
    assert await store.claim(NOW, 9) == await store.claim_those(NOW, {"one": None}) == []
    assert [one.id for one in await store.claim(NOW + 61, 9)] == ["one"]


@pytest.mark.parametrize(
    ("pause", "reason"),
    [
        ('{"reason": "moving", "since": 1, "until": null, "by": "a newer mailgate"}', "moving"),
        ("{", "can't be read: {"),
        ("[]", "read: []"),
    ],
)
async def test_what_stands_in_the_file_about_it_may_be_odd(
    store: Store, tmp_path: Path, pause: str, reason: str
) -> None:
    sql(tmp_path, "INSERT INTO meta VALUES ('pause', ?)", pause)
    sql(tmp_path, "UPDATE meta SET value = ? WHERE key = 'owner'", pause)
    found = await store.control(NOW)
    assert found.paused
    assert found.paused.reason.endswith(reason)
    assert found.foreign
    store.database.write(lambda c: control.resume(c, NOW))
    upkeep.adopt(store.database)
    assert await store.control(NOW) == Control(None, "")


async def test_a_file_put_back_in_its_place_is_foreign(tmp_path: Path) -> None:
    """Yesterday's copy moved back: what it holds may have been delivered since."""
    async with spool(tmp_path) as store:
        await put(store, "one")
    shutil.copy(tmp_path / "spool.db", tmp_path / "yesterday.db")
    (tmp_path / "yesterday.db").replace(tmp_path / "spool.db")
    assert "written with file" in await foreign(tmp_path)


async def test_a_backup_is_whole_consistent_and_foreign_wherever_it_is_put(tmp_path: Path) -> None:
    copy = tmp_path / "copies" / "backup.db"
    copy.parent.mkdir()
    steps: list[tuple[int, int]] = []
    async with spool(tmp_path) as store:
        await put(store, "one", message=a_message(3_000_000))
        await store.claim(NOW, 1)
        upkeep.backup(store.database, copy, lambda done, total: steps.append((done, total)))
        await put(store, "two")
        with pytest.raises(SpoolError, match="is the spool itself"):
            upkeep.backup(store.database, tmp_path / "spool.db")
    assert list(copy.parent.iterdir()) == [copy]
    assert copy.stat().st_mode & 0o777 == 0o600
    assert steps[-1][0] == steps[-1][1] > 700

    with (tmp_path / "spool.db").open("r+b") as file:  # the same path, the same inode
        file.truncate()
        file.write(copy.read_bytes())
    assert "is a copy that was made of" in await foreign(tmp_path)
    async with spool(tmp_path) as store:
        assert states(store) == {"uncertain": 1}
        assert octets(await store.load("one")) == octets(a_message(3_000_000))
        upkeep.adopt(store.database)
    assert await foreign(tmp_path) == ""


async def test_a_backup_that_can_not_be_written_leaves_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="No such file or directory"):
        upkeep.backup(store.database, tmp_path / "nowhere" / "backup.db")
    (tmp_path / "taken").mkdir()
    with pytest.raises(SpoolError, match="directory"):
        upkeep.backup(store.database, tmp_path / "taken")
    assert not list(tmp_path.glob("*.part"))


async def test_no_link_leads_a_verb_of_root_elsewhere(tmp_path: Path) -> None:
    """The directory is the daemon's: what lies in it may be of its making."""
    victim = tmp_path / "victim"
    victim.write_text("root's own")
    async with spool(tmp_path) as store:
        await put(store, "one")
    for ending in (".lock", ".ballast"):
        place.beside(tmp_path / "spool.db", ending).unlink()
        place.beside(tmp_path / "spool.db", ending).symlink_to(victim)
    with pytest.raises(SpoolError, match="symbolic links"):
        Database(tmp_path / "spool.db", HOST, serve=True)
    (tmp_path / "spool.db.lock").unlink()
    async with spool(tmp_path) as store:
        (tmp_path / "backup.db.part").symlink_to(victim)
        upkeep.backup(store.database, tmp_path / "backup.db")
    assert victim.read_text() == "root's own"


async def test_a_lock_that_was_deleted_is_taken_again(store: Store, telemetry: Recorder, tmp_path: Path) -> None:
    """Else another gate could serve beside this one."""
    (tmp_path / "spool.db.lock").unlink()
    with pytest.raises(SpoolError, match="its lock has been moved or deleted"):
        await put(store, "one")
    assert await store.open()
    assert telemetry.named("spool.replaced")
    with pytest.raises(SpoolBusy):
        Database(tmp_path / "spool.db", HOST, serve=True)
    await put(store, "one")


async def test_one_process_serves(store: Store, tmp_path: Path) -> None:
    other = Store(config(tmp_path), HOST, Recorder())
    with pytest.raises(SpoolBusy, match=f"the spool is in use by process {os.getpid()}"):
        await other.open()
    with pytest.raises(SpoolError, match="in use"):
        await put(other, "one")
    await put(store, "one")
    await store.close()
    await other.open()
    assert states(other) == {"pending": 1}
    await other.close()


async def test_a_pause_from_another_process(store: Store, tmp_path: Path) -> None:
    assert (await store.control(NOW)).paused is None
    with child("pause", tmp_path) as one:
        assert one.ask("upgrade of Mailman") == "done"
        assert (await store.control(NOW)).paused == Pause("upgrade of Mailman", NOW, None)
        assert one.ask("") == "done"
        assert (await store.control(NOW)).paused is None


async def test_a_pause_ends_by_itself(store: Store) -> None:
    store.database.write(lambda c: control.pause(c, "for a minute", NOW + 60, NOW))
    assert (await store.control(NOW + 59)).paused == Pause("for a minute", NOW, NOW + 60)
    assert (await store.control(NOW + 60)).paused is None
    assert store.database.write(lambda c: control.resume(c, NOW + 60)) is None
    store.database.write(lambda c: control.pause(c, "again", None, NOW))
    assert store.database.write(lambda c: control.resume(c, NOW)) == Pause("again", NOW, None)


async def test_a_file_that_is_taken_away_is_noticed(tmp_path: Path) -> None:
    store = Store(config(tmp_path), HOST, Recorder())
    await store.open()
    assert await store.open() is None
    for name in ("spool.db", "spool.db-wal", "spool.db-shm"):
        (tmp_path / name).unlink()
    with pytest.raises(SpoolError, match="moved or deleted while in use"):
        await put(store, "lost")
    opened = await store.open()
    assert opened
    assert opened.created
    await put(store, "kept")
    assert states(store) == {"pending": 1}
    await store.close()


def set_version(directory: Path, version: str) -> None:
    """What another mailgate would have written."""
    connection = sqlite3.connect(directory / "spool.db")
    with connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'version'", (version,))
    connection.close()


async def test_a_newer_version_is_refused_with_words(tmp_path: Path) -> None:
    async with spool(tmp_path) as store:
        await put(store, "one")
    set_version(tmp_path, "7")
    words = rf"spool\.db: the spool has version 7, this mailgate knows versions up to {VERSION}: install the newer"
    with pytest.raises(SpoolError, match=words):
        await Store(config(tmp_path), HOST, Recorder()).open()
    with pytest.raises(SpoolError, match=words):
        Database(tmp_path / "spool.db", HOST)
    set_version(tmp_path, str(VERSION))
    async with spool(tmp_path) as store:
        assert states(store) == {"pending": 1}


def add(name: str) -> schema.Step:
    """A step that adds a column."""

    def step(connection: Connection) -> None:
        connection.exec_driver_sql(f"ALTER TABLE messages ADD COLUMN {name} TEXT")

    return step


def columns(directory: Path) -> set[str]:
    """The columns of the messages."""
    connection = sqlite3.connect(directory / "spool.db")
    rows = connection.execute("PRAGMA table_info(messages)").fetchall()
    connection.close()
    return {row[1] for row in rows}


async def test_an_older_version_is_brought_forward_step_by_step_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spool(tmp_path) as store:
        await put(store, "one")

    monkeypatch.setattr(schema, "STEPS", (*STEPS, add("second"), add("second")))
    with pytest.raises(SpoolError, match="duplicate column"):
        Database(tmp_path / "spool.db", HOST)
    assert "second" not in columns(tmp_path)

    monkeypatch.setattr(schema, "STEPS", (*STEPS, add("second"), add("third")))
    database = Database(tmp_path / "spool.db", HOST)
    assert {"second", "third"} <= columns(tmp_path)
    assert database.read(lambda c: control.read(c, "version")) == str(VERSION + 2)
    database.close()

    monkeypatch.setattr(schema, "STEPS", (*STEPS, add("second"), add("third"), add("fourth")))
    async with spool(tmp_path) as store:
        assert states(store) == {"pending": 1}
    assert "fourth" in columns(tmp_path)


async def test_a_verb_does_not_change_the_version_under_a_running_gate(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        schema,
        "STEPS",
        (
            *STEPS,
            add("second"),
        ),
    )
    with pytest.raises(SpoolError, match=f"has version {VERSION} and is served by an older mailgate: restart it"):
        Database(tmp_path / "spool.db", HOST)
    assert "second" not in columns(tmp_path)
    await put(store, "one")


async def test_somebody_elses_database(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "spool.db")
    connection.execute("CREATE TABLE users (name TEXT)")
    connection.close()
    before = (tmp_path / "spool.db").read_bytes()
    with pytest.raises(SpoolError, match="this database is not a spool: it has other tables"):
        await Store(config(tmp_path), HOST, Recorder()).open()
    assert (tmp_path / "spool.db").read_bytes() == before


async def test_places_where_no_spool_can_be(tmp_path: Path) -> None:
    store = Store(config(tmp_path / "nowhere"), HOST, Recorder())
    with pytest.raises(SpoolError, match=r"nowhere: no such directory: make it, writable for mailgate \(spool\.url\)"):
        await store.open()
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(SpoolAbsent, match="there is no spool"):
        Database(tmp_path / "nowhere" / "spool.db", HOST)
    (tmp_path / "nowhere" / "spool.db").mkdir()
    with pytest.raises(SpoolError, match=r"spool\.db: not a file"):
        await store.open()
    (tmp_path / "nowhere" / "spool.db").rmdir()
    await store.open()
    await put(store, "one")
    await store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_s_spool() -> None:
    """Said in words, and not made in part."""
    script = (
        "import os, sys; from pathlib import Path; from mailgate.edge.spool import Database\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try: Database(Path(path), 'h', serve=True)\n"
        "    except Exception as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as name:
        there, missing = Path(name) / "there", Path(name) / "missing"
        for directory in (Path(name), there, missing):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o755)
        Database(there / "spool.db", HOST, serve=True).close()
        run = [sys.executable, "-c", script, str(there / "spool.db"), str(missing / "spool.db")]
        said = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
        assert said == [
            f"{there}: not readable and writable for mailgate (spool.url)",
            f"{missing}: not writable for mailgate (spool.url)",
        ]
        assert not list(missing.iterdir())
