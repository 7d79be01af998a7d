"""A small file system that is filled to the brim: new mail is refused, what is there is still settled."""

import asyncio
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailgate.edge.spool import Database, Store, query, verbs
from mailgate.edge.spool.listing import Selection
from mailgate.edge.spool.place import BALLAST, room
from mailgate.ports import Settlement, SpoolError, SpoolFull
from tests.spool.kit import HOST, NOW, Recorder, a_message, config, octets, put, spool, states

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")

MIB = 2**20


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[Path]:
    """A tmpfs with these options."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "mailgate-test", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """32 MiB."""
    with mounted(tmp_path, "size=32m") as directory:
        yield directory


def fill(directory: Path) -> Path:
    """What another program writes until nothing is free."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while file.write(b"f" * size) == size:
                    pass
            except OSError:
                continue
    assert os.statvfs(directory).f_bavail == 0
    return filler


def exhaust_inodes(directory: Path) -> list[Path]:
    """Make files until there can't be any more."""
    files: list[Path] = []
    for n in range(1000):
        file = directory / f"file{n}"
        try:
            file.touch()
        except OSError:
            return files
        files.append(file)
    raise AssertionError("there is no end of inodes")


def ballast(directory: Path) -> Path:
    """The reserve."""
    return directory / "spool.db.ballast"


def empty_log(directory: Path, how: str = "TRUNCATE") -> None:
    """Write the log back and cut it, so that the next transaction needs new space (PASSIVE: it is not cut)."""
    other = sqlite3.connect(directory / "spool.db")
    assert other.execute(f"PRAGMA wal_checkpoint({how})").fetchone()[0] == 0
    other.close()


async def settle_all(store: Store) -> int:
    """Claim and deliver all, one by one; how many."""
    done = 0
    while claimed := await store.claim(NOW, 1):
        await store.load(claimed[0].id)
        await store.settle(claimed[0].id, [Settlement(n, "delivered", "250") for n in claimed[0].numbers], NOW)
        done += 1
    return done


async def test_min_free_is_kept(disk: Path) -> None:
    async with spool(disk, min_free="20%") as store:
        stored = 0
        refused = ""
        while not refused:
            try:
                await put(store, f"m{stored}", message=a_message(MIB))
                stored += 1
            except SpoolFull as error:
                refused = str(error)
        assert refused.startswith("spool.min_free: ")
        assert refused.endswith(f"are free on the disk of {disk}, 6.4 MiB have to stay so")
        assert stored > 3
        room = os.statvfs(disk)
        assert room.f_bavail * room.f_frsize >= 0.2 * 32 * MIB
        assert await settle_all(store) == stored
        # The pages inside the file are free again, though the disk is as full as before.
        for again in range(stored - 1):
            await put(store, f"again{again}", message=a_message(MIB))


async def test_what_the_log_holds_is_counted_before_it_is_in_the_file(disk: Path) -> None:
    """SQLite writes its log back each few MiB; until then the disk looks emptier than it is."""
    async with spool(disk, min_free="1%") as store:
        refused = ""
        while not refused:
            try:
                await put(store, f"m{store.counts().octets}", message=a_message(600_000))
            except SpoolFull as error:
                refused = str(error)
        assert re.match(r"spool\.min_free: .*, less .* for what the log holds, are free on the disk", refused)
        empty_log(disk, "PASSIVE")  # which takes no more room than it may
        assert room(disk / "spool.db").free >= 32 * MIB // 100


async def test_at_the_brim_new_mail_is_refused_and_the_rest_is_settled(disk: Path) -> None:
    telemetry = Recorder()
    async with spool(disk, telemetry) as store:
        assert ballast(disk).stat().st_blocks * 512 == BALLAST
        await asyncio.gather(*(put(store, f"m{n}", message=a_message(4096)) for n in range(100)))
        empty_log(disk)
        filler = fill(disk)

        with pytest.raises(SpoolFull, match=r"spool\.min_free: 0 B are free"):
            await put(store, "refused")
        assert ballast(disk).exists()
        assert await settle_all(store) == 100
        assert not ballast(disk).exists(), "settling needed the reserve"
        assert (await store.tend(NOW)).ballast is False
        with pytest.raises(SpoolFull):
            await put(store, "refused")
        assert states(store) == {"delivered": 100}

        filler.unlink()
        assert (await store.tend(NOW)).ballast is True
        await put(store, "taken", message=a_message(MIB))
        assert octets(await store.load("taken")) == octets(a_message(MIB))
    assert not telemetry.named("spool.trouble")


async def test_a_full_disk_when_the_ballast_is_gone_is_an_error_and_no_more(disk: Path) -> None:
    async with spool(disk) as store:
        await put(store, "one")
        empty_log(disk)
        ballast(disk).unlink()
        filler = fill(disk)
        with pytest.raises(SpoolFull, match="claiming: no space left"):
            await store.claim(NOW, 1)
        assert "no space" in store.trouble
        filler.unlink()
        [claimed] = await store.claim(NOW, 1)
        assert (claimed.id, store.trouble) == ("one", "")


async def test_a_store_that_meets_the_end_of_the_disk_itself(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program was faster than the check."""
    async with spool(disk) as store:
        await put(store, "one")
        empty_log(disk)
        fill(disk)
        monkeypatch.setattr("mailgate.edge.spool.place.refusal", lambda *_: "")
        with pytest.raises(SpoolFull, match="storing: no space left"):
            await put(store, "two")
        assert ballast(disk).exists(), "new mail has no right to it"
        assert states(store) == {"pending": 1}


async def test_a_spool_opens_on_a_full_disk(disk: Path) -> None:
    async with spool(disk) as store:
        await put(store, "one")
        await store.claim(NOW, 1)
    fill(disk)
    async with spool(disk) as store:
        assert states(store) == {"uncertain": 1}
        assert await settle_all(store) == 1


async def test_a_full_disk_does_not_lock_the_spool_for_ever(disk: Path) -> None:
    """Not even the number of the process that has it can be written into the lock."""
    async with spool(disk) as store:
        await put(store, "one")
    (disk / "spool.db.lock").unlink()  # a spool that was put back from a backup has none
    fill(disk)
    async with spool(disk) as store:
        assert await settle_all(store) == 1
    async with spool(disk) as store:
        assert states(store) == {"delivered": 1}


async def test_what_is_free_inside_the_file_counts_from_the_first_message_on(disk: Path) -> None:
    async with spool(disk) as store:
        for n in range(4):
            await put(store, f"m{n}", message=a_message(2 * MIB))
        list(verbs.drop(store.database, Selection(), NOW))
        empty_log(disk)
    free = room(disk / "spool.db").free
    async with spool(disk, min_free=f"{free - MIB}B") as store:
        await put(store, "first", message=a_message(2 * MIB))


async def test_a_ballast_of_nothing_is_none(tmp_path: Path) -> None:
    """The gate was killed after it had made the file."""
    ballast(tmp_path).touch()
    async with spool(tmp_path):
        assert ballast(tmp_path).stat().st_size == BALLAST


async def test_an_operator_makes_room_on_a_full_disk(disk: Path) -> None:
    async with spool(disk) as store:
        for n in range(3):
            await put(store, f"m{n}", message=a_message(3 * MIB))
    fill(disk)
    database = Database(disk / "spool.db", HOST)
    assert [change.after for change in verbs.drop(database, Selection(), NOW)] == ["dropped"] * 3
    assert database.read(query.counts).octets == 0
    database.close()


async def test_without_inodes(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=32m,nr_inodes=40") as disk:
        async with spool(disk) as store:
            await put(store, "one")
            files = exhaust_inodes(disk)
            with pytest.raises(SpoolFull, match=r"spool\.min_free: 0 inodes are free"):
                await put(store, "refused")
            assert await settle_all(store) == 1
            for file in files:
                file.unlink()
            await put(store, "two")

        files = exhaust_inodes(disk)
        late = Store(config(disk), HOST, Recorder())
        with pytest.raises(SpoolError, match="no space or inode is free"):
            await late.open()
        for file in files:
            file.unlink()
        await late.open()
        assert states(late) == {"pending": 1, "delivered": 1}
        await late.close()
