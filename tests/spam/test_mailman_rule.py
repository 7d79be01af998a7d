"""The real Mailman's `header_checks` act on our X-Spam-Score as they did on Exim's: Exim, gate and Mailman in a row."""

import json
from collections.abc import Iterator

import pytest

from tests.stack.fake_scorer import Act, FakeScorer, rspamd_says, spamd_says
from tests.stack.mails import Mail, mails
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until


@pytest.fixture
def scorer(stack: Stack) -> Iterator[FakeScorer]:
    """What the gate asks, which rejects nothing itself."""
    with FakeScorer("spamd") as fake:
        spam = {"engine": "spamd", "servers": [str(fake.port)], "timeout": "5s", "reject_score": 0}
        stack.start_gate({"spam": spam})
        yield fake


def posted(stack: Stack, a_list: str, name: str) -> Mail:
    """A post that Exim has taken."""
    mail = mails()["plain"].at(a_list).marked(name)
    assert stack.post(mail).codes == [250]
    return mail


def test_six_and_more_are_thrown_away_by_mailman(stack: Stack, a_list: str, scorer: FakeScorer) -> None:
    sent = {}
    for score in ("0.2", "5.9", "6.0", "99"):
        scorer.scan = Act(spamd_says(score))
        sent[score] = posted(stack, a_list, f"score-{score}").message_id
        assert stack.to_mailman.wait_for(sent[score]).delivered == [a_list]  # what is thrown away, Mailman does
    for score in ("0.2", "5.9"):
        arrival = stack.mailman.wait_arrived(a_list, sent[score])
        assert b"\nX-Mailgate-Scan: scored\n" in arrival.octets
        assert (b"\nX-Spam-Score: 5.9 (+++++)\n" in arrival.octets) == (score == "5.9")
    for score in ("6.0", "99"):
        wait_discarded(stack, sent[score])
        assert stack.mailman.arrived(a_list)[sent[score]] == 0


def wait_discarded(stack: Stack, message_id: str) -> None:
    """Until Mailman says that it has thrown it away."""

    def said() -> bool:
        logs = (stack.mailman.var / "logs").glob("*.log")
        return any(f"DISCARD: {message_id}" in path.read_text(errors="replace") for path in logs)

    wait_until(said, f"Mailman has discarded {message_id}")


def test_what_a_sender_writes_himself_counts_for_nothing(stack: Stack, a_list: str, scorer: FakeScorer) -> None:
    scorer.scan = Act(spamd_says("0.2"))
    plain = mails()["plain"].at(a_list).marked("forged")
    forged = Mail(**{**vars(plain), "octets": b"X-Spam-Score: 9.0 (+++++++++)\r\n" + plain.octets})
    stack.post(forged)
    arrival = stack.mailman.wait_arrived(a_list, forged.message_id)
    assert b"X-Spam-Score" not in arrival.octets


def test_rspamds_score_says_it_in_the_same_words(stack: Stack, a_list: str) -> None:
    with FakeScorer("rspamd") as fake:
        answer = {"is_skipped": False, "score": 6.49, "required_score": 15.0, "action": "no action", "symbols": {}}
        fake.scan = Act(rspamd_says(json.dumps(answer)))
        stack.start_gate({"spam": {"engine": "rspamd", "servers": [str(fake.port)], "reject_score": 0}})
        mail = posted(stack, a_list, "rspamd-6.49")
        seen = stack.to_mailman.wait_for(mail.message_id)
        assert b"\r\nX-Spam-Score: 6.5 (++++++)\r\n" in seen.octets
        wait_discarded(stack, mail.message_id)
