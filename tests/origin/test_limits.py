"""Rates at the verdict door: the real Exim puts off who is over one, in the session, and nobody else."""

import json
import re
import smtplib
from collections.abc import Iterator, Sequence

import pytest

from tests.edge.pair import mail
from tests.origin.site import LIST, Site, open_site
from tests.stack.client import Client, Reply
from tests.verdict.asking import ask, spamc

JOIN = "list-join@lists.test"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    limits = {"commands": "3/1h", "network": "8/1h", "sender": "5/1h"}
    with open_site({"limits": limits, "spam": {"skip_networks": ["127.7.0.0/16"]}}, asked=True) as one:
        yield one


def post(site: Site, source: str, sender: str, recipients: Sequence[str]) -> Reply:
    """The reply to the message of a client at that address."""
    with Client(site.exim.address, source=source) as client:
        (reply,) = client.deliver(sender, recipients, mail("<m@example.net>")).final
    return reply


def limited(site: Site, limit: str) -> float:
    return site.gate.metric("mailgate_limited_total", limit=limit)


def test_requests_to_lists(site: Site) -> None:
    for host in (1, 2):
        assert post(site, f"127.9.1.{host}", f"s{host}@example.org", [JOIN]).code == 250
    before = limited(site, "commands")
    said = post(site, "127.9.1.3", "s3@example.org", [JOIN, "list-confirm+0f@lists.test"])
    assert said.code == 451
    words = said.text.split()
    assert (words[0], " ".join(words[2:])) == (
        "4.7.1",
        "too many requests from your network, try later",
    )
    event = site.gate.wait_for_event("verdict.given", id=words[1])
    assert (event["verdict"], event["reasons"], event["client"]) == ("defer", ["limit-commands"], "127.9.1.3")
    assert limited(site, "commands") == before + 1
    assert site.gate.metric("mailgate_reasons_total", reason="limit-commands") == limited(site, "commands")
    assert post(site, "127.9.1.3", "s3@example.org", [JOIN]).code == 250
    assert post(site, "127.9.1.3", "s3@example.org", [JOIN]).code == 451
    assert post(site, "127.9.1.3", "s3@example.org", [LIST]).code == 250
    assert post(site, "127.9.2.3", "s3@example.org", [JOIN]).code == 250


@pytest.mark.parametrize("recipient", ['"a,b"@lists.test', '"a\\"b,:;"@lists.test', '"a@x.test, b"@lists.test'])
def test_a_recipient_with_a_comma_is_asked_about(site: Site, recipient: str) -> None:
    message_id, octets = site.message()
    with Client(site.exim.address, source="127.7.1.1") as client:
        (reply,) = client.deliver("ida@example.org", [recipient], octets).final
    assert reply.code == 250
    assert site.gate.wait_for_event("verdict.given", message_id=message_id)["recipients"] == [recipient]


def test_one_sender_and_all_of_a_network(site: Site) -> None:
    codes = [post(site, "127.9.3.1", "ida@example.org", [LIST]).code for _ in range(7)]
    assert codes == [250] * 5 + [451] * 2
    codes = [post(site, "127.9.3.2", sender, [LIST]).code for sender in ("", "ole@example.org", "", "", "")]
    assert codes == [250] * 3 + [451] * 2
    assert post(site, "127.9.4.1", "ida@example.org", [LIST]).code == 250
    assert (limited(site, "sender"), limited(site, "network")) == (2, 2)


def test_who_is_exempt(site: Site) -> None:
    assert {post(site, "127.7.3.1", "ida@example.org", [LIST, JOIN]).code for _ in range(9)} == {250}
    message_ids = [site.inject(LIST) for _ in range(9)]
    assert {site.told(message_id).source for message_id in message_ids} == {"header"}


def test_by_ipv6(site: Site) -> None:
    def reply() -> int:
        with smtplib.SMTP("::1", site.exim.port.number, "mx", 20, ("::1", 0)) as client:
            client.ehlo()
            client.mail("ida@example.org")
            client.rcpt(JOIN)
            return client.data(mail("<six@example.net>"))[0]

    assert [reply() for _ in range(4)] == [250] * 3 + [451]


def test_who_was_over_a_limit_most_often(site: Site) -> None:
    for _ in range(5):
        assert post(site, "127.9.5.9", "bomber@example.org", [JOIN, JOIN.upper(), "b-join@lists.test"]).code in {
            250,
            451,
        }
    status, page = site.gate.page("/limits")
    assert status == 200
    first = json.loads(page)["offenders"][0]
    assert (first["limit"], first["key"], first["refused"]) == ("commands", "127.9.5.0/24", 4)
    assert 0.9 < first["used"] <= 1
    (shown,) = site.gate.rows("status")
    assert shown["ready"]
    assert shown["offenders"][0]["key"] == "127.9.5.0/24"
    said = site.gate.cli("status").stdout
    assert re.search(r"^ready: +yes$", said, re.MULTILINE)
    assert re.search(r"^commands +127\.9\.5\.0/24 +4 +(9\d|100)%$", said, re.MULTILINE)


def test_by_the_stock_variant_of_exims_condition(site: Site) -> None:
    received = (
        b"Received: from [198.51.100.9] (helo=mx)\r\n\tby mx.lists.test with esmtp (Exim 4.96)\r\n"
        b"\tid 1xV0Ys-0004sm-35;\r\n\tSun, 22 Nov 2026 10:00:00 +0000\r\n"
    )
    question = spamc(received + b"X-Mailgate-Client: ip=127.7.0.1\r\n" + mail("<stock@example.net>"))
    answers = [ask(site.gate.verdict, question, half=True) for _ in range(6)]
    assert ["Verdict: defer" in answer for answer in answers] == [False] * 5 + [True]
    event = site.gate.wait_for_event("verdict.given", message_id="<stock@example.net>", verdict="defer")
    assert (event["client"], event["origin"], event["helo"]) == ("198.51.100.9", "received", "mx")


def test_without_a_daemon_status_says_so(site: Site) -> None:
    site.gate.stop()
    done = site.gate.cli("status", check=False)
    assert done.returncode == 1
    assert "http.listen" in done.stderr
