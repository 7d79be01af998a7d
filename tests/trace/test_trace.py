"""`mailgate trace` beside a gate that has been through something: asked, refused, put off, held, released, done."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from mailgate.cli.main import app
from mailgate.cli.output import stamp
from mailgate.cli.trace_tell import tell
from mailgate.edge.spool.chronicle import Event
from mailgate.edge.spool.tracing import Found, Story
from tests.edge.pair import mail
from tests.spam.desk import LIST
from tests.stack.fake_script import Stage, say
from tests.stack.waiting import wait_until
from tests.verdict.asking import Counter, ask, open_counter, received, rspamc

OWNER = "list-owner@lists.test"
SENDER, SPAMMER = "ida@example.org", "spam@example.net"
POSTED, REFUSED = "1xV0Ys-0004sm-35", "1xV0Yt-0004sm-36"
POST, SPAM = "<Post.1@example.org>", "<spam@example.net>"


@dataclass(frozen=True)
class Told:
    """What a `trace` came to."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The stories."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Place:
    """A gate, and a configuration that leads to its spool or to a copy of it."""

    counter: Counter
    config: str

    def run(self, *arguments: str) -> Told:
        """Run a verb in this process."""
        done = CliRunner().invoke(app, [*arguments, "--config", self.config])
        return Told(done.exit_code, done.stdout, done.stderr)

    def rows(self, what: str, *arguments: str) -> list[dict[str, Any]]:
        """The stories that `trace` tells."""
        return self.run("trace", what, "--json", *arguments).rows

    def names(self, what: str) -> list[str]:
        """The events of the one story."""
        return [event["event"] for story in self.rows(what) for event in story["events"]]


def operate(place: Place, *arguments: str) -> None:
    """An operator does it."""
    done = place.run(*arguments)
    assert done.status == 0, done.err


def pass_through(place: Place) -> None:
    """A post that Mailman puts off, that operators hold and release; and spam that is refused in the session."""
    counter, gate = place.counter, place.counter.gate
    post = received(POSTED) + mail(POST)
    counter.scores(3.2)
    ask(counter.door, rspamc(post, SENDER, (LIST, OWNER), POSTED))
    counter.fake.on(Stage.RCPT, say("450 4.2.0 Not now"), only=OWNER)
    counter.pair.send(LIST, OWNER, octets=post, sender=SENDER)
    counter.scores(20)
    ask(counter.door, rspamc(received(REFUSED) + mail(SPAM), SPAMMER, (LIST,), REFUSED))
    wait_until(lambda: gate.events("replay.deferred"), "the gate has tried again")
    operate(place, "queue", "hold", POSTED, "--reason", "asked the owner")
    counter.fake.behave()
    operate(place, "queue", "release", POSTED, "--yes")
    wait_until(lambda: counter.pair.states(POST) == {OWNER: "delivered"}, "it is delivered")
    wait_until(lambda: "replay.delivered" in place.names(POSTED), "the history has it")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with open_counter({"spool": {"retry_first": "2s", "retry_max": "5s"}}) as counter:
        made = Place(counter, str(counter.gate.config))
        pass_through(made)
        yield made


def test_a_story_is_told_in_order(place: Place) -> None:
    [story] = place.rows(POSTED)
    events = story["events"]
    names = [event["event"] for event in events]
    assert names[:2] == ["verdict.given", "message.spooled"]
    assert set(names[2:-3]) == {"replay.deferred"}
    assert names[-3:] == ["operator.hold", "operator.release", "replay.delivered"]
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    assert [one["state"] for one in story["spool"][0]["recipients"]] == ["delivered"]


@pytest.mark.parametrize("name", [POSTED, POST, POST.strip("<>").lower(), SENDER.upper(), OWNER, "@Example.ORG"])
def test_each_of_its_names_finds_the_same_story(place: Place, name: str) -> None:
    assert place.rows(name) == place.rows(POSTED)


def test_so_does_each_of_its_ids(place: Place) -> None:
    stories = place.rows(POSTED)
    assert len(stories[0]["ids"]) == 3  # the verdict door's, the relay door's, Exim's
    for name in stories[0]["ids"]:
        assert place.rows(name) == stories


def test_what_was_rejected_is_told_too(place: Place) -> None:
    [story] = place.rows(SPAMMER)
    [event] = story["events"]
    assert (event["event"], event["verdict"], event["reasons"]) == ("verdict.given", "reject", ["spam-reject"])
    assert event["reply"].startswith("550 5.7.1 ")
    assert story["spool"] == []


@pytest.mark.parametrize("name", [LIST, "192.0.2.7"])
def test_a_list_and_a_client_have_both(place: Place, name: str) -> None:
    assert place.rows(name) == [*place.rows(POSTED), *place.rows(REFUSED)]


def test_the_last_ones_and_no_more_than_asked_for(place: Place) -> None:
    assert place.rows(LIST, "--limit", "1") == place.rows(POSTED)  # to which something happened last
    assert len(place.rows(LIST, "--since", "1h")) == 2
    assert place.run("trace", LIST, "--since", "2999-01-01").status == 3


def test_a_failed_attempt_has_its_dialogue_and_a_good_one_none(place: Place) -> None:
    [story] = place.rows(POSTED)
    by_name = {event["event"]: event for event in story["events"]}
    for name in ("message.spooled", "replay.deferred"):
        assert f"RCPT TO:<{OWNER}> -> 450 4.2.0 Not now" in by_name[name]["dialogue"]
    assert "dialogue" not in by_name["replay.delivered"]


def test_the_final_event_says_everything(place: Place) -> None:
    events = place.rows(POSTED)[0]["events"]
    asked, final = events[0], events[1]
    seconds = final.pop("seconds")
    assert set(seconds) == {"upstream", "spool", "total"}
    assert 0 < max(seconds["upstream"], seconds["spool"]) <= seconds["total"] < 8
    del final["time"], final["dialogue"], final["peer"], final["scorer"]
    said = final.pop("recipients")
    assert said == {
        LIST: f"delivered: 250 2.0.0 {final['id']} delivered: Ok",
        OWNER: "spooled: 450 4.2.0 Not now",
    }
    assert final == {
        "level": "warning",
        "event": "message.spooled",
        "id": final["id"],
        "exim_id": POSTED,
        "message_id": POST,
        "verdict_id": asked["id"],
        "door": "lmtp",
        "client": "192.0.2.7",
        "origin": "verdict",
        "helo": "mx.example.net",
        "host": "mx.example.net",
        "sender": SENDER,
        "sender_domain": "example.org",
        "lists": [LIST],
        "bytes": len(received(POSTED) + mail(POST)),
        "verdict": "accept",
        "reasons": ["spam-tag"],
        "scan": "scored",
        "score": 3.2,
    }
    assert set(asked["seconds"]) == {"spam", "total"}


def test_for_people(place: Place) -> None:
    lines = [line[27:].rstrip() for line in place.run("trace", POSTED).out.splitlines()]
    wanted = [
        "arrived   at the verdict door from 127.0.0.1: from <ida@example.org>, client 192.0.2.7",
        "facts     scan scored, score 3.2, scorer 127.0.0.1:",
        "verdict   accept (spam-tag)",
        "arrived   at the lmtp door from 127.0.0.1: from <ida@example.org>, client 192.0.2.7",
        "attempt   to Mailman:",
        "            RCPT TO:<list-owner@lists.test> -> 450 4.2.0 Not now",
        "spooled   in ",
        "            list-owner@lists.test: spooled: 450 4.2.0 Not now",
        "replay    deferred: upstream ",
        "operator  hold: by ",
        "            list-owner@lists.test: pending -> held",
        "operator  release: by ",
        "replay    delivered: upstream ",
        "            list-owner@lists.test: delivered: 250 Ok",
        "spool     list-owner@lists.test: delivered, ",
    ]
    for words in wanted:
        assert any(line.startswith(words) for line in lines), (words, lines)
        lines = lines[next(n for n, line in enumerate(lines) if line.startswith(words)) + 1 :]


def test_a_message_arrived_before_its_reply(capsys: pytest.CaptureFixture[str]) -> None:
    """Its event is written when all is over, which may be 45 s later."""
    at = 1_795_881_600.0
    fields = {"door": "lmtp", "verdict": "accept", "recipients": {LIST: "spooled: 451"}, "seconds": {"total": 40.0}}
    story = Story(frozenset({"01m8"}), (Event(at, "message.spooled", "warning", fields),), ())
    tell(Found([story]), "01m8", at, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"{stamp(at - 40)}  arrived ")
    assert lines[2].startswith(f"{stamp(at)}  verdict ")


def test_how_often_to_look_is_a_time(place: Place) -> None:
    told = place.run("status", "--watch", "--every", "0s")
    assert told.status == 2
    assert "'0s' is too short: 0.2s is the shortest" in " ".join(told.err.split())


def test_nothing_is_known(place: Place) -> None:
    told = place.run("trace", "nobody@lists.test")
    assert (told.status, told.out) == (3, "")
    assert told.err == "mailgate: nobody@lists.test: nothing is known of it\n"


def test_a_copy_of_the_spool_tells_the_same_and_so_does_a_gate_that_is_down(place: Place) -> None:
    """The last test: it stops the gate."""
    before = place.rows(LIST)
    directory = place.counter.gate.directory
    operate(place, "spool", "backup", str(directory / "copy.db"))
    text = place.counter.gate.config.read_text()
    (directory / "copy.toml").write_text(text.replace(str(place.counter.gate.spool), str(directory / "copy.db")))
    assert Place(place.counter, str(directory / "copy.toml")).rows(LIST) == before
    assert place.counter.gate.stop() == 0
    assert place.rows(LIST) == before


def test_a_variable_that_is_not_set_is_misuse(place: Place) -> None:
    """Not "nothing is known of it", nor everything that there ever was."""
    for arguments in (
        ("trace", ""),
        ("trace", " "),
        ("trace", POST, "--since", ""),
        ("unscored", "list", "--since", ""),
    ):
        told = place.run(*arguments)
        assert told.status == 2
        assert "is a variable not set?" in " ".join(told.err.split())


def test_octets_that_are_no_text_are_no_name(place: Place) -> None:
    assert place.run("trace", "\udcff@example.org").status == 3
    assert place.run("queue", "show", "01m8\udcff").status == 3
