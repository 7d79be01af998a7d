"""ARC: chains that dkimpy has sealed, whole and broken in every part."""

import re
from collections.abc import Callable

import pytest

from mailgate.core.arc import MAX_SETS
from mailgate.core.auth import Arc
from mailgate.edge.auth import Authentication
from tests.auth import desk
from tests.auth.keys import MAIL, changed, rsa, seal, sign
from tests.stack.dns import Act, DnsServer

KEY = "s._domainkey.example.test"
SECOND = "s._domainkey.second.test"


async def chain(signatures: Authentication, mail: bytes, seconds: float = 60.0) -> Arc:
    """What the chain comes to."""
    found = (await desk.check(signatures, mail, seconds=seconds)).arc
    assert found is not None
    return found


@pytest.fixture
def published(dns: DnsServer) -> DnsServer:
    """The DNS server has the keys of both sealers."""
    dns.add(KEY, "TXT", rsa().record())
    dns.add(SECOND, "TXT", rsa(2048).record())
    return dns


def two() -> bytes:
    """A mail that was sealed twice."""
    return seal(seal(sign()), rsa(2048), "pass", b"second.test")


async def test_a_chain(signatures: Authentication, published: DnsServer) -> None:
    assert await chain(signatures, seal(sign())) == Arc("pass", ("example.test",), "1 set")
    assert await chain(signatures, two()) == Arc("pass", ("example.test", "second.test"), "2 sets")


async def test_it_survives_what_the_first_signature_does_not(signatures: Authentication, published: DnsServer) -> None:
    """A list changes the mail and seals it: that is what ARC is for."""
    listed = seal(sign()).replace(b"Subject: ", b"Subject: [list] ")
    found = await desk.check(signatures, seal(listed, rsa(2048), "pass", b"second.test"))
    assert found.arc == Arc("pass", ("example.test", "second.test"), "2 sets")
    assert found.dkim is not None
    assert found.dkim[0].result == "fail"


async def test_none(signatures: Authentication) -> None:
    assert await chain(signatures, sign()) == Arc("none", (), "no ARC set")


def _without(name: bytes, instance: bytes) -> Callable[[bytes], bytes]:
    def change(mail: bytes) -> bytes:
        field = re.compile(name + rb":[^\n]*i=" + instance + rb";[^\n]*\n(?:[ \t][^\n]*\n)*")
        cut, count = field.subn(b"", mail, count=1)
        assert count
        return cut

    change.__name__ = f"without {name.decode()} {instance.decode()}"
    return change


def _twice(name: bytes) -> Callable[[bytes], bytes]:
    def change(mail: bytes) -> bytes:
        found = re.search(name + rb":[^\n]*\n(?:[ \t][^\n]*\n)*", mail)
        assert found
        return found[0] + mail

    change.__name__ = f"twice {name.decode()}"
    return change


def _replaced(old: bytes, new: bytes, count: int = 1) -> Callable[[bytes], bytes]:
    def change(mail: bytes) -> bytes:
        assert old in mail
        return mail.replace(old, new, count)

    change.__name__ = f"{old.decode()} to {new.decode()[:20]}"
    return change


def _seal_tag(tag: bytes, value: bytes | None) -> Callable[[bytes], bytes]:
    def change(mail: bytes) -> bytes:
        return changed(mail, tag, value)

    change.__name__ = f"seal {tag.decode()}={value!r:.20}"
    return change


def _behind(mark: bytes, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """The same change of the field that begins with `mark`."""

    def changing(mail: bytes) -> bytes:
        start = mail.index(mark)
        return mail[:start] + change(mail[start:])

    changing.__name__ = f"{mark.decode()}: {change.__name__}"
    return changing


SEAL, MESSAGE, RESULTS = b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"
BROKEN: list[tuple[Callable[[bytes], bytes], str]] = [
    (_without(SEAL, b"2"), "whole"),
    (_without(MESSAGE, b"2"), "whole"),
    (_without(RESULTS, b"2"), "whole"),
    (_without(SEAL, b"1"), "whole"),
    (_without(MESSAGE, b"1"), "whole"),
    (_without(RESULTS, b"1"), "whole"),
    (_twice(SEAL), "twice"),
    (_twice(MESSAGE), "twice"),
    (_twice(RESULTS), "twice"),
    (_seal_tag(b"i", b"3"), "whole"),
    (_seal_tag(b"i", b"0"), "instance"),
    (_seal_tag(b"i", b"51"), "instance"),
    (_seal_tag(b"i", b"1000000000"), "instance"),
    (_seal_tag(b"i", b"x"), "instance"),
    (_seal_tag(b"i", None), "instance"),
    (_seal_tag(b"cv", b"fail"), "failed before"),
    (_seal_tag(b"cv", b"none"), "cv="),
    (_seal_tag(b"cv", None), "cv="),
    (_seal_tag(b"cv", b"maybe"), "cv="),
    (_seal_tag(b"h", b"from"), "h="),
    (_seal_tag(b"a", b"rsa-sha1"), "rsa-sha1"),
    (_seal_tag(b"a", None), "a="),
    (_seal_tag(b"d", b"a b"), "d="),
    (_seal_tag(b"d", b"example.test"), "seal 2"),
    (_seal_tag(b"s", b"other"), "no key"),
    (_seal_tag(b"b", b"AAAA"), "seal 2"),
    (_seal_tag(b"b", b"*"), "base64"),
    (_seal_tag(b"t", b"1"), "seal 2"),
    (_seal_tag(b"x", b";;"), "tags"),
    (_seal_tag(b"x", b"y" * 20000), "too long"),
    (_replaced(b"cool", b"warm"), "body"),
    (_replaced(b"Tomatoes", b"Potatoes"), "header"),
    (
        _replaced(b"ARC-Authentication-Results: i=1; sealer.test", b"ARC-Authentication-Results: i=1; other.test"),
        "seal",
    ),
    (_replaced(b"ARC-Authentication-Results: i=2;", b"ARC-Authentication-Results: x; i=2;"), "instance"),
    (_behind(MESSAGE, _seal_tag(b"bh", b"AAAA")), "body"),
    (_behind(MESSAGE, _seal_tag(b"b", b"AAAA")), "header"),
    (_behind(MESSAGE, _seal_tag(b"d", b"nobody.test")), "no key"),
    (_behind(MESSAGE, _seal_tag(b"h", b"from : arc-seal")), "signs a seal"),
    (_behind(MESSAGE, _seal_tag(b"h", b"subject")), "From"),
    (_behind(MESSAGE, _seal_tag(b"a", b"rsa-sha1")), "rsa-sha1"),
    (_behind(MESSAGE, _seal_tag(b"bh", None)), "bh="),
    (_behind(b"ARC-Seal: i=1", _seal_tag(b"cv", b"pass")), "cv="),
    (_behind(b"ARC-Seal: i=1", _seal_tag(b"b", b"AAAA")), "seal"),
    (_behind(b"ARC-Seal: i=1", _seal_tag(b"s", b"nobody")), "seal"),
]


@pytest.mark.parametrize(("change", "why"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
async def test_a_chain_that_does_not_hold(
    signatures: Authentication, published: DnsServer, change: Callable[[bytes], bytes], why: str
) -> None:
    found = await chain(signatures, change(two()))
    assert (found.result, why in found.why) == ("fail", True), found


async def test_an_older_message_signature_may_be_broken(signatures: Authentication, published: DnsServer) -> None:
    """RFC 8617 §5.2: only the newest one has to hold. But the seals cover it."""
    whole = two()
    start = whole.index(b"ARC-Message-Signature: i=1")
    found = await chain(signatures, whole[:start] + changed(whole[start:], b"bh", b"AAAA"))
    assert (found.result, "seal" in found.why) == ("fail", True)


async def test_sets_may_stand_in_any_order(signatures: Authentication, published: DnsServer) -> None:
    """The instance says which is which, not the place."""
    head, _, body = two().partition(b"From: ")
    fields = re.findall(rb"[^\n]+\n(?:[ \t][^\n]*\n)*", head)
    ours = [field for field in fields if field.startswith(b"ARC-")]
    assert len(ours) == 6
    others = [field for field in fields if field not in ours]
    assert (await chain(signatures, b"".join([*reversed(ours), *others]) + b"From: " + body)).result == "pass"


async def test_without_blanks_in_front_of_the_instance(signatures: Authentication, published: DnsServer) -> None:
    """Seals that are written tightly are seals, too. Relaxed canonicalisation drops the blank that is cut here."""
    tight = seal(sign()).replace(b"ARC-Seal: i=1;", b"ARC-Seal:i=1;").replace(b"Signature: i=1;", b"Signature:i=1;")
    assert (await chain(signatures, tight)).result == "pass"


@pytest.mark.parametrize("name", [KEY, SECOND])
@pytest.mark.parametrize("act", ["servfail", "garble", "drop"])
async def test_trouble_with_the_dns(signatures: Authentication, published: DnsServer, name: str, act: Act) -> None:
    published.act(act, name)
    assert (await chain(signatures, two(), seconds=0.3 if act == "drop" else 10)).result == "temperror"


async def test_what_is_broken_is_so_whatever_the_dns_hides(signatures: Authentication, published: DnsServer) -> None:
    """The newest seal can't be checked, the body has been changed all the same."""
    published.act("servfail", KEY)
    assert (await chain(signatures, two().replace(b"cool", b"warm"))).result == "fail"


async def test_a_seal_with_a_weak_key(signatures: Authentication, dns: DnsServer) -> None:
    dns.add(KEY, "TXT", rsa(768).record())
    assert (await chain(signatures, seal(sign(), rsa(768)))).result == "fail"


async def test_the_longest_chain(signatures: Authentication, published: DnsServer) -> None:
    """Fifty sets are allowed (§4.2.1), fifty-one are not. Each seal's key is asked for once in a message."""
    mail = seal(MAIL)
    for _ in range(MAX_SETS - 1):
        mail = seal(mail, verdict="pass")
    found = await chain(signatures, mail)
    assert (found.result, len(found.sealers)) == ("pass", MAX_SETS)
    assert len([one for one in published.asked if one[0] == KEY]) == 1
    more = b"".join(b"%s: i=51; a=b\r\n" % name for name in (SEAL, MESSAGE, RESULTS))
    assert (await chain(signatures, more + mail)).result == "fail"
