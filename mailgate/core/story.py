"""What a message leaves behind for people, in the log and in the history: the fields of its events that say whose it
is, and the names under which it is found again.

Promises: both doors, the replay and the verbs say it in the same words, so that what one wrote down is found by what
another knows. Whatever a file holds, reading it gives names, and no exception.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from mailgate.core.addresses import list_of
from mailgate.core.envelope import Envelope, printable

_IDS = ("id", "verdict_id", "exim_id")

Fields = Mapping[str, object]
_encode = json.JSONEncoder(default=str, check_circular=False).encode


class Once(dict[str, object]):
    """Fields that are written as JSON once, for all who want it: that takes more time than all else that is done with
    an event.
    """

    __slots__ = ("_json",)

    @property
    def json(self) -> str:
        """See `as_json`. Any thread may ask."""
        try:
            return self._json
        except AttributeError:
            self._json: str = _encode(self)
            return self._json


def as_json(fields: Fields) -> str:
    """The fields as one object, ASCII only, whatever they hold."""
    return fields.json if isinstance(fields, Once) else _encode(dict(fields))


def of_envelope(envelope: Envelope) -> dict[str, object]:
    """Who wrote, and to which lists, as fields of an event."""
    sender = printable(envelope.sender)
    lists = dict.fromkeys(list_of(printable(recipient)).lower() for recipient in envelope.recipients)
    _, at, domain = sender.lower().rpartition("@")
    return {"sender": sender, "sender_domain": domain if at else "", "lists": list(lists)}


def ids(fields: Fields) -> set[str]:
    """What ties an event to others of the same message: the gate's ids and Exim's, as they are written."""
    return {value for key in _IDS if (value := fields.get(key)) and isinstance(value, str)}


def names(fields: Fields) -> set[str]:
    """Everything that an event is found by: its ids, the Message-ID without its brackets, the address of the client,
    the reverse-path and its domain ("@example.org"), each recipient and its list. All but the ids in lower case.
    """
    found = ids(fields)
    for key in ("message_id", "client"):
        if isinstance(value := fields.get(key), str) and value:
            found.add(_bare(value))
    sender = fields.get("sender")
    if isinstance(sender, str) and sender:
        found |= {sender.lower(), f"@{sender.rpartition('@')[2].lower()}"}
    recipients = fields.get("recipients")
    if isinstance(recipients, Iterable) and not isinstance(recipients, str):
        for recipient in recipients:
            address = str(recipient).lower()
            found |= {address, list_of(address)}
    return found


def meant(text: str) -> frozenset[str]:
    """The names that a person may mean by `text`. An id counts as it is written, anything else in lower case."""
    written = printable(text.strip())
    return frozenset({written, _bare(written)})


def _bare(text: str) -> str:
    return text.removeprefix("<").removesuffix(">").lower()
