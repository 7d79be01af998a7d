"""The fields of a message's event: made once, by who reads them, and never at the cost of who told them."""

import json

import pytest

from mailgate.core.story import Told, as_json, meant, message_id, names, of_message


def test_they_are_made_once_and_not_before_they_are_read() -> None:
    made = []

    def make() -> dict[str, object]:
        made.append(1)
        return {"id": "one", "bytes": 4}

    told = Told(make)
    assert made == []
    assert (told["bytes"], len(told), dict(told), names(told)) == (4, 2, {"id": "one", "bytes": 4}, {"one"})
    assert as_json(told) == as_json(told) == '{"id": "one", "bytes": 4}'
    assert made == [1]


def test_a_bug_in_the_making_is_told_in_their_place() -> None:
    told = Told(lambda: {"bytes": 1 // 0}, {"id": "one", "exim_id": ""})
    assert names(told) == {"one"}
    assert "ZeroDivisionError" in json.loads(as_json(told))["trace"]


def test_what_cannot_be_written_is_told_in_their_place() -> None:
    told = Told(lambda: {"id": "one", ("a", "key"): 1}, {"id": "one"})  # type: ignore[dict-item]
    read = json.loads(as_json(told))
    assert read["id"] == "one"
    assert "TypeError" in read["trace"]


def test_whose_event_it_is() -> None:
    assert of_message({"cause": "no room"}) is None
    told = of_message({"id": "one", "recipients": {"a@x.test": "delivered", "b@x.test": "delivered"}})
    assert told is not None
    assert told.weight == 3
    assert of_message(told) is told


@pytest.mark.parametrize("octets", [200, 246, 247, 248, 249, 250, 251, 5000])
@pytest.mark.parametrize("written", ["<{}@X.test>", "{}@X.test"])
def test_a_very_long_message_id_is_found_by_what_was_kept_and_by_all_of_it(octets: int, written: str) -> None:
    whole = written.format("a" * octets)
    kept = message_id(whole.encode())
    assert len(kept) <= 250
    for asked in (whole, whole.strip("<>"), kept):
        assert names({"message_id": kept}) & meant(asked), asked
