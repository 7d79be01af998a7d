"""The kinds of values that a configuration has: each reads what a person writes, or says how to write it."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from mailgate.core import spam, units
from mailgate.core.domains import ascii_form
from mailgate.core.endpoint import Endpoint, Url, endpoint, url
from mailgate.core.limits import Rate

_LONGEST_SECRET = 4096  # octets


def _written(read: Callable[[str], Any], example: str) -> BeforeValidator:
    """A value that is written as text, such as `example`."""

    def validate(value: object) -> Any:
        if not isinstance(value, str):
            raise ValueError(f'{value!r} is not text: write it in quotes, as in "{example}"')
        return read(value)

    return BeforeValidator(validate)


def network(value: object) -> spam.Network:
    """A network, or a single address. Raises ValueError."""
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError(f'{value!r} is not a network: write "192.0.2.0/24" or "::1"') from None


def _sqlite(text: str) -> str:
    if not text.startswith("sqlite:////"):
        raise ValueError(
            f'{text!r}: write "sqlite:////" and the absolute path, as in "sqlite:////var/lib/mailgate/spool.db"'
        )
    return text


def _tenths(value: float) -> float:
    if value != round(value, 1):
        raise ValueError(f"{value}: scores are compared in tenths, as Exim does: write {round(value, 1)}")
    return value


def _recipient(text: str) -> str:
    if not text or text != text.strip() or text.startswith("@"):
        raise ValueError(f'{text!r} is not a recipient: write "postmaster" or "postmaster@lists.example.org"')
    return text.lower()


def _glob(text: str) -> str:
    if "@" not in text and not text.startswith("*"):
        raise ValueError(f'{text!r} matches no address: write "name@lists.example.org" or "private-*@*"')
    return text


@dataclass(frozen=True, slots=True)
class Secret:
    """What a file holds that others must not know; no file, no secret."""

    file: str = ""
    octets: bytes = field(default=b"", repr=False)


def _secret(text: str) -> Secret:
    if not text:
        return Secret()
    try:
        with Path(text).open("rb") as file:
            octets = file.read(_LONGEST_SECRET + 1).rstrip(b"\r\n")
    except OSError as error:
        raise ValueError(f"{text}: {error.strerror}") from None
    if not octets or b"\n" in octets or len(octets) > _LONGEST_SECRET:
        raise ValueError(f"{text}: is to hold one line, of {_LONGEST_SECRET} octets at most")
    return Secret(text, octets)


def _rate(text: str) -> Rate:
    return Rate(*units.rate(text))


def _nameserver(text: str) -> Endpoint:
    with contextlib.suppress(ValueError):
        return Endpoint(str(ipaddress.ip_address(text)), 53)
    with contextlib.suppress(ValueError):
        at = endpoint(text)
        return Endpoint(str(ipaddress.ip_address(at.host)), at.port)
    raise ValueError(f'{text!r} is no name server: write its address, as in "192.0.2.53", "::1" or "127.0.0.1:5353"')


def _domain(text: str) -> str:
    found = ascii_form(text)
    if not found:
        raise ValueError(f'{text!r} is not a domain: write "example.org"')
    return found


def _authserv_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,255}", text):
        raise ValueError(f'{text!r} is not an authserv-id: write it like a host name, as in "lists.example.org"')
    return text


def _file(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError(f"{text!r}: write the absolute path of a file")
    return Path(text)


def _optional(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same; None for ""."""
    return lambda text: read(text) if text else None


def _name(text: str) -> str:
    if not text or text != text.strip():
        raise ValueError(f"{text!r} is not a name: write it without blanks")
    return text


Duration = Annotated[float, _written(units.seconds, "10s")]
Positive = Annotated[Duration, Field(gt=0)]
Size = Annotated[int, _written(units.octets, "40MiB"), Field(gt=0)]
Network = Annotated[spam.Network, BeforeValidator(network)]
Address = Annotated[Endpoint, _written(endpoint, "127.0.0.1:8025")]
Score = Annotated[float, Field(ge=0, le=1000), AfterValidator(_tenths)]
SpoolUrl = Annotated[str, _written(_sqlite, "sqlite:////var/lib/mailgate/spool.db")]
DiskShare = Annotated[units.Share, _written(units.share, "5%")]
Recipient = Annotated[str, _written(_recipient, "postmaster")]
SecretFile = Annotated[Secret, _written(_secret, "/etc/mailgate/client.secret")]
OptionalRate = Annotated[Rate | None, _written(_optional(_rate), "20/1h")]
Glob = Annotated[str, _written(_glob, "private-*@lists.example.org")]
File = Annotated[Path, _written(_file, "/etc/mailgate/networks.yaml")]
OptionalFile = Annotated[Path | None, _written(_optional(_file), "/var/lib/mailman3/queue")]
OptionalUrl = Annotated[Url | None, _written(_optional(url), "http://127.0.0.1:8001/3.1")]
Name = Annotated[str, _written(_name, "mx")]
Nameserver = Annotated[Endpoint, _written(_nameserver, "192.0.2.53")]
Domain = Annotated[str, _written(_domain, "example.org")]
AuthservId = Annotated[str, _written(_authserv_id, "lists.example.org")]
