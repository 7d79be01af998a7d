"""Messages as files that other tools read: single files, an mbox, a Maildir.

Promises: nothing that is there is overwritten; a file appears under its name whole and synced, or not at all. In
.eml files the octets are exactly those that Mailman would get; mbox and Maildir have LF line ends, as their readers
expect. No header is added: the envelope stands beside, as JSON.
Raises FileExistsError for what is there already, OSError for all other trouble with the target.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from mailgate.core.envelope import printable
from mailgate.edge.spool.listing import Listed
from mailgate.edge.spool.place import sync_directory

Add = Callable[[Listed, Iterable[bytes], str], None]  # a message, its octets, its envelope as a line of JSON
Format = Callable[[Path], AbstractContextManager[Add]]

_FROM = re.compile(rb"^(>*From )", re.MULTILINE)
_PARTS_OF_MAILDIR = ("cur", "new", "tmp")
_MODE = 0o600  # it is other people's mail


@contextlib.contextmanager
def appearing(target: Path, scratch: Path | None = None, when: float | None = None) -> Iterator[IO[bytes]]:
    """A new file that gets its name when the block ends well. `scratch`: the name it has until then; `when`: the
    time it is given.
    """
    part = scratch or target.with_name(f".{target.name}.{os.getpid()}.part")
    if os.path.lexists(target):
        raise FileExistsError(f"{target}: is there already")
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123  it is a handle
            yield file
            file.flush()
            if when is not None:
                os.utime(handle, (when, when))
            os.fsync(handle)
        os.link(part, target)  # a rename would replace what has come there meanwhile
    finally:
        part.unlink()


@contextlib.contextmanager
def eml(target: Path) -> Iterator[Add]:
    """A directory with `ID.eml`, exactly the octets, and `ID.json`, the envelope, for each message."""
    target.mkdir(exist_ok=True)

    def add(one: Listed, pieces: Iterable[bytes], envelope: str) -> None:
        with appearing(target / f"{one.id}.eml", when=one.received) as file:
            file.writelines(pieces)
        with appearing(target / f"{one.id}.json", when=one.received) as file:
            file.write(f"{envelope}\n".encode())

    yield add
    sync_directory(target)


@contextlib.contextmanager
def mbox(target: Path) -> Iterator[Add]:
    """One file in the mboxrd way (a line that begins with "From ", ">From " and so on gets one more ">"), and
    `FILE.jsonl` with the envelopes in the same order.
    """
    with appearing(target) as mail, appearing(target.with_name(f"{target.name}.jsonl")) as envelopes:

        def add(one: Listed, pieces: Iterable[bytes], envelope: str) -> None:
            start = mail.tell()
            try:
                _add_to_mbox(mail, one, pieces)
            except BaseException:
                mail.seek(start)
                mail.truncate()
                raise
            envelopes.write(f"{envelope}\n".encode())

        yield add
    sync_directory(target.parent)


def _add_to_mbox(mail: IO[bytes], one: Listed, pieces: Iterable[bytes]) -> None:
    sender = re.sub(r"\s", "_", printable(one.sender)) or "MAILER-DAEMON"
    mail.write(f"From {sender} {time.asctime(time.gmtime(one.received))}\n".encode())
    end = b""
    for text in with_lf(pieces):
        mail.write(_FROM.sub(rb">\1", text))
        end = text or end
    mail.write(b"\n" if end.endswith(b"\n") else b"\n\n")


@contextlib.contextmanager
def maildir(target: Path) -> Iterator[Add]:
    """A Maildir, made or added to, with the messages in `new` and the envelopes in `mailgate.jsonl`. A message that
    was exported to it before is not added again, wherever a reader has moved it.
    """
    _make_maildir(target)
    there = {path.name.partition(":")[0] for part in ("cur", "new") for path in (target / part).iterdir()}
    with (target / "mailgate.jsonl").open("ab") as envelopes:

        def add(one: Listed, pieces: Iterable[bytes], envelope: str) -> None:
            name = f"{int(one.received)}.{one.id}.mailgate"
            if name in there:
                raise FileExistsError(f"{target}: {name}: is there already")
            with appearing(target / "new" / name, target / "tmp" / f"{name}.{os.getpid()}", one.received) as file:
                file.writelines(with_lf(pieces))
            envelopes.write(f"{envelope}\n".encode())

        yield add
        envelopes.flush()
        os.fsync(envelopes.fileno())
    sync_directory(target / "new")


def _make_maildir(target: Path) -> None:
    missing = [part for part in _PARTS_OF_MAILDIR if not (target / part).is_dir()]
    if target.exists() and missing and any(target.iterdir()):
        raise FileExistsError(f"{target}: is there already, and is no Maildir")
    for part in missing:
        (target / part).mkdir(mode=0o700, parents=True)


def with_lf(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same text with LF line ends, in pieces that end where a line does."""
    held = b""
    for piece in pieces:
        held += piece
        end = held.rfind(b"\r\n") + 2
        if end > 1:
            yield held[:end].replace(b"\r\n", b"\n")
            held = held[end:]
    yield held


FORMATS: dict[str, Format] = {"eml": eml, "mbox": mbox, "maildir": maildir}
