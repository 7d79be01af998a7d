"""The stand-in answers as the real servers do: its octets next to theirs."""

from __future__ import annotations

import json
import re
import socket

import pytest

from tests.spam.kit import SPAM, of_size
from tests.stack.fake_scorer import Engine, FakeScorer
from tests.stack.rspamd import Rspamd
from tests.stack.spamd import Spamd

OCTETS = b"".join(SPAM.chunks)
SCAN = {
    "spamd": b"REPORT SPAMC/1.5\r\nContent-length: %d\r\n\r\n%b",
    "rspamd": b"POST /checkv2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b",
}
PING = {"spamd": b"PING SPAMC/1.5\r\n\r\n", "rspamd": b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"}


def say(port: tuple[str, int], question: bytes) -> bytes:
    """The whole answer, without any client of ours. (rspamd does not answer to whom has closed its half already.)"""
    with socket.create_connection(port, 60) as connection:
        connection.sendall(question)
        if b" SPAMC/" in question:
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def shape(answer: bytes) -> list[str]:
    """The head of an answer, without the values that differ from message to message."""
    head = answer.partition(b"\r\n\r\n")[0].decode()
    head = re.sub(r"(?i)(date: ).*|(content-length: )\d+", lambda found: f"{found[1] or found[2]}…", head)
    return re.sub(r"(True|False) ; -?\d+\.\d", "… ; …", head).split("\r\n")


def keys(answer: bytes) -> set[str]:
    """The keys of the JSON of an answer, those of its symbols included."""
    tree = json.loads(answer.partition(b"\r\n\r\n")[2])
    inner = {f"symbols.{key}" for symbol in tree["symbols"].values() for key in symbol}
    return (set(tree) | inner) - {"message-id"}  # which a message may lack


@pytest.mark.parametrize("question", ["scan", "ping"])
def test_the_fake_answers_as_the_real_one(
    real: Spamd | Rspamd, fake: FakeScorer, engine: Engine, question: str
) -> None:
    asked = SCAN[engine] % (len(OCTETS), OCTETS) if question == "scan" else PING[engine]
    theirs, ours = say(real.port.address, asked), say(fake.port.address, asked)
    if question == "scan" or engine == "spamd":
        assert shape(ours) == shape(theirs)
    if question == "ping":
        assert ours.partition(b"\r\n\r\n")[2] == theirs.partition(b"\r\n\r\n")[2]
    elif engine == "rspamd":
        assert keys(ours) - {"symbols.options", "symbols.description"} == keys(theirs) - {"messages.smtp_message"}


def test_what_spamd_says_of_a_message_that_is_shorter_than_announced(real_servers: dict[str, Spamd | Rspamd]) -> None:
    answer = say(real_servers["spamd"].port.address, SCAN["spamd"] % (len(OCTETS) + 1, OCTETS))
    assert answer.startswith(b"SPAMD/1.0 76 Bad header line: (Content-Length mismatch")


def test_the_fake_counts_what_it_is_sent(fake: FakeScorer, engine: Engine) -> None:
    big = b"".join(of_size(100_000).chunks)
    say(fake.port.address, SCAN[engine] % (len(big), big))
    assert (fake.questions, fake.octets, fake.scans) == (["scan"], [100_000], 1)
