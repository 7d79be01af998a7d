"""Keys made for this run of the tests, each kind once, and mail signed with them by dkimpy."""

import base64
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Any

import dkim
from nacl.signing import SigningKey

from tests.stack.mails import FIXTURES

MAIL = (
    b"From: Alice <alice@example.test>\r\n"
    b"To: list@lists.test\r\n"
    b"Subject: Tomatoes,\r\n\tand  when to water them\r\n"
    b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
    b"Message-ID: <1@example.test>\r\n"
    b"\r\n"
    b"In the  morning, \r\nwhen it is cool.\r\n\r\n\r\n"
)


@dataclass(frozen=True)
class KeyPair:
    """A private key as dkimpy wants it, the public one as p= has it, and the algorithm that goes with them."""

    private: bytes
    public: bytes
    kind: str

    def record(self, tags: str = "") -> bytes:
        """What the DNS has to say; `tags` as in "t=s; "."""
        return f"v=DKIM1; k={self.kind}; {tags}p=".encode() + self.public

    @property
    def algorithm(self) -> bytes:
        """The a= of its signatures."""
        return f"{self.kind}-sha256".encode()


@cache
def rsa(bits: int = 1024, exponent: int = 65537) -> KeyPair:
    """An RSA key."""
    option = f"rsa_keygen_pubexp:{exponent}"
    command = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}", "-pkeyopt", option]
    return _pair(subprocess.run(command, check=True, capture_output=True).stdout)


@cache
def rsa_4096() -> KeyPair:
    """One with 4096 bits, which takes seconds to make: out of the fixtures."""
    return _pair((FIXTURES / "dkim4096.key.pem").read_bytes())


def _pair(private: bytes) -> KeyPair:
    public = subprocess.run(["openssl", "pkey", "-pubout"], input=private, check=True, capture_output=True).stdout
    return KeyPair(private, b"".join(public.split(b"\n")[1:-2]), "rsa")


@cache
def ed25519() -> KeyPair:
    """An ed25519 key."""
    key = SigningKey.generate()
    return KeyPair(base64.b64encode(bytes(key)), base64.b64encode(bytes(key.verify_key)), "ed25519")


def sign(mail: bytes = MAIL, key: KeyPair | None = None, **how: Any) -> bytes:
    """The mail with a signature in front, of the domain example.test and the selector s, unless told otherwise."""
    key = key or rsa()
    settings: dict[str, Any] = {"selector": b"s", "domain": b"example.test", "signature_algorithm": key.algorithm} | how
    field: bytes = dkim.DKIM(mail).sign(privkey=key.private, **settings)
    return field + mail


def seal(mail: bytes, key: KeyPair | None = None, verdict: str = "none", domain: bytes = b"example.test") -> bytes:
    """The mail with one more ARC set in front, whose sealer has found `verdict` of the sets before."""
    found = b"Authentication-Results: sealer.test; arc=" + verdict.encode() + b"\r\n"
    fields = dkim.ARC(found + mail).sign(b"s", domain, (key or rsa()).private, b"sealer.test")
    return b"".join(fields) + mail


def changed(mail: bytes, tag: bytes, value: bytes | None) -> bytes:
    """The mail with another value of a tag of its first signature or seal; None takes the tag away."""
    head, end, rest = mail.partition(b"\r\n")
    while rest[:1] in (b" ", b"\t"):
        more, end, rest = rest.partition(b"\r\n")
        head += end + more
    by = b"" if value is None else tag + b"=" + value + b";"
    found, count = re.subn(rb"(?<=[\s;])" + tag + rb"\s*=[^;]*(?:;|\Z)", lambda _: by, head, count=1)
    return (found if count else head.rstrip(b"; ") + b"; " + by) + end + rest
