"""SPF: every result and every limit. What a name in the zone spf.test comes to is the beginning of the name."""

import re
import socket
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.auth import Resolved, Spf, SpfResult
from mailgate.core.envelope import Client
from mailgate.edge.auth import Authentication
from mailgate.edge.auth.spf import _Lacks, _Query
from mailgate.edge.dns import Resolver
from mailgate.edge.telemetry import Telemetry
from tests.auth import desk
from tests.stack.dns import ZONES, Act, DnsServer

NAMES = re.findall(
    r"(?m)^((?:pass|fail|softfail|neutral|none|permerror|temperror)\S*)\s", (ZONES / "spf.test.zone").read_text()
)
FOUR, SIX = "192.0.2.7", "2001:db8::7"


@pytest.fixture
def checks(resolver: Resolver, telemetry: Telemetry) -> Authentication:
    """SPF alone."""
    return Authentication(resolver, telemetry, dkim=False, arc=False, dmarc=False)


async def mailfrom(checks: Authentication, domain: str, ip: str = FOUR, **how: Any) -> Spf:
    """What MAIL FROM:<alice@domain> comes to."""
    client = Client(ip=ip, helo="plain.example.test")
    found = await desk.check(checks, client=client, sender=f"alice@{domain}", **how)
    assert [one.identity for one in found.spf] == ["mailfrom", "helo"]
    return found.spf[0]


def expected(name: str) -> str:
    """The result that a name says."""
    return name.partition("-")[0]


@pytest.mark.parametrize("name", sorted(set(NAMES)))
@pytest.mark.parametrize("ip", [FOUR, SIX])
async def test_what_a_record_comes_to(checks: Authentication, dns: DnsServer, name: str, ip: str) -> None:
    dns.act("servfail", "broken.spf.test")
    of_the_other_family = {("pass-ip4", SIX), ("pass-ip6", FOUR), ("pass-exists", SIX)}
    wanted = "fail" if (name, ip) in of_the_other_family else expected(name)
    found = await mailfrom(checks, f"{name}.spf.test", ip)
    assert found.result == wanted, found
    assert (found.domain, found.sender) == (f"{name}.spf.test", f"alice@{name}.spf.test")
    assert found.why


def test_the_zone_has_every_result() -> None:
    assert {expected(name) for name in NAMES} == {
        *("pass", "fail", "softfail", "neutral", "none", "permerror", "temperror"),
    }


async def test_no_such_domain(checks: Authentication) -> None:
    assert (await mailfrom(checks, "nobody.spf.test")).result == "none"


@pytest.mark.parametrize("act", ["servfail", "refused", "garble", "endless"])
async def test_trouble_with_the_dns_is_temperror(checks: Authentication, dns: DnsServer, act: Act) -> None:
    dns.act(act, "fail.spf.test")
    assert (await mailfrom(checks, "fail.spf.test")).result == "temperror"


async def test_a_dns_that_does_not_answer(checks: Authentication, dns: DnsServer) -> None:
    dns.act("drop", "fail.spf.test")
    found = await mailfrom(checks, "fail.spf.test", seconds=0.3)
    assert (found.result, "timeout" in found.why) == ("temperror", True)


async def test_helo(checks: Authentication, dns: DnsServer) -> None:
    """§2.3: its identity is checked, too, and has its own result."""
    client = Client(ip=FOUR, helo="fail.spf.test")
    found = await desk.check(checks, client=client, sender="alice@pass-ip4.spf.test")
    assert [(one.identity, one.result, one.sender) for one in found.spf] == [
        ("mailfrom", "pass", "alice@pass-ip4.spf.test"),
        ("helo", "fail", "postmaster@fail.spf.test"),
    ]


async def test_the_null_reverse_path(checks: Authentication, dns: DnsServer) -> None:
    """§2.4: it is postmaster's at HELO, and asked for once."""
    found = await desk.check(checks, client=Client(ip=FOUR, helo="fail.spf.test"), sender="")
    assert [(one.identity, one.result, one.sender) for one in found.spf] == [
        ("mailfrom", "fail", "postmaster@fail.spf.test"),
        ("helo", "fail", "postmaster@fail.spf.test"),
    ]
    assert len([one for one in dns.asked if one[1] == "TXT"]) == 1


@pytest.mark.parametrize("helo", ["", "localhost", "[192.0.2.7]", "a b", "a..b", "\udcff.test", "x" * 300, "-"])
async def test_a_helo_that_is_no_domain(checks: Authentication, dns: DnsServer, helo: str) -> None:
    found = await desk.check(checks, client=Client(ip=FOUR, helo=helo), sender="")
    assert {(one.result, one.why) for one in found.spf} == {("none", "no domain")}
    assert not [one for one in dns.asked if one[1] == "TXT"]


@pytest.mark.parametrize("ip", ["", "unknown", "127.0.0.1", "127.3.4.5", "::1", "::ffff:127.0.0.1"])
async def test_only_the_true_client(checks: Authentication, dns: DnsServer, ip: str) -> None:
    """Nothing is said of this host, or of nobody, whatever a record says of them."""
    found = await mailfrom(checks, "pass-others.spf.test", ip)
    assert found.result == "none"
    assert "client" in found.why
    assert not [one for one in dns.asked if one[1] == "TXT"]


@pytest.mark.parametrize("ip", ["", "127.0.0.1", "::1"])
async def test_nobody_fails_dmarc_because_we_do_not_see_the_client(
    authentication: Authentication, dns: DnsServer, ip: str
) -> None:
    dns.add("_dmarc.example.test", "TXT", b"v=DMARC1; p=reject")
    try:
        found = await desk.check(authentication, client=Client(ip=ip))
    finally:
        dns.add("_dmarc.example.test", "TXT", b"none")
    assert found.dmarc
    assert found.dmarc.result == "temperror"


@pytest.mark.parametrize(
    ("sender", "told"),
    [
        ("", ""),
        ("a" * 300 + "@bank.test.pass-ip4.spf.test", "@bank.test.pass-ip4.spf.test"),
        ("a@" + "b." * 300 + "test", ""),
        ("alice@pass-ip4.spf.test", "alice@pass-ip4.spf.test"),
    ],
)
async def test_a_result_names_the_whole_sender_or_nobody(checks: Authentication, sender: str, told: str) -> None:
    found = await desk.check(checks, client=Client(ip=FOUR, helo=""), sender=sender)
    assert found.spf[0].sender == told


async def test_a_mapped_address_is_the_one_that_it_maps(checks: Authentication) -> None:
    assert (await mailfrom(checks, "pass-ip4.spf.test", "::ffff:192.0.2.7")).result == "pass"


SENDERS: list[tuple[str, SpfResult, str]] = [
    ("alice", "none", "alice"),
    ("@pass-ip4.spf.test", "pass", "pass-ip4.spf.test"),
    ('"a@b"@pass-ip4.spf.test', "pass", "pass-ip4.spf.test"),
    ("alice@PASS-ip4.SPF.test", "pass", "pass-ip4.spf.test"),
    ("alice@pass-ip4.spf.test.", "pass", "pass-ip4.spf.test"),
    ("j\u00fcrgen@pass-ip4.spf.test", "pass", "pass-ip4.spf.test"),
    ("\udcff\udcfe@pass-macros.spf.test", "fail", "pass-macros.spf.test"),
    ("alice@m\u00fcnchen.test", "none", "xn--mnchen-3ya.test"),
    ("alice@[192.0.2.7]", "none", ""),
]


@pytest.mark.parametrize(("sender", "result", "domain"), SENDERS)
async def test_reverse_paths(checks: Authentication, sender: str, result: SpfResult, domain: str) -> None:
    found = (await desk.check(checks, sender=sender)).spf[0]
    assert (found.result, found.domain) == (result, domain)
    assert found.sender.isprintable()


async def test_nobody_is_asked_for_an_explanation(checks: Authentication, dns: DnsServer) -> None:
    assert (await mailfrom(checks, "fail-exp.spf.test")).result == "fail"
    assert "why.spf.test" not in {name for name, _, _ in dns.asked}


async def test_why(checks: Authentication, dns: DnsServer) -> None:
    assert (await mailfrom(checks, "pass-mx.spf.test")).why == "mx:hub.spf.test matches 192.0.2.7"
    assert (await mailfrom(checks, "neutral-empty.spf.test")).why == "nothing matches 192.0.2.7"
    assert "11" not in (await mailfrom(checks, "permerror-eleven.spf.test")).why
    assert "Too many" in (await mailfrom(checks, "permerror-eleven.spf.test")).why
    assert "found nothing" in (await mailfrom(checks, "permerror-void.spf.test")).why


async def test_names_of_the_client_that_can_not_be_looked_up_are_none(checks: Authentication, dns: DnsServer) -> None:
    """§5.5: neither the PTR nor an address behind it makes an error."""
    dns.act("servfail", "7.2.0.192.in-addr.arpa")
    assert (await mailfrom(checks, "pass-ptr.spf.test")).result == "fail"


async def test_a_long_name_loses_its_first_labels(checks: Authentication, dns: DnsServer) -> None:
    """§7.3."""
    dns.add("long.spf.test", "TXT", b"v=spf1 exists:%{l}.%{l}.%{l}.%{l}.%{l}.x.spf.test -all")
    local = "a" * 60
    dns.add(f"{local}.{local}.{local}.x.spf.test", "A", "127.0.0.2")
    found = await desk.check(checks, sender=f"{local}@long.spf.test")
    assert found.spf[0].result == "pass"


@pytest.mark.parametrize(
    ("macro", "result"),
    [("%{l0}", "permerror"), ("%{D00r}", "permerror"), ("%{l10}", "fail"), ("%{l01}", "fail"), ("%%{l0}", "fail")],
)
async def test_a_macro_of_no_labels_is_none(checks: Authentication, dns: DnsServer, macro: str, result: str) -> None:
    """§7.1: the number must not be zero."""
    dns.add("labels.spf.test", "TXT", f"v=spf1 exists:{macro}.x.spf.test -all".encode())
    assert (await mailfrom(checks, "labels.spf.test")).result == result


async def test_one_message_leaves_nothing_for_another(checks: Authentication, dns: DnsServer) -> None:
    """Pyspf's own DNS is never asked, its module is as it was, and no thread was begun."""
    import spf  # noqa: PLC0415

    before, threads = dict(vars(spf)), threading.active_count()
    for name in NAMES:
        await mailfrom(checks, f"{name}.spf.test")
    assert vars(spf) == before
    assert threading.active_count() == threads


@given(st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=120), st.booleans())
def test_whatever_a_record_says_has_a_result(text: str, found: bool) -> None:
    """And nothing but a question to the DNS comes out of it."""
    answers = _Everything(f"v=spf1 {text}".encode(), found=found)
    query = _Query(FOUR, "alice", "example.test", "plain.example.test", answers)
    assert query.check()[0] in {"none", "neutral", "pass", "fail", "softfail", "permerror"}


MECHANISMS = st.sampled_from(
    [
        *("a", "mx", "ptr", "all", "-all", "a:%{i}.x", "exists:%{l1r+}.%{p}.test", "include:%{d}", "a/0", "mx//0"),
        *("ip4:0.0.0.0/0", "ip6:::/0", "redirect=%{h}.test", "exp=%{d}", "a:%{D99999}.test", "%{z}", "exists:%{S}.t"),
        *("a:%", "a:%{", "a:%%%_%-.test", "ip4:1.2.3.4/99999999999", "a:x.test/1//129", "include:", "redirect="),
    ]
)


@given(st.lists(MECHANISMS, max_size=14), st.booleans(), st.sampled_from([FOUR, SIX]))
def test_whatever_mechanisms_stand_in_it(terms: list[str], found: bool, ip: str) -> None:
    answers = _Everything(b" ".join([b"v=spf1", *(term.encode() for term in terms)]), found=found)
    query = _Query(ip, "al.ice", "example.test", "plain.example.test", answers)
    assert query.check()[0] in {"none", "neutral", "pass", "fail", "softfail", "permerror"}
    assert answers.asked <= 150


class _Everything(dict[Any, Resolved]):
    """A DNS that has this record everywhere, and addresses and names, or nothing but the record."""

    def __init__(self, record: bytes, *, found: bool) -> None:
        super().__init__()
        self.asked = 0
        records: dict[str, tuple[bytes, ...]] = {"TXT": (record,)}
        if found:
            records |= {"A": (b"198.51.100.1",), "AAAA": (b"2001:db8:1::1",)}
            records |= {"PTR": (b"a.test", b"b.test"), "MX": (b"10 a.test", b"0 b.test")}
        self._records = records

    def __getitem__(self, key: Any) -> Resolved:
        self.asked += 1
        records = self._records.get(key.type, ())
        return Resolved("found", records) if records else Resolved("nxdomain")


def test_a_question_comes_out_of_pyspf_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: object) -> None:
        raise AssertionError("a socket")

    monkeypatch.setattr(socket, "socket", no_socket)
    with pytest.raises(_Lacks) as lacks:
        _Query(FOUR, "alice", "example.test", "plain.example.test", {}).check()
    assert lacks.value.question == ("example.test", "TXT")
