"""What becomes of mail from listed networks at either door, and that no message is judged by half a list."""

import functools
import itertools
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack.children import remove, temporary_directory
from tests.stack.waiting import wait_until
from tests.verdict.asking import Counter, ask, lines, open_counter, received

# Each action has a network of its own.
CLIENTS = {
    "reject": "203.0.113.1",
    "hold": "203.0.113.2",
    "defer": "203.0.113.3",
    "tag": "203.0.113.4",
    "discard": "203.0.113.5",
}
SPARED, FERM, FREE = "203.0.113.6", "203.0.113.7", "198.51.100.7"
SETS = {f"set_{one}": ("mx", ip) for one, ip in CLIENTS.items()}
SETS |= {"spared": ("mx, ferm", SPARED), "firewall": ("ferm, varnish", FERM), "both": ("ferm, mx", "'2001:db8::/32'")}
SITE = ", ".join(f"{name}: {{context: [{contexts}], networks: [{ip}]}}" for name, (contexts, ip) in SETS.items())
NUMBERS = itertools.count(1)


def settings(folder: Path) -> dict[str, Any]:
    (folder / "site.yaml").write_text(f"abuse_networks: {{{SITE}}}\n")
    (folder / "site.yaml").chmod(0o644)
    networks = {
        "files": [str(folder / "site.yaml")],
        "actions": {f"set_{one}": one for one in CLIENTS},
        "own_file": str(folder / "own.txt"),
    }
    return {"networks": networks, "spam": {"skip_networks": [f"{SPARED}/32"]}}


@pytest.fixture(scope="module")
def _counter() -> Iterator[Counter]:
    folder = temporary_directory("mailgate-lists-")
    folder.chmod(0o755)  # the gate is nobody
    with open_counter(settings(folder)) as counter:
        yield counter
    remove(folder)


@pytest.fixture
def counter(_counter: Counter) -> Counter:
    """A gate with a set for each action."""
    _counter.put_in_order()
    _counter.scores(0.0)
    return _counter


def exim_id() -> str:
    return f"1y{next(NUMBERS):04}-0004sm-35"


def asked(counter: Counter, ip: str, name: str = "") -> tuple[str, dict[str, str]]:
    """What Exim is told of a message from there: its Message-ID, and the lines."""
    message_id, question = counter.post(exim_id=name or exim_id())
    return message_id, lines(ask(counter.door, question.replace(b"IP: 192.0.2.7", f"IP: {ip}".encode())))


def sent(counter: Counter, ip: str, head: bytes = b"") -> str:
    """Hand over a message that Exim says is from there; its Message-ID."""
    return counter.send(head=head + f"X-Mailgate-Client: ip={ip}\r\n".encode())


# the verdict door


def test_a_refusal_in_the_session_names_the_reason_and_not_the_list(counter: Counter) -> None:
    message_id, told = asked(counter, CLIENTS["reject"])
    assert told["Action"] == "reject"
    gate_id = told["Id"]
    assert told["Message"] == f"550 5.7.1 {gate_id} your network is blocked here (network-reject)"
    event = counter.verdict(message_id)
    assert (event["reasons"], event["networks"]) == (["network-reject"], ["set_reject"])
    assert "set_reject" not in str(told)


def test_what_is_put_off(counter: Counter) -> None:
    _, told = asked(counter, CLIENTS["defer"])
    assert told["Action"] == "soft reject"
    assert told["Message"] == f"450 4.7.1 {told['Id']} your network is blocked for now (network-defer)"


@pytest.mark.parametrize(
    ("ip", "verdict"),
    [
        (CLIENTS["hold"], "hold"),
        (CLIENTS["discard"], "discard"),
        (CLIENTS["tag"], "accept"),
        (SPARED, "accept"),
        (FERM, "accept"),
        (FREE, "accept"),
    ],
)
def test_what_exim_is_to_take(counter: Counter, ip: str, verdict: str) -> None:
    _, told = asked(counter, ip)
    assert (told["Action"], told["Verdict"]) == ("no action", verdict)
    assert "Message" not in told


@pytest.mark.parametrize(("action", "said"), [("hold", "250 2.0.0 held"), ("discard", "250 2.0.0 discarded")])
def test_what_is_asked_about_is_completed_behind_the_queue(counter: Counter, action: str, said: str) -> None:
    """Only the verdict door is told the client: the relay door knows it from there."""
    hits = counter.gate.metric("mailgate_network_hits_total", set=f"set_{action}")
    name = exim_id()
    asked(counter, CLIENTS[action], name)
    counter.send(head=received(name))
    assert counter.said == [said]
    assert counter.gate.metric("mailgate_network_hits_total", set=f"set_{action}") == hits + 1


# the relay door


@pytest.mark.parametrize(
    ("action", "said", "reason"),
    [
        ("reject", "250 2.0.0 held", "network-reject"),
        ("defer", "250 2.0.0 held", "network-defer"),
        ("hold", "250 2.0.0 held", "network-hold"),
        ("discard", "250 2.0.0 discarded", "network-discard"),
    ],
)
def test_what_exim_has_accepted_does_not_bounce(counter: Counter, action: str, said: str, reason: str) -> None:
    scans = counter.scorer.scans
    message_id = sent(counter, CLIENTS[action])
    assert counter.said == [said]
    assert counter.event(message_id)["reasons"] == [reason]
    assert not counter.arrived(message_id)
    assert counter.scorer.scans == scans
    if "held" in said:
        assert counter.replies(message_id) == {reason}


def test_what_is_tagged_is_scanned_and_says_so(counter: Counter) -> None:
    message_id = sent(counter, CLIENTS["tag"], b"X-Mailgate-Network: forged\r\n")
    taken = counter.taken(message_id)
    assert taken.get_all("X-Mailgate-Network") == ["listed; action=tag"]
    assert taken["X-Mailgate-Scan"] == "scored"
    assert counter.event(message_id)["reasons"] == ["network-tag"]


@pytest.mark.parametrize("ip", [FREE, SPARED, FERM, "", "garbage"])
def test_other_mail_says_nothing_of_it(counter: Counter, ip: str) -> None:
    message_id = sent(counter, ip)
    assert "X-Mailgate-Network" not in counter.taken(message_id)


def test_hits_and_drift_are_counted_once(counter: Counter) -> None:
    def seen() -> list[float]:
        drift = [counter.gate.metric("mailgate_network_drift_total", context=one) for one in ("ferm", "varnish")]
        return [*drift, *(counter.gate.metric("mailgate_network_hits_total", set=one) for one in ("both", "firewall"))]

    before = seen()
    sent(counter, "2001:db8::7")
    sent(counter, "2001:db8:0:0::7")
    sent(counter, FERM)
    sent(counter, f"::ffff:{FERM}")
    sent(counter, SPARED)
    assert [now - then for now, then in zip(seen(), before, strict=True)] == [4, 0, 2, 0]


def test_metrics_of_what_is_in_force(counter: Counter) -> None:
    assert counter.gate.metric("mailgate_networks", set="both") == 1
    assert counter.gate.metric("mailgate_network_list_broken") == 0
    assert 0 <= counter.gate.metric("mailgate_network_list_age_seconds") < 600


# a new list


def test_no_message_is_judged_by_half_a_list() -> None:
    folder = temporary_directory("mailgate-lists-")
    folder.chmod(0o755)
    file = folder / "site.json"

    def put(name: str) -> None:
        """All networks are in a set of this name, after a lot of others."""
        others = ", ".join(f'"10.{n >> 8}.{n & 255}.0/24"' for n in range(10_000))
        (folder / "new").write_text(f'{{"others": [{others}], "{name}": ["203.0.113.0/24", "2001:db8::/32"]}}')
        (folder / "new").chmod(0o644)
        (folder / "new").rename(file)

    put("set0")
    own = {"files": [str(file)], "own_file": str(folder / "own.txt")}
    ended = threading.Event()
    with open_counter({"networks": own}) as counter:

        def load() -> None:
            for number in itertools.count():
                if ended.is_set():
                    return
                ip = ("203.0.113.9", "2001:db8::9")[number % 2]
                question = counter.post(exim_id=exim_id())[1]
                told = lines(ask(counter.door, question.replace(b"IP: 192.0.2.7", f"IP: {ip}".encode())))
                assert told["Action"] == "reject"

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for number in range(1, 4):
                loaded = len(counter.gate.events("networks.loaded"))
                put(f"set{number % 2}")
                counter.gate.send(signal.SIGHUP)
                more = functools.partial(_more_than, loaded, counter)
                wait_until(more, "it is loaded")
        finally:
            ended.set()
        for thread in threads:
            thread.join(60)
        judged = [tuple(one["networks"]) for one in counter.gate.events("verdict.given")]
        assert set(judged) == {("set0",), ("set1",)}
        assert len(judged) > 20
    remove(folder)


def _more_than(loaded: int, counter: Counter) -> bool:
    return len(counter.gate.events("networks.loaded")) > loaded
