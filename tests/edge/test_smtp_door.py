"""One reply speaks for all recipients at the SMTP door, and it is true: a 250 only when each of them was taken, is on
disk, or its refusal is. And at both doors: what is said when the spool takes nothing.
"""

from collections.abc import Iterator

import pytest

from tests.edge.failures import DELIVERED, NO_SUCH_LIST, SPOOLED, A, B
from tests.edge.pair import Pair, mail, started
from tests.edge.test_door import LMTP, SMTP, at, words
from tests.stack.fake_script import Stage, say
from tests.stack.fake_session import Manner

NOT_NOW = "451 4.3.0 … could not be taken care of now, try again"


@pytest.fixture(scope="module")
def _spoolless() -> Iterator[Pair]:
    with started({"spool": {"url": "sqlite:////nonexistent/mailgate/spool.db"}}) as pair:
        yield pair


@pytest.fixture
def spoolless(_spoolless: Pair) -> Iterator[Pair]:
    """A gate whose spool can't be opened."""
    yield _spoolless
    _spoolless.settle()


def _sent(pair: Pair, door: str, *recipients: str, octets: bytes = b"") -> list[str]:
    with at(pair, door) as client:
        return words(client.deliver("bob@example.net", recipients, octets or mail("<m@example.net>")).final)


def _only_a(pair: Pair) -> None:
    pair.mailman_is(Manner(lists=frozenset({A})))


def test_some_refused(pair: Pair) -> None:
    _only_a(pair)
    assert _sent(pair, SMTP, A, B, octets=mail("<some@example.net>")) == ["250 2.0.0 … delivered 1, rejected 1"]
    kept = pair.people("<some@example.net>")
    assert {address: (one.state, one.reply) for address, one in kept.items()} == {
        B: ("failed", "550 Requested action not taken: mailbox unavailable")
    }
    assert pair.fake.arrived(A) == ["<some@example.net>"]


def test_all_refused(pair: Pair) -> None:
    _only_a(pair)
    assert _sent(pair, SMTP, B, "c@lists.test", octets=mail("<all@example.net>")) == [NO_SUCH_LIST]
    assert pair.people("<all@example.net>") == {}


def test_some_deferred(pair: Pair) -> None:
    pair.fake.on(Stage.RCPT, say("451 not now"), only=B)
    assert _sent(pair, SMTP, A, B, octets=mail("<later@example.net>")) == ["250 2.0.0 … delivered 1, spooled 1"]
    assert pair.states("<later@example.net>") == {B: "pending"}
    pair.fake.behave()
    pair.wait_drained()
    assert pair.fake.arrived(A) == pair.fake.arrived(B) == ["<later@example.net>"]


def test_some_deferred_and_some_refused(pair: Pair) -> None:
    _only_a(pair)
    pair.fake.on(Stage.DOT, say("451 not now"), times=1)
    # The second question about B could not be asked, so it is not refused yet: the replay finds out.
    assert _sent(pair, SMTP, A, B, octets=mail("<both@example.net>")) == [SPOOLED]
    pair.wait_drained()
    assert pair.states("<both@example.net>") == {A: "delivered", B: "failed"}


def test_one_reply_for_each_message_and_no_more(pair: Pair) -> None:
    with at(pair, SMTP) as client:
        assert words(client.deliver("", [A, B], mail("<one@example.net>")).final) == [DELIVERED]
        assert client.silent(0.05)
        pair.fake.refuse()
        assert words(client.deliver("", [A, B], mail("<two@example.net>")).final) == [SPOOLED]
        assert client.silent(0.05)


def test_a_rule_refuses_for_all(pair: Pair) -> None:
    hops = b"Received: from a by b; Sun, 22 Nov 2026 10:00:00 +0000\r\n" * 101
    (word,) = _sent(pair, SMTP, A, B, octets=hops + mail("<loop@example.net>"))
    assert word.startswith("554 5.4.6 …")


def test_without_a_spool_mail_passes(spoolless: Pair) -> None:
    assert spoolless.gate.page("/readyz")[0] == 200
    assert _sent(spoolless, LMTP, A, B) == [DELIVERED] * 2
    assert _sent(spoolless, SMTP, A, B) == [DELIVERED]
    event = spoolless.gate.wait_for_event("spool.failed")
    assert "/nonexistent/mailgate" in event["cause"]


def test_without_a_spool_and_a_mailman_mail_is_put_off(spoolless: Pair) -> None:
    spoolless.fake.refuse()
    for _ in range(2):
        assert _sent(spoolless, LMTP, A, B, A) == [NOT_NOW] * 3
        assert _sent(spoolless, SMTP, A, B) == [NOT_NOW]
    status, page = spoolless.gate.page("/readyz")
    assert status == 503, page


def test_without_a_spool_no_250_covers_what_is_kept_nowhere(spoolless: Pair) -> None:
    _only_a(spoolless)
    assert _sent(spoolless, LMTP, A, B) == [DELIVERED, NO_SUCH_LIST]
    assert _sent(spoolless, SMTP, A, B) == [NOT_NOW]
    assert _sent(spoolless, SMTP, B) == [NO_SUCH_LIST]
    spoolless.mailman_is(Manner())
    spoolless.fake.on(Stage.RCPT, say("451 not now"), only=B)
    assert _sent(spoolless, LMTP, A, B) == [DELIVERED, NOT_NOW]
    assert _sent(spoolless, SMTP, A, B) == [NOT_NOW]
