"""The spool's disk is full, has no inodes left, or does not sync: 4xx, no crash, no loss, and it ends when that ends.

The disk is a small tmpfs; to mount it takes root. Mailman is the real one, cut off and joined again on the wire.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.children import account
from tests.stack.client import Client
from tests.stack.gate import Gate
from tests.stack.mails import Mail, big, mails
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until
from tests.whole.posts import arrived, expected, post, wait_arrived, wait_spool_empty, waiting

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs takes root")
_MIB = 2**20
_SHIM = Path(__file__).parents[1] / "spool" / "shim.c"


@pytest.fixture
def disk(stack: Stack) -> Iterator[Path]:
    """A disk of 32 MiB and 64 inodes, the gate's user's own."""
    path = stack.directory / "disk"
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,nr_inodes=64,mode=755", "mailgate-test", path], check=True)
    try:
        nobody = account("nobody")
        assert nobody is not None
        nobody.own(path)
        yield path
    finally:
        # Lazily: a gate that is ended after us must not keep it mounted.
        subprocess.run(["umount", "--lazy", path], check=True)


def on_disk(disk: Path, min_free: str = "64KiB") -> dict[str, object]:
    """The settings of a gate that has its spool there."""
    return {"spool": {"url": f"sqlite:///{disk}/spool.db", "min_free": min_free}}


def sized(mark: str, address: str, size: int = _MIB) -> Mail:
    """A post of that size to one list."""
    return big(size).at(address).marked(mark)


def reply_to(gate: Gate, mail: Mail) -> str:
    """What the gate says to a message given to it straight."""
    with Client(gate.lmtp, lmtp=True) as client:
        [reply] = client.deliver(mail.sender, mail.recipients, mail.octets).final
        return str(reply)


def fill(path: Path) -> None:
    """A file of somebody else's takes what is left of the disk."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_disk_too_small_for_the_reserve_is_said(stack: Stack, disk: Path) -> None:
    fill(disk / "others")
    with (disk / "others").open("r+b") as file:
        file.truncate((disk / "others").stat().st_size - 4 * _MIB)
    gate = stack.start_gate(on_disk(disk))
    assert gate.wait_for_event("spool.reserve")["level"] == "warning"


def test_mail_fills_the_disk(stack: Stack, disk: Path, a_list: str) -> None:
    """What was taken stays deliverable; Exim keeps the rest until there is room."""
    gate = stack.start_gate(on_disk(disk))
    stack.to_mailman.refuse()
    taken: list[Mail] = []
    while (reply := reply_to(gate, mail := sized(f"fill-{len(taken)}", a_list))).startswith("250 "):
        taken.append(mail)
        assert len(taken) < 32
    assert reply.startswith("452 4.3.1 "), reply
    assert len(taken) > 5
    late = sized("late", a_list)
    post(stack, [late])
    stack.exim.wait_for_log(r"== .* 452 4\.3\.1 ")
    assert len(stack.exim.queue()) == 1
    assert waiting(gate) == dict.fromkeys(expected(taken), "pending")
    assert gate.page("/healthz")[0] == 200
    stack.to_mailman.accept()
    wait_arrived(stack, taken)
    wait_spool_empty(gate)
    stack.exim.run_queue()
    wait_arrived(stack, [*taken, late])
    assert arrived(stack, [a_list]) == expected([*taken, late])
    stack.to_mailman.refuse()
    assert reply_to(gate, sized("again", a_list)).startswith("250 ")  # delivered mail has given its space back
    assert gate.noise() == ""


def test_others_fill_the_disk_to_the_brim(stack: Stack, disk: Path, a_list: str) -> None:
    gate = stack.start_gate(on_disk(disk, min_free="9MiB"))  # more than the spool's reserve: that is not for new mail
    stack.to_mailman.refuse()
    taken = [sized(f"brim-{n}", a_list) for n in range(3)]
    assert all(reply_to(gate, mail).startswith("250 ") for mail in taken)
    fill(disk / "other")
    assert os.statvfs(disk).f_bavail == 0
    small = mails()["plain"].at(a_list).marked("no-room")
    for _ in range(3):
        assert reply_to(gate, small).startswith("452 4.3.1 ")
    assert gate.metric("mailgate_recipients_total", outcome="deferred") == 3
    gate.stop()
    gate.begin()  # also with a full disk; it is not "ready" then, as soon as it knows that Mailman is away
    wait_until(lambda: len(gate.events("daemon.ready")) == 2, "the gate serves")
    assert reply_to(gate, small).startswith("452 4.3.1 ")
    stack.to_mailman.accept()
    wait_arrived(stack, taken)
    wait_spool_empty(gate)
    stack.to_mailman.refuse()
    (disk / "other").unlink()
    wait_until(lambda: reply_to(gate, small).startswith("250 "), "it is taken again")
    stack.to_mailman.accept()
    wait_arrived(stack, [*taken, small])
    wait_spool_empty(gate)
    assert arrived(stack, [a_list]) == expected([*taken, small])


def test_the_disk_has_no_inodes_left(stack: Stack, disk: Path, a_list: str) -> None:
    gate = stack.start_gate(on_disk(disk))
    stack.to_mailman.refuse()
    taken, refused = (mails()["plain"].at(a_list).marked(mark) for mark in ("taken", "refused"))
    assert reply_to(gate, taken).startswith("250 ")
    others = disk / "others"
    others.mkdir()
    use_inodes(others)
    assert os.statvfs(disk).f_favail == 0
    assert reply_to(gate, refused).startswith("452 4.3.1 ")
    stack.to_mailman.accept()
    wait_arrived(stack, [taken])
    wait_spool_empty(gate)
    stack.to_mailman.refuse()
    for path in others.iterdir():
        path.unlink()
    assert reply_to(gate, refused).startswith("250 ")
    stack.to_mailman.accept()
    wait_arrived(stack, [taken, refused])
    assert arrived(stack, [a_list]) == expected([taken, refused])


def use_inodes(directory: Path) -> None:
    """Make files until there can be none."""
    try:
        for number in range(1000):
            (directory / str(number)).touch()
    except OSError:
        return


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that has fsync fail while a flag is up."""
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, _SHIM, "-ldl"], check=True)
    return library


def test_no_250_while_the_disk_does_not_sync(stack: Stack, shim: Path, a_list: str) -> None:
    flag, library = stack.directory / "failing", stack.directory / "shim.so"
    library.write_bytes(shim.read_bytes())
    environment = {"LD_PRELOAD": str(library), "FAIL_FLAG": str(flag), "FAIL_PATH": "spool.db"}
    gate = stack.start_gate(environment=environment)
    stack.to_mailman.refuse()
    before, during, after = (mails()["plain"].at(a_list).marked(f"sync-{n}") for n in range(3))
    assert reply_to(gate, before).startswith("250 ")
    flag.touch()
    for _ in range(5):
        assert reply_to(gate, during).startswith("451 4.3.0 ")
    assert waiting(gate) == dict.fromkeys(expected([before]), "pending")
    assert gate.page("/readyz")[0] == 503  # neither Mailman nor a disk: send nothing here
    flag.unlink()
    assert reply_to(gate, after).startswith("250 ")
    gate.kill()  # and what failed does not come back
    gate.start()
    stack.to_mailman.accept()
    wait_arrived(stack, [before, after])
    wait_spool_empty(gate)
    assert arrived(stack, [a_list]) == expected([before, after])
