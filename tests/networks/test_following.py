"""The daemon follows its lists: what is new, what is broken, what was in force before it started."""

import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.pair import Pair, mail
from tests.stack.children import remove, temporary_directory
from tests.stack.client import Client
from tests.stack.waiting import wait_until

FIRST, SECOND = "203.0.113.1", "203.0.113.2"


class Place:
    """A gate whose lists are in a directory of the test's."""

    def __init__(self, folder: Path) -> None:
        self.lists = folder / "lists"
        self.lists.mkdir()
        self.pair = Pair(
            {
                "networks": {"files": [str(self.lists)], "action": "discard", "own_file": str(folder / "own.txt")},
            }
        )
        self.gate = self.pair.gate
        self.table = self.gate.directory / "networks.table"
        for one in (folder, self.lists):
            one.chmod(0o755)  # the gate is nobody

    def write(self, name: str, text: str) -> None:
        """A file that is there whole or not at all."""
        new = self.lists / f".{name}"
        new.write_text(text)
        new.chmod(0o644)
        new.rename(self.lists / name)

    def blocked(self, ip: str) -> bool:
        """Is mail from there thrown away?"""
        with Client(self.gate.lmtp, lmtp=True) as client:
            octets = f"X-Mailgate-Client: ip={ip}\r\n".encode() + mail("<m@example.net>")
            result = client.deliver("bob@example.net", ("list@lists.test",), octets)
            client.quit()
        return "discarded" in result.final[0].text

    def becomes(self, ip: str, *, blocked: bool) -> None:
        """Within seconds."""
        wait_until(lambda: self.blocked(ip) == blocked, f"{ip}: blocked is {blocked}")

    def loads(self) -> list[int]:
        """How many networks each table had that came into force."""
        return [one["networks"] for one in self.gate.events("networks.loaded")]


@pytest.fixture
def place() -> Iterator[Place]:
    """With one list of one network; not started."""
    folder = temporary_directory("mailgate-lists-")
    made = Place(folder)
    made.write("one.txt", f"{FIRST}\n")
    yield made
    made.pair.close()
    remove(folder)


def test_a_list_is_in_force_from_the_first_message_on(place: Place) -> None:
    place.gate.start()
    assert place.blocked(FIRST)
    assert not place.blocked(SECOND)


def test_what_changes_is_taken_up_by_itself(place: Place) -> None:
    place.gate.start()
    place.write("one.txt", f"{SECOND}\n")
    place.becomes(SECOND, blocked=True)
    assert not place.blocked(FIRST)
    place.write("two.yaml", f"cidrs: ['{FIRST}']\n")
    place.becomes(FIRST, blocked=True)
    (place.lists / "two.yaml").unlink()
    place.becomes(FIRST, blocked=False)
    assert place.blocked(SECOND)


def test_a_broken_file_leaves_in_force_what_it_listed(place: Place) -> None:
    place.write("two.json", f'{{"two": ["{SECOND}", "bad"]}}')
    place.gate.start()
    assert place.gate.wait_for_event("networks.skipped")["problems"] == ["line 1: bad is no network"]
    broken = str(place.lists / "two.json")
    place.write("two.json", '{"two": [')
    event = place.gate.wait_for_event("networks.broken")
    assert (event["file"], "is no JSON" in event["cause"], event["since"] > 0) == (broken, True, True)
    assert place.blocked(SECOND)
    assert place.gate.metric("mailgate_network_list_broken", file=broken) == 1
    said = place.gate.cli("status").stdout
    assert re.search(rf"^networks: +.*{re.escape(broken)}", said, re.MULTILINE), said
    place.write("one.txt", "192.0.2.1\n")  # the others go on to be read
    place.becomes(FIRST, blocked=False)
    assert place.blocked(SECOND)
    assert len(place.gate.events("networks.broken")) == 1
    # Also over a restart: the table is on disk.
    place.gate.restart()
    assert place.blocked(SECOND)
    place.write("two.json", '{"two": []}')
    place.becomes(SECOND, blocked=False)
    assert place.gate.metric("mailgate_network_list_broken", file=broken) == 0


def test_check_config_fails_for_a_broken_file_and_tells_of_a_bad_entry(place: Place) -> None:
    place.write("two.json", '{"two": ["bad", "192.0.2.1"]}')
    done = place.gate.cli("check-config")
    assert f"{place.lists}/two.json: line 1: bad is no network (skipped)" in done.stderr
    place.write("two.json", "{")
    done = place.gate.cli("check-config", check=False)
    assert done.returncode == 1
    assert f"networks.files: {place.lists}/two.json: line 1: is no JSON" in done.stderr


def test_lists_that_vanish_as_a_whole_stay_in_force(place: Place) -> None:
    """A directory that is not mounted is no empty list."""
    place.gate.start()
    shutil.move(place.lists / "one.txt", place.lists.parent / "one.txt")
    place.gate.wait_for_event("networks.broken")
    assert place.blocked(FIRST)
    shutil.move(place.lists, place.lists.parent / "elsewhere")
    wait_until(lambda: len(place.gate.events("networks.broken")) == 2, "it is said")
    assert place.blocked(FIRST)


def test_a_file_that_is_being_written_is_not_read(place: Place) -> None:
    place.gate.start()
    with (place.lists / "one.txt").open("w") as file:
        for number in range(30):
            file.write(f"192.0.2.{number}\n")
            file.flush()
            time.sleep(0.1)  # a writer that takes its time; it is what is tested
    place.becomes("192.0.2.29", blocked=True)
    assert set(place.loads()) == {1, 30}


def test_a_damaged_table_is_made_anew(place: Place) -> None:
    place.gate.start()
    place.gate.stop()
    octets = bytearray(place.table.read_bytes())
    octets[-3] ^= 1
    place.table.write_bytes(octets)
    place.gate.start()
    assert "damaged" in place.gate.events("networks.failed")[0]["cause"]
    assert place.blocked(FIRST)


def test_an_expired_network_is_free(place: Place) -> None:
    end = int(time.time()) + 6
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))
    place.write("one.txt", f"{FIRST} expires={until}\n{SECOND}\n")
    place.gate.start()
    assert place.blocked(FIRST) or time.time() >= end  # a busy machine takes long to start
    place.becomes(FIRST, blocked=False)
    assert time.time() >= end
    assert place.blocked(SECOND)


def test_a_reload_takes_other_files_and_actions(place: Place) -> None:
    place.gate.start()
    other = place.lists.parent / "other.txt"
    other.write_text(f"{SECOND}\n")
    other.chmod(0o644)
    own = str(place.lists.parent / "own.txt")
    place.pair.configure({"networks": {"files": [str(other)], "action": "discard", "own_file": own}})
    place.gate.send(signal.SIGHUP)
    place.becomes(SECOND, blocked=True)
    assert not place.blocked(FIRST)


def test_no_place_for_the_table_costs_no_mail(place: Place) -> None:
    place.table.mkdir()
    place.gate.start()
    place.gate.wait_for_event("networks.failed")
    assert {one["cause"] for one in place.gate.events("networks.failed")} == {f"{place.table}: Is a directory"}
    assert not place.blocked(FIRST)
    assert place.pair.fake.taken
    # It is seen from outside, too, and tried again before long.
    assert place.gate.metric("mailgate_networks_failed") == 1
    said = place.gate.cli("status").stdout
    assert re.search(rf"^networks: +failed: {place.table}: Is a directory$", said, re.MULTILINE), said
    word = f"could not take the files as they are (nothing is in force): {place.table}: Is a directory"
    for verb in (("check", FIRST), ("list",)):
        assert word in place.gate.cli("networks", *verb, check=False).stderr
    place.table.rmdir()
    wait_until(lambda: place.blocked(FIRST), "it is in force", deadline=60)
    assert place.gate.metric("mailgate_networks_failed") == 0
    assert re.search(r"^networks: +ok$", place.gate.cli("status").stdout, re.MULTILINE)


def test_files_that_may_not_be_looked_at_keep_no_door_shut(place: Place) -> None:
    """Neither mailgate's own file nor a list, in a directory that is not the gate's to enter."""
    closed = place.lists.parent / "closed"
    closed.mkdir(mode=0)
    files = [str(closed / "list.txt"), str(place.lists)]
    own = {"files": files, "action": "discard", "own_file": str(closed / "own.txt")}
    place.pair.configure({"networks": own})
    place.gate.start()
    assert {one["cause"] for one in place.gate.events("networks.broken")} == {"Permission denied"}
    assert place.blocked(FIRST)
