"""What has arrived in Mailman: read from its archive and its queue directories, without asking it.

Posts are counted where they end, in the maildir of the `prototype` archiver. Mail to a sub-address (-bounces, -request,
-owner …) is counted in the queue that Mailman's LMTP server puts it in, since the runners of those queues do not run.
A message delivered twice is there twice.
"""

import email
import email.message
import email.policy
import io
import pickle
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMMANDS = {"request", "join", "leave", "confirm"}
_ALIASES = {"subscribe": "join", "unsubscribe": "leave"}


@dataclass(frozen=True)
class Arrival:
    """A message in Mailman. `octets` is what Mailman made of it: its own headers added, line ends LF."""

    address: str
    message_id: str
    path: Path

    @property
    def octets(self) -> bytes:
        """The message as the archive has it (posts only)."""
        return self.path.read_bytes()


class _Unpickler(pickle.Unpickler):
    """Reads a queue file without Mailman's code: its message class adds nothing to the data."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("mailman.email.message", "Message"):
            return email.message.Message
        return super().find_class(module, name)


class Arrivals:
    """The arrivals under Mailman's var directory. Each file is read once, so it is cheap to ask again and again."""

    def __init__(self, var: Path) -> None:
        self._archives = var / "archives" / "prototype"
        self._queues = var / "queue"
        self._seen: dict[str, Arrival] = {}

    def at(self, address: str) -> list[Arrival]:
        """All messages that have arrived for a list's address or sub-address, oldest first."""
        name, word, domain = _parts(address)
        if word == "bounces":
            return self._queued("bounces", f"{name}@{domain}", word)
        if word in _COMMANDS:
            return self._queued("command", f"{name}@{domain}", word)
        if word == "owner":
            return self._queued("out", f"{name}@{domain}", word)
        return self._archived(address.lower())

    def ids(self, address: str) -> Counter[str]:
        """How many times each Message-ID has arrived at the address."""
        return Counter(arrival.message_id for arrival in self.at(address))

    def _archived(self, address: str) -> list[Arrival]:
        found = []
        for path in sorted((self._archives / address / "new").glob("*")):
            if path.name not in self._seen:
                with path.open("rb") as file:
                    headers = email.message_from_bytes(_header_of(file), policy=email.policy.compat32)
                self._seen[path.name] = Arrival(address, _id(headers), path)
            found.append(self._seen[path.name])
        return found

    def _queued(self, queue: str, address: str, subaddress: str) -> list[Arrival]:
        list_id = address.replace("@", ".")
        found = []
        for path in sorted((self._queues / queue).glob("*.pck")):
            with path.open("rb") as file:
                message = _Unpickler(file).load()
                metadata = _Unpickler(file).load()
            if metadata["listid"] == list_id and metadata.get("subaddress") == subaddress:
                found.append(Arrival(address, _id(message), path))
        return found


def place(address: str) -> str:
    """One address for all that arrive at one place: `l-subscribe` is `l-join`, `l-bounces+x` is `l-bounces`."""
    name, word, domain = _parts(address)
    return f"{name}-{word}@{domain}" if word in _COMMANDS | {"bounces", "owner"} else address.lower()


def _parts(address: str) -> tuple[str, str, str]:
    local, _, domain = address.lower().partition("@")
    name, _, word = local.partition("+")[0].rpartition("-")
    return name, _ALIASES.get(word, word), domain


def _header_of(file: io.BufferedReader) -> bytes:
    lines = []
    while (line := file.readline()) not in {b"", b"\n", b"\r\n"}:
        lines.append(line)
    return b"".join(lines)


def _id(message: email.message.Message) -> str:
    return str(message.get("Message-ID", "")).strip()
