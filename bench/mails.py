"""The mail that is sent: 4 KiB of text, or 100 KiB of text and an encoded attachment; always the same octets."""

import base64
import random
from pathlib import Path

SIZES = {"4k": 4 * 1024, "100k": 100 * 1024}

_SEQUENCE_OCTETS = len("X-Bench-Sequence: 00000000\r\n")
_WORDS = ("archive", "digest", "footer", "list", "meeting", "notes", "patch", "release", "review", "thread", "upload")

_HEADER = """\
Received: from mx.example.net (mx.example.net [192.0.2.25])
\tby lists.test (Exim 4.96) with esmtps id 1xV0Ys-0004sm-35
\tfor list0@lists.test; Sun, 22 Nov 2026 04:50:00 +0000
From: Ada Example <sender@example.org>
To: list0@lists.test
Subject: Notes of the last meeting
Date: Sun, 22 Nov 2026 04:49:58 +0000
Message-ID: <notes-1@example.org>
MIME-Version: 1.0
"""


def write(size: str, directory: Path) -> Path:
    """Write the mail of that size (a key of `SIZES`) as the octets that go over the wire; return its file."""
    wanted = SIZES[size] - _SEQUENCE_OCTETS
    rng = random.Random(size)
    text = _plain(rng, wanted) if size == "4k" else _with_attachment(rng, wanted)
    path = directory / f"{size}.eml"
    path.write_bytes(text.replace("\n", "\r\n").encode("ascii"))
    return path


def _octets(text: str) -> int:
    return len(text) + text.count("\n")


def _prose(rng: random.Random, octets: int) -> str:
    lines: list[str] = []
    left = octets
    while left > 2:  # a line costs its CRLF
        line = " ".join(rng.choices(_WORDS, k=10))[: min(72, left - 2)]
        lines.append(line)
        left -= len(line) + 2
    return "".join(f"{line}\n" for line in lines)


def _plain(rng: random.Random, octets: int) -> str:
    header = _HEADER + "Content-Type: text/plain; charset=utf-8\n\n"
    return header + _prose(rng, octets - _octets(header))


def _with_attachment(rng: random.Random, octets: int) -> str:
    start = (
        f'{_HEADER}Content-Type: multipart/mixed; boundary="part"\n\n--part\nContent-Type: text/plain\n\n'
        f"{_prose(rng, 8000)}--part\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n"
    )
    end = "--part--\n"
    lines = (octets - _octets(start) - _octets(end)) // 78  # 57 octets make 76 characters and CRLF
    return start + base64.encodebytes(rng.randbytes(57 * lines)).decode("ascii") + end
