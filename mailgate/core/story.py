"""What a message leaves behind for people, in the log and in the history: the fields of its events that say whose it
is, and the names under which it is found again.

Promises: both doors, the replay and the verbs say it in the same words, so that what one wrote down is found by what
another knows. Whatever a file holds, reading it gives names, and no exception.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from mailgate.core.addresses import list_of
from mailgate.core.envelope import Envelope, printable

_LONGEST = 250  # characters of a Message-ID that are kept
_IDS = ("id", "verdict_id", "exim_id")

Fields = Mapping[str, object]
_encode = json.JSONEncoder(default=str, check_circular=False).encode


class Told(Mapping[str, object]):
    """The fields of an event of a message, made when somebody reads them, and written as JSON once for all who do: in a
    thread beside the event loop, many at a time, which takes a fifth of what it takes between two messages.

    `make` must hold on to nothing large. A bug in it, or what can't be written, is a field of the event ("trace"),
    beside the `ids`. `weight` is how much memory it takes, in events of usual size. Any thread may read.
    """

    __slots__ = ("_fields", "_ids", "_json", "_make", "weight")

    def __init__(self, make: Callable[[], Fields], ids: Fields = MappingProxyType({}), recipients: int = 0) -> None:
        self._make, self._ids, self.weight = make, ids, 1 + recipients
        self._fields: Fields | None = None
        self._json = ""

    @property
    def made(self) -> Fields:
        """The fields."""
        if self._fields is None:
            try:
                self._fields = self._make()
            except Exception:  # noqa: BLE001  who reads it has to go on with the others
                self._fields = {**self._ids, "trace": traceback.format_exc()}
        return self._fields

    @property
    def json(self) -> str:
        """See `as_json`."""
        if not self._json:
            try:
                self._json = _encode(dict(self.made))
            except (TypeError, ValueError, RecursionError):  # one event must not take the others of its batch with it
                self._json = _encode({**self._ids, "trace": traceback.format_exc()})
        return self._json

    def __getitem__(self, key: str) -> object:
        return self.made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.made)

    def __len__(self) -> int:
        return len(self.made)


def of_message(fields: Fields) -> Told | None:
    """The fields of an event as those of a message's event; None if it is of no message."""
    if isinstance(fields, Told):
        return fields
    people = fields.get("recipients")
    recipients = len(people) if isinstance(people, dict | list) else 0
    return Told(lambda: fields, recipients=recipients) if "id" in fields else None


def as_json(fields: Fields) -> str:
    """The fields as one object, ASCII only, whatever they hold."""
    return fields.json if isinstance(fields, Told) else _encode(dict(fields))


def of_envelope(envelope: Envelope) -> dict[str, object]:
    """Who wrote, and to which lists, as fields of an event."""
    sender = printable(envelope.sender)
    lists = dict.fromkeys(list_of(printable(recipient)).lower() for recipient in envelope.recipients)
    _, at, domain = sender.lower().rpartition("@")
    return {"sender": sender, "sender_domain": domain if at else "", "lists": list(lists)}


def message_id(field: bytes) -> str:
    """A Message-ID as events have it: the value of its field, cut where it is very long."""
    return printable(field.decode("utf-8", "replace"))[:_LONGEST]


def ids(fields: Fields) -> set[str]:
    """What ties an event to others of the same message: the gate's ids and Exim's, as they are written."""
    return {value for key in _IDS if (value := fields.get(key)) and isinstance(value, str)}


def names(fields: Fields) -> set[str]:
    """Everything that an event is found by: its ids, the Message-ID without its brackets, the address of the client,
    the reverse-path and its domain ("@example.org"), each recipient and its list. All but the ids in lower case.
    """
    if isinstance(fields, Told):
        fields = fields.made  # a dict is asked in a tenth of the time
    found = ids(fields)
    for key in ("message_id", "client"):
        if isinstance(value := fields.get(key), str) and value:
            found.add(_bare(value))
    sender = fields.get("sender")
    if isinstance(sender, str) and sender:
        found |= {sender.lower(), f"@{sender.rpartition('@')[2].lower()}"}
    recipients = fields.get("recipients")
    if isinstance(recipients, dict | list | tuple):
        for recipient in recipients:
            address = str(recipient).lower()
            found |= {address, list_of(address)}
    return found


def meant(text: str) -> frozenset[str]:
    """The names that a person may mean by `text`. An id counts as it is written, anything else in lower
    case; of a very long Message-ID what was kept.
    """
    written = printable(text.strip())
    bare = _bare(written)
    return frozenset({written, bare, bare[:_LONGEST], bare[: _LONGEST - len("<")]})  # as `message_id` cuts


def _bare(text: str) -> str:
    return text.removeprefix("<").removesuffix(">").lower()
