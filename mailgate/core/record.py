"""What the verdict door found of a message, as it is kept until the same message comes to the relay door.

Duty: every fact that cost time to learn, in a form that survives a restart; and the digest by which the relay door
knows that it is the same message. What can't be read is None, never a wrong fact: the message is then looked at anew.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, get_args

from mailgate.core import auth_record, origin
from mailgate.core.auth import Authenticated
from mailgate.core.envelope import Client
from mailgate.core.message import Message
from mailgate.core.scan import Scan, Scored, Skipped, SkippedReason, Unscored, UnscoredReason
from mailgate.core.verdict import Action

_VERSION = 2


class Miss(StrEnum):
    """Why there is no record to go by: the message names no Exim id; none is kept under it; the one that was is too
    old; it is of another body; the place where records are kept did not answer.
    """

    NO_ID = "no-id"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    CHANGED = "changed"
    TROUBLE = "trouble"


@dataclass(frozen=True, slots=True)
class Record:
    """`gate_id`: under which the verdict door spoke of it, `at`: when (seconds since the epoch); `action` and
    `reasons`: what the rules made of `client`, `scan` and `auth` for all recipients together. Without a scan that was
    enough; without `auth` the sender was not checked.
    """

    gate_id: str
    at: float
    client: Client
    scan: Scan | None
    action: Action
    reasons: tuple[str, ...]
    auth: Authenticated | None = None

    def to_json(self) -> str:
        """The record as one line of ASCII; `from_json` undoes it."""
        word = {Scored: "scored", Unscored: "unscored", Skipped: "skipped"}.get(type(self.scan), "unasked")
        return json.dumps(
            {
                "version": _VERSION,
                "gate_id": self.gate_id,
                "at": self.at,
                "client": asdict(self.client),
                word: asdict(self.scan) if self.scan else {},
                "action": self.action.word,
                "reasons": self.reasons,
                "auth": auth_record.written(self.auth) if self.auth else None,
            }
        )


def from_json(text: str) -> Record | None:
    """The record that `to_json` wrote down; None for what it would not write, another version's among it."""
    try:
        tree: Any = json.loads(text)
        if tree["version"] != _VERSION:
            return None
        at = float(tree["at"])
        if not math.isfinite(at):
            return None
        return Record(
            gate_id=_text(tree["gate_id"]),
            at=at,
            client=_client(tree["client"]),
            scan=_scan(tree),
            action=Action[_text(tree["action"]).upper()],
            reasons=tuple(map(_text, tree["reasons"])),
            auth=None if tree["auth"] is None else auth_record.read(tree["auth"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None  # somebody else wrote to it: as if nothing stood there


def _client(tree: dict[str, Any]) -> Client:
    values = {key: _text(value) for key, value in tree.items()}
    client = Client(source=origin.source(values.pop("source", "")), **values)
    if client.ip:
        ipaddress.ip_address(client.ip)
    return client


def _scan(tree: dict[str, Any]) -> Scan | None:
    if "unasked" in tree:
        return None
    if found := tree.get("scored"):
        report, server = _text(found["report"]), _text(found["server"])
        return Scored(float(found["score"]), float(found["required"]), report, server)
    if found := tree.get("unscored"):
        if found["reason"] not in get_args(UnscoredReason):
            raise ValueError(found["reason"])
        return Unscored(found["reason"], _text(found["detail"]))
    reason = tree["skipped"]["reason"]
    if reason not in get_args(SkippedReason):
        raise ValueError(reason)
    return Skipped(reason)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def digest(message: Message) -> str:
    """SHA-256 of the body's octets, in hexadecimal. Not of the header: Exim may add fields to it in between.

    A last line without an end counts as one that has it, as Exim sends it. Takes 1 ms for each MB or two: for a large
    message, call it in a thread.
    """
    found = hashlib.sha256()
    for piece in message.body:
        found.update(piece)
    if message.body and not message.body[-1].endswith(b"\n"):
        found.update(b"\r\n")
    return found.hexdigest()
