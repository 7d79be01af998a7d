"""The look-up against `ipaddress`, and the octets of a table."""

import ipaddress
import itertools
import time
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailgate.core import network_table
from mailgate.core.network_table import Listed, ListFile, Table
from mailgate.core.networks import Network, NetworkSet, Span

SETS = tuple(
    NetworkSet(name, contexts, "why", f"/lists/{name}.txt") for name, contexts in (("a", None), ("b", ("mx",)))
)
NOW = 1000.0
# Few bits, so that networks meet, lie in one another, and end where others begin.
V4 = st.integers(0, 2**32 - 1) | st.integers(0, 40) | st.integers(2**32 - 40, 2**32 - 1)
V6 = (
    st.integers(0, 2**128 - 1)
    | st.integers(0, 40)
    | st.integers(2**128 - 40, 2**128 - 1)
    | st.builds(
        lambda high, low: high << 64 | low, st.integers(5, 8), st.integers(0, 4) | st.integers(2**64 - 4, 2**64 - 1)
    )
)
EXPIRES = st.sampled_from([0, 0, 999, 1000, 1001])


def network(number: int, bits: int, length: int) -> Network:
    kind = ipaddress.IPv4Network if bits == 32 else ipaddress.IPv6Network
    return kind((number, length), strict=False)


NETWORKS = st.builds(network, V4, st.just(32), st.integers(20, 32) | st.integers(0, 32)) | st.builds(
    network, V6, st.just(128), st.integers(110, 128) | st.integers(0, 128)
)
LISTED = st.lists(st.tuples(NETWORKS, st.sampled_from(SETS), EXPIRES), max_size=12)


def table(listed: Sequence[tuple[Network, NetworkSet, int]]) -> Table:
    gathered = Listed()
    for one, of, expires in listed:
        first, last = int(one.network_address), int(one.broadcast_address)
        gathered.add(Span(one.version, first, last), of, expires)
    return Table(gathered.built(SETS, (ListFile("/lists/a.txt", "1-2-3"),), NOW))


@settings(max_examples=400)
@given(LISTED, st.lists(V4, max_size=3), st.lists(V6, max_size=3))
def test_a_look_up_finds_what_ipaddress_finds(
    listed: list[tuple[Network, NetworkSet, int]], some4: list[int], some6: list[int]
) -> None:
    made = table(listed)
    edges = {
        (one.version, number + more)
        for one, _, _ in listed
        for number in (int(one.network_address), int(one.broadcast_address))
        for more in (-1, 0, 1)
        if 0 <= number + more < 2**one.max_prefixlen
    }
    for family, number in edges | {(4, one) for one in some4} | {(6, one) for one in some6}:
        address = ipaddress.IPv4Address(number) if family == 4 else ipaddress.IPv6Address(number)
        expected = {of.name for one, of, expires in listed if address in one and not 0 < expires <= NOW}
        found = made.find(family, number, NOW)
        assert {of.name for of in found} == expected
        assert len(found) == len(expected)


@given(LISTED)
def test_the_stretches_are_in_order_and_apart(listed: list[tuple[Network, NetworkSet, int]]) -> None:
    found = [stretch for stretch, _ in table(listed).stretches()]
    assert found == sorted(found)
    for before, after in itertools.pairwise(found):
        assert before.family < after.family or before.last < after.first


def test_what_is_known_of_sets_and_files_comes_back() -> None:
    made = table([(ipaddress.ip_network("192.0.2.0/24"), SETS[1], 0)] * 3)
    assert [(one.name, one.contexts, one.comment, one.file, one.entries) for one in made.sets] == [
        ("a", None, "why", "/lists/a.txt", 0),
        ("b", ("mx",), "why", "/lists/b.txt", 3),
    ]
    assert made.files == (ListFile("/lists/a.txt", "1-2-3"),)
    assert (made.made, list(made.expiries)) == (NOW, [])


def test_however_many_expiries_there_are_a_table_is_read_in_no_time() -> None:
    """A thread of the daemon's does it, and what is read in one go has the loop wait."""
    many = 50_000
    listed = Listed()
    for number in range(many):
        listed.add(Span(4, 2 * number, 2 * number), SETS[number % 2], number + 1)
    octets = listed.built(SETS, (), NOW)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        made = Table(octets)
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.02
    assert sorted(made.expiries) == list(range(1, many + 1))
    assert made.find(4, 2 * (many - 1), many - 0.5) == (made.sets[1],)
    assert made.find(4, 2 * (many - 1), many + 0.5) == made.find(4, 1, 0) == ()


def test_taking_back_leaves_what_was_before() -> None:
    listed = Listed()
    listed.add(Span(4, 1, 2), SETS[0], 0)
    mark = listed.mark()
    listed.add(Span(4, 5, 6), SETS[1], 0)
    listed.add(Span(6, 5, 6), SETS[1], 7)
    listed.back_to(mark)
    listed.add(Span(4, 9, 9), SETS[0], 0)
    made = Table(listed.built(SETS[:1], (), NOW))
    assert [tuple(stretch) for stretch, _ in made.stretches()] == [(4, 1, 2), (4, 9, 9)]


def octets() -> bytes:
    gathered = Listed()
    gathered.add(Span(4, 1, 9), SETS[0], 0)
    return gathered.built(SETS, (), NOW)


@given(st.data())
def test_damaged_octets_are_no_table(data: st.DataObject) -> None:
    good = octets()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="table of networks"):
        Table(bytes(bad))
    with pytest.raises(ValueError, match="table of networks"):
        Table(good[:at])


def test_what_has_expired_does_not_count() -> None:
    made = table([(ipaddress.ip_network(f"192.0.2.{n}"), SETS[n % 2], 1000 + n) for n in range(6)])
    assert [made.living(now) for now in (999.0, 1000.0, 1003.0, 2000.0)] == [(3, 3), (2, 3), (1, 1), (0, 0)]


def test_a_table_that_does_not_count_its_listings_is_still_read() -> None:
    """As the version before wrote it: an upgrade must not lose what broken files listed."""
    listed = Listed()
    listed.add(Span(4, 1, 2), SETS[0], 1001)
    header, columns = network_table._unpacked(listed.built(SETS, (), NOW))
    old_columns = [array("Q" if one.format == "Q" else "I", one) for one in columns[:-1]]
    old = Table(network_table._packed({key: header[key] for key in ("made", "files", "sets")}, old_columns))
    assert old.find(4, 1, NOW) == (old.sets[0],)
    assert old.living(2000.0) == (1, 0)
