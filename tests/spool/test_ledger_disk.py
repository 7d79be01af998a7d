"""The ledger on a full disk: mail goes on without it, that is said, and it is made up for when there is room."""

import os
from pathlib import Path

import pytest

from mailgate.core.fate import Fate
from mailgate.edge.spool.work import ENTRY
from mailgate.ports import Parked, SpoolFull
from tests.spool.kit import NOW, Recorder, a_post, ledger, put, put_unscored, spool, states, wait_until
from tests.spool.test_disk import ballast, disk, empty_log, exhaust_inodes, fill, mounted, settle_all

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
__all__ = ["disk"]  # a fixture

A = "a@lists.test"


async def test_a_full_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailgate.edge.spool.ledger.AGAIN", 0.05)
    telemetry = Recorder()
    async with spool(disk, telemetry) as store:
        await put_unscored(store, "there", Parked(A, "pending", ""))
        empty_log(disk)
        filler = fill(disk)
        for n in range(200):
            store.ledger.passing(a_post(f"m{n}", A)).became({A: Fate.DELIVERED})
        await wait_until(lambda: bool(telemetry.named("ledger.failed")))
        [failed] = telemetry.named("ledger.failed")
        assert str(failed["cause"]).startswith("spool.min_free: 0 B are free")
        assert ballast(disk).exists(), "the ledger has no right to it"
        assert await settle_all(store) == 1
        assert ledger(store) == {"there": {A: "delivered"}}

        filler.unlink()
        await wait_until(lambda: store.ledger._task is None)
        assert len(ledger(store, everything=False)) == 201
        assert telemetry.named("ledger.written")
    assert not telemetry.named("ledger.lost")


async def test_it_keeps_away_from_what_has_to_stay_free(disk: Path) -> None:
    """What it may use mail may use as well: beyond that it is mail's."""
    telemetry = Recorder()
    room = os.statvfs(disk)
    floor = room.f_bavail * room.f_frsize - 9 * 2**20  # the ballast takes 8 MiB
    async with spool(disk, telemetry, min_free=f"{floor}B") as store:
        n = 0
        while not telemetry.named("ledger.failed"):
            posts = [store.ledger.passing(a_post(f"m{n}-{one}", A, now=NOW + n)) for one in range(100)]
            for entry in posts:
                entry.became({A: Fate.DELIVERED})
            await wait_until(lambda: not store.ledger._entries or bool(telemetry.named("ledger.failed")))
            n += 1
        room = os.statvfs(disk)
        assert room.f_bavail * room.f_frsize >= floor
        assert 1 < n < 40
        assert len(ledger(store)) >= 100
        size = (disk / "spool.db-wal").stat().st_size / (n * 100)
        assert size < 3 * ENTRY, "as much as was reckoned with"


async def test_without_inodes(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=32m,nr_inodes=40") as disk:
        telemetry = Recorder()
        async with spool(disk, telemetry) as store:
            await put(store, "one")
            files = exhaust_inodes(disk)
            store.ledger.passing(a_post("m", A)).became({A: Fate.DELIVERED})
            await wait_until(lambda: bool(telemetry.named("ledger.failed")))
            assert "0 inodes are free" in str(telemetry.named("ledger.failed")[0]["cause"])
            for file in files:
                file.unlink()
        assert ledger(disk) == {"m": {A: "delivered"}}
        assert not telemetry.named("ledger.lost")


async def test_mail_that_is_just_taken_keeps_its_entry(disk: Path) -> None:
    """What is stored is in the ledger by the same commit, or refused."""
    async with spool(disk, min_free="18MiB") as store:
        stored = 0
        for n in range(4000):
            try:
                await put_unscored(store, f"m{n}", Parked(A, "pending", ""))
            except SpoolFull:
                break
            stored += 1
        assert 10 < stored < 4000
        assert states(store) == {"pending": stored}
        assert len(ledger(store)) == stored
