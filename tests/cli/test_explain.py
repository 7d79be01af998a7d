"""`mailgate explain`: every fact and its why, the verdict that the doors would give, and nothing is left behind."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.site import Ran, Site
from tests.stack.dns import DnsServer
from tests.stack.fake_scorer import Act, FakeScorer, spamd_says

POST = b"""Received: from x by y
From: Ann <ann@author.test>
Message-ID: <1@author.test>
X-Spam-Flag: forged

Hello.
"""
ARGUMENTS = (
    "--client",
    "192.0.2.66",
    "--helo",
    "mx.author.test",
    "--from",
    "ann@author.test",
    "--to",
    "list@lists.test",
)


@pytest.fixture(scope="module")
def names() -> Iterator[DnsServer]:
    """What the DNS says of the author's domain."""
    with DnsServer() as server:
        server.add("author.test", "TXT", '"v=spf1 ip4:192.0.2.7 -all"')
        server.add("_dmarc.author.test", "TXT", '"v=DMARC1; p=reject"')
        yield server


@pytest.fixture
def desk(site: Site, names: DnsServer) -> Iterator[tuple[Site, FakeScorer]]:
    """A site that enforces DMARC, blocks a network, and asks a scorer."""
    with FakeScorer("spamd") as scorer:
        scorer.scan = Act(spamd_says("7.0"))
        (site.directory / "bad.txt").write_text("198.51.100.0/24\n")
        (site.directory / "post.eml").write_bytes(POST)
        with site.config.open("a") as file:
            file.write(f'[auth]\nnameservers = ["{names.at}"]\ndmarc_enforce = "reject"\n')
            file.write(f'[spam]\nservers = ["{scorer.port}"]\nskip_networks = ["203.0.113.0/24"]\n')
            file.write(f'[networks]\nfiles = ["{site.directory}/bad.txt"]\n')
        yield site, scorer


def explained(site: Site, *arguments: str) -> Ran:
    return site.run("explain", str(site.directory / "post.eml"), *arguments)


def test_every_fact_and_the_verdict(desk: tuple[Site, FakeScorer]) -> None:
    site, _ = desk
    before = sorted(path.name for path in site.directory.iterdir())
    ran = explained(site, *ARGUMENTS)
    assert (ran.status, ran.err) == (0, "")
    rows = {tuple(line.split(None, 2)[:2]): " ".join(line.split()) for line in ran.out.splitlines()}
    for fact, word, why in (
        ("client", "192.0.2.66", "helo mx.author.test; told with --client"),
        ("networks", "not", "networks not listed"),
        ("spam", "scored", "7.0, 4.0 is spam to"),
        ("spf", "fail", "mailfrom ann@author.test: -all matches 192.0.2.66"),
        ("dkim", "none", "not signed"),
        ("dmarc", "fail", "author.test p=reject at author.test: nothing vouches for this domain"),
        ("arc", "none", "no ARC set"),
        ("iprev", "permerror", ""),
        ("_dmarc.author.test", "TXT", "found"),
        ("66.2.0.192.in-addr.arpa", "PTR", "nxdomain"),
    ):
        assert why in rows[fact, word], ran.out
    reply = "550 5.7.1 the domain in From wants this rejected (DMARC)"
    assert f"in the session, where Exim asks first: reject (dmarc-reject, spam-reject, spf-tag): {reply}\n" in ran.out
    assert "\nafter acceptance: hold (dmarc-reject, spam-reject, spf-tag)\n" in ran.out
    assert "\nput in front:\n  Authentication-Results: gate.lists.test;\n" in ran.out
    assert "\n  X-Spam-Score: 7.0 (+++++++)\n" in ran.out
    assert sorted(path.name for path in site.directory.iterdir()) == before


def test_the_same_for_scripts(desk: tuple[Site, FakeScorer]) -> None:
    site, _ = desk
    (row,) = explained(site, *ARGUMENTS, "--to", "other@lists.test", "--json").rows
    assert (row["client"]["ip"], row["client"]["source"]) == ("192.0.2.66", "--client")
    assert row["recipients"] == ["list@lists.test", "other@lists.test"]
    assert row["message_id"] == "<1@author.test>"
    assert (row["scan"]["result"], row["scan"]["score"]) == ("scored", 7.0)
    assert row["auth"]["dmarc"]["result"] == "fail"
    asked = {(one["name"], one["type"], one["answer"]) for one in row["auth"]["lookups"]}
    assert ("author.test", "TXT", "found") in asked
    assert all(one["seconds"] >= 0 for one in row["auth"]["lookups"])
    assert row["seconds"].keys() == {"auth", "spam"}
    assert row["in_session"]["action"] == "reject"
    assert row["after_acceptance"]["action"] == "hold"
    assert row["in_session"]["reasons"] == ["dmarc-reject", "spam-reject", "spf-tag"]
    assert [one.partition(":")[0] for one in row["headers"]] == [
        *("Authentication-Results", "Received", "X-Spam-Score", "X-Spam-Report", "X-Spam-Flag"),
        *("X-Spam-Status", "X-Mailgate-Scan", "X-Mailgate-Id"),
    ]


@pytest.mark.parametrize(
    ("client", "auth_skipped", "in_session"),
    [
        ("203.0.113.9", "trusted-network", "accept"),
        ("198.51.100.9", "settled before", "reject"),
    ],
)
def test_what_is_settled_before_is_not_asked(
    desk: tuple[Site, FakeScorer], client: str, auth_skipped: str, in_session: str
) -> None:
    site, scorer = desk
    (row,) = explained(site, "--client", client, "--json").rows
    assert (row["auth"], row["auth_skipped"], row["in_session"]["action"]) == (None, auth_skipped, in_session)
    assert scorer.scans == 0


def test_who_it_is_from_stands_in_the_message_if_nobody_says_so(desk: tuple[Site, FakeScorer]) -> None:
    site, _ = desk
    told = b"Return-Path: <ann@author.test>\r\nX-Mailgate-Client: ip=192.0.2.7\r\n" + POST.replace(b"\n", b"\r\n")
    (site.directory / "post.eml").write_bytes(b"From ann Sun Nov 22 10:16:00 2026\n" + told)
    (row,) = explained(site, "--json").rows
    assert (row["client"]["ip"], row["client"]["source"], row["sender"]) == ("192.0.2.7", "header", "ann@author.test")
    assert row["auth"]["dmarc"]["why"] == "spf vouches for author.test"


def test_it_reads_stdin_and_says_what_it_can_not_read(desk: tuple[Site, FakeScorer]) -> None:
    site, _ = desk
    with site.start("explain", "-", "--json", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(POST, timeout=60)
    assert json.loads(out)["client"]["source"] == "unknown"
    missing = site.run("explain", str(site.directory / "nothing.eml"))
    assert (missing.status, "nothing.eml: No such file or directory" in missing.err) == (1, True)


BLANK = [("--client", ""), ("--from", ""), ("--to", " "), ("--client", "192.0.2.7", "--helo", "")]


@pytest.mark.parametrize("arguments", BLANK)
def test_a_variable_that_is_not_set_is_no_fact(site: Site, arguments: tuple[str, ...]) -> None:
    ran = site.run("explain", str(site.config), *arguments)
    assert ran.status == 2
    assert "is a variable not set?" in ran.err


@pytest.mark.parametrize("client", ["192.0.2", "fe80::1%eth0;dkim=pass", "fe80::1%", "mx.author.test"])
def test_what_is_no_address_is_no_client(site: Site, client: str) -> None:
    ran = site.run("explain", str(site.config), "--client", client)
    assert (ran.status, "is not an IP address" in ran.err) == (2, True)


@pytest.mark.parametrize("arguments", [("--client", "192.0.2"), ("--helo", "mx"), ()])
def test_usage(site: Site, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert site.run("explain", *arguments).status == 2
