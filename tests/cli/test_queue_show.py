"""`queue show`: the facts of a message, and its octets."""

import sqlite3

import pytest

from mailgate.ports import Facts
from tests.cli.site import Mail, Site

OCTETS = (
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nSubject: =?utf-8?b?broken!?= one\r\n\tand two\r\n"
    b"\r\nFirst line\r\n.dot \x1b[31m\xff\x00\r\n"
)


@pytest.fixture
def one(site: Site) -> str:
    """A message to two recipients."""
    facts = Facts("1vMhGk-0004sm-35", "<one@example.org>", "192.0.2.7")
    to = {"announce@lists.test": "pending", "dev@lists.test": "held"}
    (gate_id,) = site.fill(Mail(to, sender="", octets=OCTETS, facts=facts, age=185, uncertain=True))
    return gate_id


def test_the_facts(site: Site, one: str) -> None:
    ran = site.run("queue", "show", "1vMhGk-0004sm-35")

    said = dict(line.split(maxsplit=1) for line in ran.out.splitlines() if len(line.split(maxsplit=1)) == 2)
    assert ran.status == 0
    assert said["id"] == one
    assert "(3m 5s ago)" in said["received"] or "(3m 6s ago)" in said["received"]
    assert said["size"] == f"{len(OCTETS)} B ({len(OCTETS)} octets)"
    assert said["sender"] == "<>"
    assert said["client"] == "192.0.2.7"
    assert said["from"] == "Jürgen <j@example.org>"
    assert "one" in said["subject"]
    assert "uncertain" in said["0"]
    assert "held" in said["1"]
    assert "may have been delivered" in said["1"]


def test_the_facts_for_scripts(site: Site, one: str) -> None:
    (row,) = site.run("queue", "show", one, "--json").rows

    assert (row["id"], row["sender"], row["size"], row["settled"]) == (one, "", len(OCTETS), None)
    assert [person["state"] for person in row["recipients"]] == ["uncertain", "held"]


def test_the_octets(site: Site, one: str) -> None:
    end = OCTETS.index(b"\r\n\r\n") + 4

    assert site.run("queue", "show", one, "--raw").octets == OCTETS
    assert site.run("queue", "show", one, "--header").octets == OCTETS[:end]
    assert site.run("queue", "show", one, "--body").octets == OCTETS[end:]


def test_what_is_settled_has_facts_but_no_octets(site: Site, one: str) -> None:
    site.run("queue", "drop", one, "--yes", "--reason", "an accident")

    facts, octets = site.run("queue", "show", one), site.run("queue", "show", one, "--raw")

    assert facts.status == 0
    assert "an accident" in facts.out
    assert "has been removed" in facts.out
    assert (octets.status, octets.octets) == (1, b"")
    assert "has been removed" in octets.err


def test_damage_is_told(site: Site, one: str) -> None:
    with sqlite3.connect(site.spool) as database:
        database.execute("UPDATE bodies SET data = CAST(upper(data) AS BLOB)")
    database.close()

    ran = site.run("queue", "show", one, "--raw")

    assert ran.status == 1
    assert f"{one}: the content is not what was stored" in ran.err


def test_no_such_message(site: Site, one: str) -> None:
    assert site.run("queue", "show", "nosuch").status == 3
    assert site.run("queue", "show", one, "--json", "--raw").status == 2
