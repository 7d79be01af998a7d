"""The record of a verdict: it comes back as it was, garbage is nothing, and the digest is of the body alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.auth import (
    Arc,
    ArcResult,
    Authenticated,
    DkimResult,
    Dmarc,
    Iprev,
    Signature,
    Spf,
    SpfResult,
)
from mailgate.core.envelope import SOURCES, Client
from mailgate.core.message import Message
from mailgate.core.record import Record, digest, from_json
from mailgate.core.scan import Scan, Scored, Skipped, SkippedReason, Unscored, UnscoredReason
from mailgate.core.verdict import Action

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCANS: st.SearchStrategy[Scan] = st.one_of(
    st.builds(Scored, FLOATS, FLOATS, st.text(), st.text()),
    st.builds(Unscored, st.sampled_from(get_args(UnscoredReason)), st.text()),
    st.builds(Skipped, st.sampled_from(get_args(SkippedReason))),
)
ADDRESSES = st.one_of(st.just(""), st.ip_addresses().map(str))
AUTHENTICATED = st.builds(
    Authenticated,
    spf=st.lists(
        st.builds(Spf, st.sampled_from(get_args(SpfResult)), st.just("helo"), st.text(), st.text(), st.text()),
        max_size=2,
    ).map(tuple),
    dkim=st.none()
    | st.tuples(
        st.builds(
            *(Signature, st.sampled_from(get_args(DkimResult)), st.text(), st.text()),
            *(st.text(), st.text(), st.integers(), st.booleans(), st.text()),
        )
    ),
    arc=st.none() | st.builds(Arc, st.sampled_from(get_args(ArcResult)), st.lists(st.text()).map(tuple), st.text()),
    dmarc=st.none()
    | st.builds(Dmarc, st.just("fail"), st.text(), st.text(), st.just("reject"), st.booleans(), st.text()),
    iprev=st.none() | st.builds(Iprev, st.just("pass"), st.text(), st.text(), st.text()),
)
RECORDS = st.builds(
    Record,
    gate_id=st.text(),
    at=FLOATS,
    client=st.builds(Client, ADDRESSES, st.text(), st.text(), st.text(), st.text(), st.sampled_from(SOURCES)),
    scan=st.none() | SCANS,
    action=st.sampled_from(Action),
    reasons=st.lists(st.text()).map(tuple),
    auth=st.none() | AUTHENTICATED,
)
AUTH = Authenticated(spf=(Spf("pass", "mailfrom", "a.test", "b@a.test", ""),), arc=Arc("pass", ("c.test",), ""))
ONE = Record(
    *("01m8112ytat08xvr1g", 1.5, Client("192.0.2.7", "a"), Scored(7.2, 4.0, "é", "s"), Action.HOLD, ("spam-hold",)),
    auth=AUTH,
)
TREE: dict[str, Any] = json.loads(ONE.to_json())


SPF_TREE = TREE["auth"]["spf"][0]
WRONG_RESULTS: list[dict[str, Any]] = [
    {"auth": TREE["auth"] | {"spf": None}},
    {"auth": TREE["auth"] | {"spf": [{}]}},
    {"auth": TREE["auth"] | {"spf": [SPF_TREE | {"result": "bored"}]}},
    {"auth": TREE["auth"] | {"spf": [SPF_TREE | {"identity": "from"}]}},
    {"auth": TREE["auth"] | {"spf": [SPF_TREE | {"why": 7}]}},
    {"auth": TREE["auth"] | {"dkim": 7}},
    {"auth": TREE["auth"] | {"dkim": [7]}},
    {"auth": TREE["auth"] | {"arc": {"result": "pass", "sealers": [7], "why": ""}}},
    {"auth": TREE["auth"] | {"dmarc": {"result": "pass"}}},
    {"auth": TREE["auth"] | {"iprev": []}},
]


@given(RECORDS)
def test_it_comes_back_as_it_was_written(record: Record) -> None:
    text = record.to_json()
    assert from_json(text) == record
    assert text.isascii()
    assert "\n" not in text


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"version": None},
        {"gate_id": 7},
        {"at": "soon"},
        {"at": float("nan")},
        {"at": 10**400},
        {"client": None},
        {"client": {"ip": "192.0.2.7", "colour": "red"}},
        {"client": {"ip": 7}},
        {"client": {"ip": "192.0.2.7", "source": 7}},
        {"client": {"ip": "nowhere"}},
        {"client": {"ip": "192.0.2.7/24"}},
        {"scored": None},
        {"scored": {"score": float("inf"), "required": 4.0, "report": "", "server": ""}},
        {"scored": {"score": 1.0}},
        {"scored": None, "unscored": {"reason": "bored", "detail": ""}},
        {"scored": None, "skipped": {"reason": "bored"}},
        {"action": "dance"},
        {"action": None},
        {"reasons": 7},
        {"reasons": [7]},
        {"auth": 7},
        {"auth": {}},
        *WRONG_RESULTS,
    ],
)
def test_what_nobody_wrote_is_nothing(change: dict[str, Any]) -> None:
    assert from_json(json.dumps(TREE)) == ONE
    assert from_json(json.dumps(TREE | change)) is None


@pytest.mark.parametrize("key", sorted(TREE))
def test_a_part_that_is_missing_makes_it_nothing(key: str) -> None:
    assert from_json(json.dumps({name: value for name, value in TREE.items() if name != key})) is None


@given(st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_reading_ends_whatever_is_there(text: str) -> None:
    assert from_json(text) is None


def test_reading_ends_with_what_is_nested_too_deep() -> None:
    assert from_json("[" * 100_000) is None


def body(*pieces: bytes, head: bytes = b"Subject: a\r\n\r\n") -> Message:
    return Message(head, pieces)


def test_the_digest_is_of_the_bodys_octets() -> None:
    assert digest(body(b"a\r\n", b"b\r\n")) == hashlib.sha256(b"a\r\nb\r\n").hexdigest()
    assert digest(body()) == hashlib.sha256(b"").hexdigest()


@given(st.binary(), st.binary(), st.integers(0, 40))
def test_the_same_body_has_the_same_digest_in_whatever_pieces_and_under_whatever_header(
    octets: bytes, head: bytes, cut: int
) -> None:
    pieces = [piece for piece in (octets[:cut], octets[cut:]) if piece]
    assert digest(body(*pieces, head=head)) == digest(body(octets) if octets else body())


@given(st.binary(), st.binary())
def test_another_body_has_another_digest(one: bytes, other: bytes) -> None:
    same = _ended(one) == _ended(other)
    assert (digest(body(one)) == digest(body(other))) is same


def _ended(octets: bytes) -> bytes:
    return octets if octets.endswith(b"\n") else octets + b"\r\n"
