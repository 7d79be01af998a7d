"""`queue export`: what other tools read back is what was spooled."""

import email
import json
import mailbox
import sqlite3
import stat
from pathlib import Path

import pytest

from tests.cli.site import Mail, Site

PLAIN = b"From: a@example.org\r\nSubject: one\r\n\r\nFrom here on\r\n>From there\r\n.\r\n\r\nFrom \r\n"
LATIN = (
    b"From: b@example.org\r\nSubject: two\r\nContent-Type: text/plain; charset=latin-1\r\n\r\n\xfcber\r\nno line end"
)
LARGE = b"Subject: three\r\n\r\n" + b"\r\nFrom x\r\n".join([b"y" * 700] * 3500)


@pytest.fixture
def queue(site: Site) -> list[str]:
    """Three messages with content, one of which is held, and one that is settled."""
    ids = site.fill(
        Mail(octets=PLAIN, age=300),
        Mail({"d\udcfc@lists.test": "held"}, sender="", octets=LATIN, age=200),
        Mail(octets=LARGE, age=100),
        Mail({"gone@lists.test": "pending"}, age=50),
    )
    site.run("queue", "drop", ids[3], "--yes")
    return ids[:3]


def with_lf(octets: bytes) -> bytes:
    return octets.replace(b"\r\n", b"\n")


def test_eml_is_octet_for_octet_with_the_envelope_beside(site: Site, queue: list[str]) -> None:
    target = site.directory / "out"

    ran = site.run("queue", "export", str(target))

    assert ran.status == 0
    assert "3 messages written" in ran.err
    assert {path.name for path in target.iterdir()} == {f"{one}.{kind}" for one in queue for kind in ("eml", "json")}
    assert [(target / f"{one}.eml").read_bytes() for one in queue] == [PLAIN, LATIN, LARGE]
    envelope = json.loads((target / f"{queue[1]}.json").read_text("ascii"))
    assert (envelope["sender"], envelope["recipients"][0]["address"]) == ("", "d\udcfc@lists.test")
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in target.iterdir())


def test_an_mbox_is_read_by_others(site: Site, queue: list[str]) -> None:
    target = site.directory / "out.mbox"

    assert site.run("queue", "export", str(target), "--format", "mbox").status == 0

    box = mailbox.mbox(target, create=False)
    read = [box.get_bytes(key) for key in box.keys()]  # noqa: SIM118  a mailbox iterates over its messages
    froms = [box.get_message(key).get_from() for key in box.keys()]  # noqa: SIM118
    box.close()
    assert [undone(one) for one in read] == [with_lf(PLAIN), with_lf(LATIN) + b"\n", with_lf(LARGE) + b"\n"]
    assert [line.split()[0] for line in froms] == ["ann@example.org", "MAILER-DAEMON", "ann@example.org"]
    envelopes = (site.directory / "out.mbox.jsonl").read_text("ascii").splitlines()
    assert [json.loads(line)["id"] for line in envelopes] == queue


def undone(octets: bytes) -> bytes:
    """The text of an mboxrd message without its quoting."""
    lines = octets.split(b"\n")
    return b"\n".join(
        line[1:] if line.lstrip(b">").startswith(b"From ") and line[:1] == b">" else line for line in lines
    )


def test_a_maildir_is_read_by_others(site: Site, queue: list[str]) -> None:
    target = site.directory / "out"

    assert site.run("queue", "export", str(target), "--format", "maildir").status == 0

    box = mailbox.Maildir(target, create=False)
    read = sorted((box.get_bytes(key) for key in box.keys()), key=len)  # noqa: SIM118
    assert read == sorted(map(with_lf, (PLAIN, LATIN, LARGE)), key=len)
    assert {email.message_from_bytes(one)["subject"] for one in read} == {"one", "two", "three"}
    assert not list((target / "tmp").iterdir())
    assert len((target / "mailgate.jsonl").read_text("ascii").splitlines()) == 3


def test_a_maildir_is_added_to_and_nothing_comes_twice(site: Site, queue: list[str]) -> None:
    target = site.directory / "out"
    export = ("queue", "export", str(target), "--format", "maildir")
    site.run(*export, "--state", "held")
    (new,) = (target / "new").iterdir()
    new.rename(target / "cur" / f"{new.name}:2,S")  # as a reader does

    ran = site.run(*export)

    assert ran.status == 1
    assert "2 messages written" in ran.err
    assert len(mailbox.Maildir(target, create=False)) == 3


@pytest.mark.parametrize("form", ["eml", "mbox", "maildir"])
def test_nothing_is_overwritten(site: Site, queue: list[str], form: str) -> None:
    target = site.directory / "out"
    site.run("queue", "export", str(target), "--format", form)
    before = contents(site.directory)

    ran = site.run("queue", "export", str(target), "--format", form)

    assert ran.status == 1
    assert "is there already" in ran.err
    assert contents(site.directory) == before


def contents(directory: Path) -> dict[Path, bytes]:
    """All that was exported into the directory, and when it was last written."""
    files = (path for path in directory.rglob("*") if path.is_file() and "spool.db" not in path.name)
    return {path: b"%d " % path.stat().st_mtime_ns + path.read_bytes() for path in files}


@pytest.mark.parametrize("form", ["eml", "mbox", "maildir"])
def test_a_damaged_message_is_told_and_left_out(site: Site, queue: list[str], form: str) -> None:
    with sqlite3.connect(site.spool) as database:
        database.execute("UPDATE bodies SET data = x'00' WHERE message_id = ? AND part = 2", (queue[2],))
        assert database.total_changes == 1
    database.close()
    target = site.directory / "out"

    ran = site.run("queue", "export", str(target), "--format", form)

    assert ran.status == 1
    assert queue[2] in ran.err
    assert "2 messages written" in ran.err
    written = b"".join(contents(site.directory).values())
    assert b"Subject: one" in written
    assert b"Subject: three" not in written


def test_a_place_that_can_not_be_written_to_is_told(site: Site, queue: list[str]) -> None:
    file = site.directory / "file"
    file.touch()

    for form in ("eml", "mbox", "maildir"):
        ran = site.run("queue", "export", str(file / "below"), "--format", form)
        assert ran.status == 1
        assert str(file) in ran.err


def test_filters_choose_what_is_exported(site: Site, queue: list[str]) -> None:
    target = site.directory / "out"

    assert site.run("queue", "export", str(target), "--state", "held").status == 0
    assert [path.stem for path in target.glob("*.eml")] == [queue[1]]
    assert site.run("queue", "export", str(site.directory / "none"), "--list", "nobody@*").status == 3
    assert not (site.directory / "none").exists()
