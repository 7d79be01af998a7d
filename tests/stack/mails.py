"""The mails of `fixtures/`: each with its envelope, the client it comes from, and its exact octets.

`fixtures/index.toml` describes them and `fixtures/mail/NAME.eml` has the octets. In the index {list} stands for the
list that a test (or the demo) posts to.
"""

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[2] / "fixtures"
# The string that every scanner calls spam, in two halves: nobody is to find it in this file.
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*" + b"GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"


@dataclass(frozen=True)
class Mail:
    """A message and its envelope; the words are explained in `fixtures/index.toml`."""

    name: str
    about: str
    sender: str
    recipients: tuple[str, ...]
    client: str
    octets: bytes
    parameters: str = ""
    refused: str = ""
    long_lines: bool = False

    def __str__(self) -> str:
        return self.name

    def at(self, address: str) -> "Mail":
        """The same mail, addressed to the list `address` where the index says {list}."""
        local, _, domain = address.partition("@")
        named = tuple(one.replace("{list}", local).replace("{domain}", domain) for one in self.recipients)
        return replace(self, recipients=named)

    def marked(self, mark: str) -> "Mail":
        """The same mail with a Message-ID of its own, to tell repeated posts apart. (It breaks a DKIM signature.)"""
        header, blank, body = self.octets.partition(b"\r\n\r\n")
        lines = [line for line in header.split(b"\r\n") if not line.lower().startswith(b"message-id:")]
        lines.insert(0, b"Message-ID: <%s@example.org>" % mark.encode())
        return replace(self, octets=b"\r\n".join(lines) + blank + body)

    @property
    def message_id(self) -> str:
        """Its Message-ID with the brackets, "" when it has none."""
        for line in self.octets.partition(b"\r\n\r\n")[0].split(b"\r\n"):
            if line.lower().startswith(b"message-id:"):
                return line.partition(b":")[2].strip().decode()
        return ""


@cache
def mails() -> dict[str, Mail]:
    """All fixtures by name, in the order of the index."""
    index = tomllib.loads((FIXTURES / "index.toml").read_text())
    return {name: _mail(name, entry) for name, entry in index.items()}


def dns() -> dict[str, str]:
    """The TXT records of the fixtures' domains: name → text."""
    return tomllib.loads((FIXTURES / "dns.toml").read_text())


def _mail(name: str, entry: dict[str, Any]) -> Mail:
    octets = (FIXTURES / "mail" / f"{name}.eml").read_bytes()
    return Mail(name=name, octets=octets, **{**entry, "recipients": tuple(entry["recipients"])})


def big(size: int = 25 * 2**20) -> Mail:
    """A post of `size` octets or a line more: lines of text, no two alike, some of them beginning with a dot."""
    header = (
        b"From: Ida Krog <ida@example.org>\r\nTo: list@lists.test\r\nSubject: the whole scan, as promised\r\n"
        b"Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <whole-scan-%d@example.org>\r\n\r\n" % size
    )
    line = b"%sline %09d of the scan, which is long and would not fit in a smaller mail\r\n"
    room = size - len(header)
    count = room // len(line % (b" ", 0)) + 1
    body = b"".join(line % (b"." if number % 7 == 0 else b" ", number) for number in range(count))
    return Mail("big", f"{size} octets", "ida@example.org", ("{list}@{domain}",), "127.0.9.25", header + body)
