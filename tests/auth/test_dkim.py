"""DKIM: every result, with real keys, real signatures and a real DNS server."""

import base64
import random
import re
import time
from collections.abc import Callable

import dkim
import pytest

from mailgate.core.auth import DkimResult, Signature
from mailgate.core.dkim import MAX_SIGNATURES
from mailgate.edge.auth import Authentication
from tests.auth import desk
from tests.auth.keys import MAIL, KeyPair, changed, ed25519, rsa, rsa_4096, sign
from tests.stack.dns import Act, DnsServer
from tests.stack.mails import FIXTURES

KEY = "s._domainkey.example.test"


async def one(signatures: Authentication, mail: bytes) -> Signature:
    """What the only signature of a mail comes to."""
    found = await desk.check(signatures, mail)
    assert found.dkim is not None
    assert len(found.dkim) == 1
    return found.dkim[0]


@pytest.fixture
def published(dns: DnsServer) -> DnsServer:
    """The DNS server has the key that `sign` takes if not told otherwise."""
    dns.add(KEY, "TXT", rsa().record())
    return dns


@pytest.mark.parametrize("header", [b"simple", b"relaxed"])
@pytest.mark.parametrize("body", [b"simple", b"relaxed"])
@pytest.mark.parametrize(("key", "bits"), [(rsa, 1024), (lambda: rsa(2048), 2048), (ed25519, 256)])
async def test_a_signature_that_holds(
    signatures: Authentication, dns: DnsServer, key: Callable[[], KeyPair], bits: int, header: bytes, body: bytes
) -> None:
    pair = key()
    dns.add(KEY, "TXT", pair.record())
    found = await one(signatures, sign(key=pair, canonicalize=(header, body)))
    assert found == Signature(
        "pass", "example.test", "s", "@example.test", pair.algorithm.decode(), bits, covered=True, why=found.why
    )


async def test_a_key_of_4096_bits(signatures: Authentication, dns: DnsServer) -> None:
    """RFC 8301 §3.2: a verifier has to know up to 4096."""
    dns.add(KEY, "TXT", rsa_4096().record())
    assert (await one(signatures, sign(key=rsa_4096()))).result == "pass"


async def test_none(signatures: Authentication) -> None:
    found = await desk.check(signatures)
    assert found.dkim == ()
    assert found.arc is not None
    assert found.arc.result == "none"
    assert (found.spf, found.dmarc) == ((), None)


def _in_body(mail: bytes) -> bytes:
    return mail.replace(b"cool", b"warm")


def _in_field(mail: bytes) -> bytes:
    return mail.replace(b"Tomatoes", b"Potatoes")


def _other_from(mail: bytes) -> bytes:
    return b"From: Mallory <mallory@example.net>\r\n" + mail


def _other_time(mail: bytes) -> bytes:
    return changed(mail, b"t", b"1700000000")


def _flipped(mail: bytes) -> bytes:
    found = re.search(rb"b=\s*([A-Za-z0-9])[A-Za-z0-9+/=\s]+\r\nFrom", mail)
    assert found
    other = b"B" if found[1] == b"A" else b"A"
    return mail[: found.start(1)] + other + mail[found.end(1) :]


def _tag(tag: bytes, value: bytes | None) -> Callable[[bytes], bytes]:
    def change(mail: bytes) -> bytes:
        return changed(mail, tag, value)

    change.__name__ = f"{tag.decode()}={'' if value is None else value.decode('utf-8', 'replace')[:20]}"
    return change


BROKEN: list[tuple[Callable[[bytes], bytes], DkimResult, str]] = [
    (_in_body, "fail", "body"),
    (_in_field, "fail", "header"),
    (_other_time, "fail", "header"),
    (_flipped, "fail", "header"),
    (_other_from, "fail", "header"),
    (_tag(b"v", b"2"), "permerror", "version"),
    (_tag(b"v", None), "permerror", "version"),
    (_tag(b"a", b"rsa-sha1"), "fail", "rsa-sha1"),
    (_tag(b"a", b"rsa-sha512"), "neutral", "a="),
    (_tag(b"a", b"ed25519-sha256"), "permerror", "rsa"),
    (_tag(b"a", None), "permerror", "a="),
    (_tag(b"b", b""), "permerror", "b="),
    (_tag(b"b", b"AAAA"), "fail", "header"),
    (_tag(b"b", b"A*A"), "neutral", "base64"),
    (_tag(b"b", b"A" * 15000), "fail", "header"),
    (_tag(b"bh", b"AAAA"), "fail", "body"),
    (_tag(b"bh", b"!"), "neutral", "base64"),
    (_tag(b"bh", None), "permerror", "bh="),
    (_tag(b"c", b"strict/simple"), "neutral", "c="),
    (_tag(b"c", b"relaxed/relaxed"), "fail", "body"),
    (_tag(b"d", b"example.net"), "permerror", "i="),
    (_tag(b"d", b"exa mple.test"), "neutral", "d="),
    (_tag(b"d", b""), "permerror", "d="),
    (_tag(b"s", b"other"), "permerror", "no key"),
    (_tag(b"s", b"a b"), "neutral", "s="),
    (_tag(b"s", b"\xc3\xa4"), "neutral", "s="),
    (_tag(b"i", b"alice@example.net"), "permerror", "i="),
    (_tag(b"i", b"alice"), "permerror", "i="),
    (_tag(b"i", b"alice@a.example.test"), "fail", "header"),
    (_tag(b"h", b"to : subject"), "permerror", "From"),
    (_tag(b"h", b"from"), "fail", "header"),
    (_tag(b"h", b"from : : to"), "neutral", "h="),
    (_tag(b"h", b"fr\x00om"), "neutral", "h="),
    (_tag(b"l", b"10"), "fail", "body"),
    (_tag(b"l", b"9" * 70), "permerror", "l="),
    (_tag(b"l", b"-1"), "neutral", "l="),
    (_tag(b"q", b"http/txt"), "neutral", "q="),
    (_tag(b"t", b"soon"), "neutral", "t="),
    (_tag(b"t", b"99999999999"), "policy", "future"),
    (_tag(b"x", b"1700000000"), "permerror", "expired before"),
    (_tag(b"x", b"never"), "neutral", "t="),
    (_tag(b"d", b"example.test; d=example.test"), "neutral", "twice"),
    (_tag(b"z", b"x" * 20000), "neutral", "too long"),
    (_tag(b"z", b"; 1=2"), "neutral", "tags"),
    (_tag(b"z", b";".join(b"a%d=" % n for n in range(100))), "neutral", "too many"),
]


@pytest.mark.parametrize(("change", "result", "why"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
async def test_a_signature_that_does_not_hold(
    signatures: Authentication,
    published: DnsServer,
    change: Callable[[bytes], bytes],
    result: DkimResult,
    why: str,
) -> None:
    """Broken in every part, and with every rule about a part."""
    found = await one(signatures, change(sign()))
    assert (found.result, why in found.why) == (result, True), found


def test_the_table_has_every_result_that_a_signature_alone_can_cause() -> None:
    assert {result for _, result, _ in BROKEN} == {"fail", "policy", "neutral", "permerror"}


async def test_it_expires(signatures: Authentication, published: DnsServer) -> None:
    old = changed(changed(sign(), b"t", b"1700000000"), b"x", b"1700000001")
    assert (await one(signatures, old)).why == "expired"
    fresh = changed(sign(), b"x", b"%d" % (time.time() + 100))
    assert (await one(signatures, fresh)).result == "fail"  # the new tag is not signed, but it is in time


RECORDS: list[tuple[bytes, DkimResult, str]] = [
    (b"v=DKIM1; p=", "permerror", "revoked"),
    (b"v=DKIM1; k=rsa", "permerror", "p= is missing"),
    (b"v=DKIM2; p=%s", "permerror", "version"),
    (b"p=%s; v=DKIM1", "permerror", "version"),
    (b"p=%s", "pass", ""),
    (b"v=DKIM1; n=hello; x=y; p=%s; ", "pass", ""),
    (b"v=DKIM1; k=ed25519; p=%s", "permerror", "ed25519"),
    (b"v=DKIM1; k=dsa; p=%s", "permerror", "k="),
    (b"v=DKIM1; h=sha1; p=%s", "permerror", "sha256"),
    (b"v=DKIM1; h=sha1:sha256; p=%s", "pass", ""),
    (b"v=DKIM1; s=tlsrpt; p=%s", "permerror", "mail"),
    (b"v=DKIM1; s=tlsrpt : email; p=%s", "pass", ""),
    (b"v=DKIM1; s=*; p=%s", "pass", ""),
    (b"v=DKIM1; t=y; p=%s", "pass", "tried out"),
    (b"v=DKIM1; p=A%s", "permerror", "key"),
    (b"v=DKIM1; p=*", "permerror", "base64"),
    (b"v=DKIM1; p=AAAA", "permerror", "read"),
    (b"v=DKIM1; p=" + b"A" * 4000, "policy", "too long"),
    (b"v=DKIM1; p=MDAwDQYJKoZIhvcNAQEBBQADHwAwHAIVAP", "permerror", "base64"),
    (b"no tags at all", "permerror", "tags"),
    (b"v=DKIM1; p=%s; p=%s", "permerror", "twice"),
    (b"", "permerror", "p="),
    (b"\xff\xfe", "permerror", "tags"),
]


@pytest.mark.parametrize(("record", "result", "why"), RECORDS)
async def test_the_key_says_what_it_is_for(
    signatures: Authentication, dns: DnsServer, record: bytes, result: DkimResult, why: str
) -> None:
    dns.add(KEY, "TXT", record.replace(b"%s", rsa().public))
    found = await one(signatures, sign())
    assert (found.result, why in found.why) == (result, True), found


@pytest.mark.parametrize(("identity", "result"), [(b"@a.example.test", "permerror"), (b"bob@EXAMPLE.test", "pass")])
async def test_a_key_that_is_not_for_subdomains(
    signatures: Authentication, dns: DnsServer, identity: bytes, result: DkimResult
) -> None:
    dns.add(KEY, "TXT", rsa().record("t=s; "))
    signed = sign(identity=b"@a.example.test") if b"@a." in identity else sign(identity=b"bob@example.test")
    assert (await one(signatures, signed)).result == result


@pytest.mark.parametrize("bits", [512, 768, 1023])
async def test_keys_that_are_too_short(signatures: Authentication, dns: DnsServer, bits: int) -> None:
    """RFC 8301 §3.2. A signature that holds is not believed all the same."""
    dns.add(KEY, "TXT", rsa(bits).record())
    found = await one(signatures, sign(key=rsa(bits)))
    assert (found.result, str(bits) in found.why) == ("fail", True)


async def test_a_key_that_is_too_long(signatures: Authentication, dns: DnsServer) -> None:
    """It would take the longer to check a signature; the modulus is any number of 5120 bits."""
    number = b"\x02\x82\x02\x81\x00" + b"\xff" * 640 + b"\x02\x03\x01\x00\x01"
    der = b"\x30\x82" + len(number).to_bytes(2, "big") + number
    dns.add(KEY, "TXT", b"v=DKIM1; p=" + base64.b64encode(der))
    found = await one(signatures, sign())
    assert (found.result, "5120" in found.why) == ("policy", True)


async def test_a_from_that_is_not_signed(signatures: Authentication, published: DnsServer) -> None:
    """Whoever adds one must not borrow the signature of the other (RFC 6376 §8.15)."""
    signed = sign(include_headers=[b"from", b"subject"])
    assert (await one(signatures, signed)).result == "pass"
    found = await one(signatures, _other_from(signed))
    assert (found.result, "From" in found.why) == ("policy", True)


async def test_a_key_with_a_huge_exponent_is_not_used(signatures: Authentication, dns: DnsServer) -> None:
    """To check one signature of it would take as long as to make it."""
    pair = rsa(1024, exponent=2**255 + 95)
    dns.add(KEY, "TXT", pair.record())
    assert (await one(signatures, sign(key=pair))).result == "policy"


async def test_several_records(signatures: Authentication, dns: DnsServer) -> None:
    """One of them is a key."""
    dns.add(KEY, "TXT", b"v=spf1 -all", b"another text", rsa().record())
    assert (await one(signatures, sign())).result == "pass"


async def test_ed25519_that_is_broken(signatures: Authentication, dns: DnsServer) -> None:
    """RFC 8463: another octet, a signature or a key of a wrong length."""
    dns.add(KEY, "TXT", ed25519().record())
    signed = sign(key=ed25519())
    assert (await one(signatures, _in_field(signed))).why == "the header is not what was signed"
    assert (await one(signatures, changed(signed, b"b", b"AAAA"))).result == "fail"
    dns.add("short._domainkey.example.test", "TXT", b"v=DKIM1; k=ed25519; p=AAAA")
    assert (await one(signatures, sign(key=ed25519(), selector=b"short"))).why == "the key can't be read"


async def test_whatever_octet_is_changed_dkimpy_says_the_same(signatures: Authentication, published: DnsServer) -> None:
    """What passes with one passes with the other; what the other trips over is no pass."""
    picked = random.Random(6376)
    signed = sign(canonicalize=(b"relaxed", b"relaxed"))
    results = []
    for _ in range(300):
        at = picked.randrange(len(signed))
        mail = signed[:at] + picked.choice([b" ", b"\t", b"  ", b"a", b";", b"=", b""]) + signed[at + 1 :]
        mail = re.sub(rb"\r(?!\n)|(?<!\r)\n", b"", mail)  # as a door lets it in
        found = await desk.check(signatures, mail)
        results.append(found.dkim is not None and [one.result for one in found.dkim] == ["pass"])
        try:
            theirs = dkim.verify(mail, dnsfunc=lambda *_, **__: rsa().record())
        except (dkim.DKIMException, IndexError):
            theirs = False
        assert results[-1] == theirs, mail
    assert 10 < sum(results) < 290


async def test_rsa_sha1_is_not_believed(signatures: Authentication, published: DnsServer) -> None:
    """RFC 8301 §3.1, though the signature holds."""
    found = await one(signatures, sign(signature_algorithm=b"rsa-sha1"))
    assert (found.result, found.algorithm) == ("fail", "rsa-sha1")
    assert KEY not in {name for name, _, _ in published.asked}


TROUBLE: list[tuple[Act, DkimResult]] = [
    ("servfail", "temperror"),
    ("refused", "temperror"),
    ("garble", "temperror"),
    ("endless", "temperror"),
    ("truncate", "pass"),
]


@pytest.mark.parametrize(("act", "result"), TROUBLE)
async def test_trouble_with_the_dns_is_never_no_key(
    signatures: Authentication, published: DnsServer, act: Act, result: DkimResult
) -> None:
    published.act(act, KEY)
    assert (await one(signatures, sign())).result == result


async def test_a_dns_that_does_not_answer(signatures: Authentication, published: DnsServer) -> None:
    published.act("drop", KEY)
    found = await desk.check(signatures, sign(), seconds=0.3)
    assert found.dkim is not None
    assert [(one.result, one.why) for one in found.dkim] == [("temperror", "key: timeout")]
    assert found.seconds < 10
    assert [(one.name, one.answer) for one in found.lookups if one.type == "TXT"] == [(KEY, "timeout")]


async def test_no_key(signatures: Authentication, dns: DnsServer) -> None:
    nowhere = sign(selector=b"nowhere")
    assert "nxdomain" in (await one(signatures, nowhere)).why
    dns.add("nowhere._domainkey.example.test", "A", "192.0.2.1")
    assert (await one(signatures, sign(selector=b"below"))).result == "permerror"


@pytest.mark.parametrize("body", [b"simple", b"relaxed"])
async def test_a_body_that_is_signed_in_part(signatures: Authentication, published: DnsServer, body: bytes) -> None:
    """It passes, and does not cover what was appended; without anything appended it covers all."""
    signed = sign(canonicalize=(b"relaxed", body), length=True)
    assert (await one(signatures, signed)).covered
    found = await one(signatures, signed.rstrip(b"\r\n") + b"\r\nAnd buy our things.\r\n")
    assert (found.result, found.covered) == ("pass", False)
    assert "not signed" in found.why


async def test_all_signatures_are_judged(signatures: Authentication, published: DnsServer) -> None:
    """Each for itself, from the top; the dead domain of one does not touch the others."""
    published.add("e._domainkey.example.test", "TXT", ed25519().record())
    published.act("drop", "s._domainkey.dead.test")
    mail = sign(sign(sign(key=ed25519(), selector=b"e"), domain=b"dead.test"))
    found = await desk.check(signatures, mail, seconds=0.5)
    assert found.dkim is not None
    assert [(one.result, one.domain) for one in found.dkim] == [
        ("pass", "example.test"),
        ("temperror", "dead.test"),
        ("pass", "example.test"),
    ]


async def test_a_thousand_signatures(signatures: Authentication, published: DnsServer) -> None:
    """The first ones are judged, the others named together."""
    field, _, _ = sign().partition(b"\r\nFrom")
    fields = b"".join(field.replace(b" s=s;", b" s=s%d;" % n) + b"\r\n" for n in range(999))
    found = await desk.check(signatures, sign(fields + MAIL))
    assert found.dkim is not None
    assert len(found.dkim) == MAX_SIGNATURES + 1
    assert found.dkim[0].result == "pass"
    assert (found.dkim[-1].result, found.dkim[-1].why) == ("neutral", "990 more were not looked at")
    assert len([one for one in published.asked if one[1] == "TXT"]) == MAX_SIGNATURES


async def test_the_mail_of_the_fixtures(signatures: Authentication, dns: DnsServer) -> None:
    """Signed long ago, with simple canonicalisation of both, and never touched since."""
    line = (FIXTURES / "dns.toml").read_text(encoding="utf-8").splitlines()[1]
    dns.add("garden._domainkey.example.org", "TXT", line.split('"')[3].encode())
    found = await one(signatures, (FIXTURES / "mail" / "dkim.eml").read_bytes())
    assert (found.result, found.bits) == ("pass", 2048)


async def test_fields_that_are_named_more_often_than_they_stand(
    signatures: Authentication, published: DnsServer
) -> None:
    """RFC 6376 §5.4.2: from the bottom up, and one more keeps others from adding one."""
    mail = b"X-Note: three\r\nX-Note: two\r\nX-Note: one\r\n" + MAIL
    signed = sign(mail, include_headers=[b"from", b"x-note", b"x-note", b"subject", b"subject"])
    assert (await one(signatures, signed)).result == "pass"
    assert (await one(signatures, signed.replace(b"three", b"3"))).result == "pass"
    assert (await one(signatures, signed.replace(b"two", b"2"))).result == "fail"
    assert (await one(signatures, b"Subject: More\r\n" + signed)).result == "fail"
