"""Posts that go through Exim from several client addresses, and how they are found again."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace

from mailgate import config
from mailgate.edge.spool import Database
from mailgate.edge.spool.listing import Selection, listed
from tests.stack.gate import Gate
from tests.stack.mails import Mail, mails
from tests.stack.stack import Stack
from tests.stack.waiting import PATIENCE, wait_until

_HERE = ("pending", "uncertain", "held", "failed", "corrupt")
_KINDS = ("plain", "multipart", "latin1", "utf8-body", "dots")


def numbered(mark: str, count: int, lists: Sequence[str]) -> list[Mail]:
    """`count` posts, each with an id and a client of its own, to one, two, three … of `lists` in turn."""
    return [
        replace(
            mails()[_KINDS[n % len(_KINDS)]].marked(f"{mark}-{n}"),
            recipients=tuple(lists[: 1 + n % len(lists)]),
            client=f"127.0.10.{1 + n % 250}",
        )
        for n in range(count)
    ]


def post(stack: Stack, posts: Iterable[Mail]) -> None:
    """Give them to Exim, which must take them all."""
    for mail in posts:
        result = stack.post(mail)
        assert result.codes == [250], (mail.message_id, result)


def expected(posts: Iterable[Mail]) -> Counter[tuple[str, str]]:
    """Each post once at each of its recipients: by recipient and Message-ID."""
    return Counter((recipient, mail.message_id) for mail in posts for recipient in mail.recipients)


def arrived(stack: Stack, lists: Iterable[str]) -> Counter[tuple[str, str]]:
    """What Mailman has, counted in the same way."""
    return Counter({(one, mid): n for one in lists for mid, n in stack.mailman.arrived(one).items()})


def wait_arrived(stack: Stack, posts: Sequence[Mail], deadline: float = PATIENCE) -> None:
    """Until each has arrived at each of its recipients, at least once."""
    wanted = expected(posts)
    lists = {recipient for recipient, _ in wanted}
    wait_until(lambda: wanted <= arrived(stack, lists), "all posts are in Mailman", deadline=deadline)


def waiting(gate: Gate) -> dict[tuple[str, str], str]:
    """What the spool shows: the state of each recipient, by recipient and Message-ID. Settled ones are history."""
    # As `mailgate queue list` reads it; to start that each time costs a second.
    with closing(Database(config.load(gate.config).spool.path, "gate.lists.test", serve=False)) as database:
        return {
            (one.address, row.message_id): one.state
            for row in listed(database, Selection(states=_HERE))
            for one in row.recipients
        }


def wait_spool_empty(gate: Gate, deadline: float = PATIENCE) -> None:
    """Until nothing is in the spool, in any state."""
    wait_until(lambda: gate.metric("mailgate_spool_messages") == 0, "the spool is empty", deadline=deadline)
    assert waiting(gate) == {}
