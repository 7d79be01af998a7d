"""The filters that all `queue` verbs share: how they are written on the command line, and what was written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import typer

from mailgate.cli.options import not_blank, seconds
from mailgate.cli.output import USAGE, fail

STATES = ("pending", "uncertain", "held", "failed", "corrupt", "delivered", "dropped")
HERE = ("pending", "uncertain", "held", "failed", "corrupt")  # the others are history


Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID",
        help="Gate ids; the first or last characters are enough if they fit one message. Exim's id or the Message-ID"
        " do as well.",
        show_default=False,
    ),
]
ListGlob = Annotated[
    str | None,
    typer.Option(
        "--list",
        callback=not_blank,
        metavar="GLOB",
        help="Recipients whose address matches, as in 'announce@*' or '*@lists.test'; * and ? are wild, case does not"
        " count. A list stands for all its addresses: announce@lists.test also for announce-owner@lists.test and"
        " announce-bounces+…@lists.test.",
        show_default=False,
    ),
]
SenderGlob = Annotated[
    str | None,
    typer.Option(
        "--sender",
        callback=not_blank,
        metavar="GLOB",
        help="Reverse-path that matches; '<>' is the null one.",
        show_default=False,
    ),
]
OlderThan = Annotated[
    str | None,
    typer.Option("--older-than", metavar="TIME", help="Received before, as in 90m or 2d.", show_default=False),
]
NewerThan = Annotated[
    str | None, typer.Option("--newer-than", metavar="TIME", help="Received since.", show_default=False)
]
State = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help=f"{', '.join(STATES)}; several may be given.", show_default=False),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=1, help="Only the N oldest messages of them.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="Everything: needed where there is no id and no filter.")]


_SHORTEST = 6  # characters of an id that name a message to be changed; the first ones of a gate id are its time


@dataclass(frozen=True, slots=True)
class Filters:
    """What was asked for. None, () and a limit of 0 mean: not given. `older` and `newer` are seconds of age."""

    ids: tuple[str, ...]
    recipient: str | None
    sender: str | None
    older: float | None
    newer: float | None
    states: tuple[str, ...]
    limit: int

    @property
    def given(self) -> bool:
        """Does anything but their number say which messages are meant?"""
        others = (self.recipient, self.sender, self.older, self.newer)
        return bool(self.ids or self.states) or any(one is not None for one in others)


def filters(
    ids: list[str] | None,
    recipient: str | None,
    sender: str | None,
    older: str | None,
    newer: str | None,
    state: list[str] | None,
    limit: int | None,
) -> Filters:
    """The filters of a command line, or a usage error."""
    for one in ids or ():
        if not one.strip():
            raise typer.BadParameter("an id is empty: is a variable not set?", param_hint="ID")
    states = tuple(word for words in state or () for word in words.lower().split(","))
    for word in states:
        if word not in STATES:
            raise typer.BadParameter(f"{word!r} is not a state: {', '.join(STATES)}", param_hint="--state")
    return Filters(
        tuple(ids or ()),
        recipient,
        sender,
        None if older is None else seconds(older, "--older-than"),
        None if newer is None else seconds(newer, "--newer-than"),
        states,
        limit or 0,
    )


def must_be_meant(chosen: Filters, *, everything: bool) -> None:
    """A change of the whole queue has to be asked for by name."""
    for one in chosen.ids:
        if len(one) < _SHORTEST:
            raise fail(f"{one}: too short for an id of what is to be changed: give {_SHORTEST} characters of it", USAGE)
    if not chosen.given and not everything:
        raise fail("which messages? give ids or a filter (see --help), or --all for the whole queue", USAGE)
    if chosen.given and everything:
        raise fail("--all says the whole queue, the filters say a part of it: give one of the two", USAGE)


@dataclass(frozen=True, slots=True)
class Manner:
    """How to replay. `patience`: seconds to go on for, 0 for as long as there is progress to hope for; `rate`:
    messages a second, 0 for as fast as it goes; `wait`: stay until a running daemon has tried it; `every`: a line
    also for what was delivered.
    """

    wait: bool
    patience: float
    rate: float
    dry: bool
    as_json: bool
    every: bool


def rate(text: str) -> float:
    """Messages a second of "20/s", "20" or "90/m", or a usage error."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/([sm]))?", text)
    if not found or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is not a rate: write it as in 20/s or 90/m", param_hint="--rate")
    return float(found[1]) / (60 if found[2] == "m" else 1)
