"""Durations and sizes as people write them: "10s", "5d", "40MiB", "5%". Parsed once, at the rim."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_OCTETS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_PERCENT = re.compile(r"([0-9]{1,2}(?:\.[0-9]+)?) *%")
_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) *([A-Za-z]*)")


def seconds(text: str) -> float:
    """Seconds of a duration such as "500ms", "10s", "15m", "2h", "5d", or "1h30m".

    Raises ValueError that says which units there are.
    """
    parts = _NUMBER.findall(text)
    if (
        not parts
        or "".join(n + u for n, u in parts) != text.replace(" ", "")
        or any(u not in _SECONDS for _, u in parts)
    ):
        raise ValueError(f'{text!r} is not a duration: write a number and a unit ({", ".join(_SECONDS)}), as in "10s"')
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def octets(text: str) -> int:
    """Octets of a size such as "40MiB" or "400KiB". Raises ValueError that says which units there are."""
    found = _NUMBER.fullmatch(text.strip())
    if not found or found[2] not in _OCTETS:
        raise ValueError(f'{text!r} is not a size: write a number and a unit ({", ".join(_OCTETS)}), as in "40MiB"')
    return int(float(found[1]) * _OCTETS[found[2]])


@dataclass(frozen=True, slots=True)
class Share:
    """An amount of disk: octets, or a part of the whole (0..1)."""

    octets: int = 0
    part: float = 0.0

    def of(self, whole: int) -> int:
        """The amount in octets on a disk of `whole` octets."""
        return self.octets or int(whole * self.part)


def share(text: str) -> Share:
    """An amount of disk such as "5%" or "2GiB". Raises ValueError that says how to write one."""
    percent = _PERCENT.fullmatch(text)
    try:
        return Share(part=float(percent[1]) / 100) if percent else Share(octets=octets(text))
    except ValueError:
        raise ValueError(f'{text!r} is not a share of the disk: write "5%" or "2GiB"') from None


def rate(text: str) -> tuple[int, float]:
    """The count and the seconds of a rate such as "20/1h". Raises ValueError that says how to write one."""
    count, slash, period = text.partition("/")
    if not slash or not re.fullmatch(r"[1-9][0-9]{0,8}", count.strip()):
        raise ValueError(f'{text!r} is not a rate: write how many in which time, as in "20/1h"')
    if not (found := seconds(period.strip())):
        raise ValueError(f"{text!r} is not a rate: no time is too short")
    return int(count), found


def said_seconds(value: float) -> str:
    """A duration for people: at most two units, "3d 4h", "12m 5s", "0s"."""
    left = max(round(value), 0)  # the clock of who wrote it down may have been ahead of ours
    said = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_SECONDS[unit]))
        if count:
            said.append(f"{count}{unit}")
    return " ".join(said[:2]) or "0s"


def said_octets(value: float) -> str:
    """A size for people: "512 B", "4.0 KiB", "25.1 MiB"."""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
