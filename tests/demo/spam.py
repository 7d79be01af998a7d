"""The acts about spam: a real spamd scores what the real Exim hands over; then it is stopped, and started again."""

import re
from dataclasses import dataclass, replace

from rich.markup import escape
from rich.table import Table

from tests.demo.scene import Demo
from tests.stack.gate import Gate
from tests.stack.mails import GTUBE, Mail, mails
from tests.stack.spamd import Spamd
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until

TAG, REJECT = 1.0, 6.0  # mailgate's defaults
_PATIENCE = 60.0
_POSTS = 3  # while spamd is stopped
_OFFER = b"Dear friend,\r\n\r\nthe lottery of our gardens has drawn your plot.\r\n\r\nIda\r\n"
_SPAM_FIELDS = re.compile(rb"^(?:X-Spam-(?:Score|Flag|Status)|X-Mailgate-Scan): [^\n]*", re.MULTILINE)


@dataclass(frozen=True)
class _Seen:
    """What became of a post: its score (None without one), the reply to Exim, and what Mailman has of the fields."""

    score: float | None
    reply: str
    fields: list[str]


def settings(spamd: Spamd) -> dict[str, dict[str, object]]:
    """The gate's, that it asks this spamd."""
    return {"spam": {"engine": "spamd", "servers": [str(spamd.port)]}}


def show_scores(demo: Demo, stack: Stack, gate: Gate, address: str) -> list[Mail]:
    """A ham post, a tagged one and GTUBE; those of them that are in Mailman."""
    plain = mails()["plain"].at(address)
    ham = plain.marked("ham")
    tagged = with_body(plain.marked("tagged"), _OFFER)
    gtube = with_body(plain.marked("gtube"), GTUBE)
    bounced = len(stack.exim.bounces())
    demo.post_all(stack, [ham, tagged, gtube])
    seen = {mail.message_id: _seen(stack, gate, mail, held=mail is gtube) for mail in (ham, tagged, gtube)}
    _table(demo, seen)

    one, other, third = seen.values()
    demo.check(
        one.score is not None and one.score <= TAG and _words(one) == ["X-Spam-Status", "X-Mailgate-Scan"],
        "the ham post is in Mailman, scored and without a mark of spam",
    )
    demo.check(
        other.score is not None and TAG < other.score <= REJECT and "X-Spam-Flag: YES" in other.fields,
        "the tagged post is in Mailman, with Exim's X-Spam-Score",
    )
    demo.check(
        third.score is not None and third.score > REJECT and " held" in third.reply,
        "GTUBE is held: Exim had accepted it, so it must not bounce",
    )
    demo.show(gate.cli("queue", "list", "--state", "held"), "mailgate queue list --state held")
    demo.check(len(stack.exim.bounces()) == bounced, "none of them has bounced")
    return [ham, tagged]


def show_outage(demo: Demo, stack: Stack, gate: Gate, spamd: Spamd, address: str) -> list[Mail]:
    """Posts while spamd is stopped, which go on unscored, and one when it is back; all of them."""
    spamd.kill()
    before, unscored = _scanning(gate), gate.metric("mailgate_unscored_total")
    posts = [mails()["plain"].at(address).marked(f"unscored-{number}") for number in range(_POSTS)]
    demo.post_all(stack, posts)
    seen = {mail.message_id: _seen(stack, gate, mail) for mail in posts}
    _table(demo, seen)
    spent = (_scanning(gate) - before) / len(posts)
    demo.check(
        all(_words(one) == ["X-Mailgate-Scan"] and "unscored; reason=" in one.fields[0] for one in seen.values()),
        f"all {len(posts)} are in Mailman and say that they are unscored",
    )
    demo.check(spent < 1, f"looking for a scorer has cost each of them {1000 * spent:.1f} ms")
    told = [one for one in gate.events("message.delivered") if one["message_id"] in seen and one["scan"] == "unscored"]
    said = {one["text"] for one in gate.events("spam.unscored")}
    demo.check(
        len(told) == len(seen) and said == {"all spamd servers failed"},
        "the log says of each that it is unscored, and: all spamd servers failed",
    )
    counted = gate.metric("mailgate_unscored_total") - unscored
    demo.check(counted == len(posts), "mailgate_unscored_total has counted them")
    _show_ledger(demo, gate, seen)

    spamd.start()
    wait_until(lambda: gate.metric("mailgate_upstream_up", upstream=str(spamd.port)) == 1, "spamd is trusted again")
    after = mails()["plain"].at(address).marked("scored-again")
    demo.post_all(stack, [after])
    demo.check(
        _seen(stack, gate, after).score is not None, "spamd is started again: by itself mailgate asks it, and scores"
    )
    return [*posts, after]


def _show_ledger(demo: Demo, gate: Gate, seen: dict[str, _Seen]) -> None:
    """Which posts passed unscored, by name."""
    done = gate.cli("unscored", "list", check=False)
    demo.show(done, "mailgate unscored list")
    demo.check(
        done.returncode == 0 and all(message_id in done.stdout for message_id in seen), "the ledger names each of them"
    )


def _seen(stack: Stack, gate: Gate, mail: Mail, *, held: bool = False) -> _Seen:
    event = gate.wait_for_event(f"message.{'held' if held else 'delivered'}", message_id=mail.message_id)
    reply = stack.to_gate.wait_for(mail.message_id, deadline=_PATIENCE).replies[0].decode("ascii", "replace")
    fields: list[str] = []
    if not held:
        octets = stack.mailman.wait_arrived(mail.recipients[0], mail.message_id, deadline=_PATIENCE).octets
        fields = [found.decode() for found in _SPAM_FIELDS.findall(octets.partition(b"\n\n")[0])]
    return _Seen(event.get("score"), reply, fields)


def _words(seen: _Seen) -> list[str]:
    return [field.partition(":")[0] for field in seen.fields]


def _table(demo: Demo, seen: dict[str, _Seen]) -> None:
    table = Table("mail", "score", "mailgate's reply to Exim", "in its header in Mailman")
    for message_id, one in seen.items():
        score = "none" if one.score is None else f"{one.score:.1f}"
        name = message_id.strip("<>").partition("@")[0]
        table.add_row(name, score, escape(one.reply), escape("\n".join(one.fields)) or "is not there")
    demo.print(table)


def _scanning(gate: Gate) -> float:
    """Seconds that messages have spent being scanned, all together."""
    return gate.metric("mailgate_stage_seconds_sum", stage="spam")


def with_body(mail: Mail, body: bytes) -> Mail:
    """The mail with another body."""
    return replace(mail, octets=mail.octets.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body)
