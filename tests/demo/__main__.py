"""The demo's story, act by act. Exit status 0 only if every post arrived exactly once and nothing else was off."""

import sys
import time
from contextlib import ExitStack

from tests.demo import asking, blocked, senders, spam
from tests.demo.scene import Demo
from tests.stack.dns import DnsServer
from tests.stack.gate import merged
from tests.stack.mails import Mail, mails
from tests.stack.spamd import Spamd
from tests.stack.stack import Stack

_OUTAGE_POSTS = 24
_CLIENTS = [f"127.0.7.{n}" for n in range(1, 7)]


def main() -> int:
    """Run all acts; the exit status."""
    started = time.monotonic()
    demo = Demo()
    demo.title("Starting a real Exim, Mailman core and spamd, and mailgate between them, on loopback")
    with ExitStack() as undo:
        stack, spamd = _parts(undo)
        names = undo.enter_context(DnsServer())
        senders.serve(names)
        settings = merged(spam.settings(spamd), blocked.settings(stack))
        gate = stack.start_gate(merged(settings, senders.settings(names)), verdict=True)
        doors = f"mailgate on {gate.lmtp[1]} (LMTP), Mailman on {stack.mailman.address[1]}, spamd on {spamd.address[1]}"
        demo.say(f"Exim listens on {stack.exim.address[1]}, {doors}")
        address = stack.new_list()

        demo.title("1  Mail flows: every mail of fixtures/ goes into Exim, from several client addresses")
        sent = [mail.at(address) for mail in mails().values()]
        demo.post_all(stack, sent)
        demo.show_what_happened(stack, sent)

        demo.title("2  Mailman is stopped. Posts go on being accepted, and are kept on disk")
        stack.stop_mailman()
        posts = [_post(number, address) for number in range(_OUTAGE_POSTS)]
        demo.post_all(stack, posts)
        demo.wait_spooled(stack, len(posts))
        demo.show(gate.cli("queue", "list"), "mailgate queue list")
        demo.show(gate.cli("queue", "stats"), "mailgate queue stats")

        demo.title("3  Mailman is started again. The queue drains by itself")
        stack.start_mailman()
        demo.drain(stack, len(posts))
        demo.check_once(stack, [*sent, *posts])

        demo.title("4  spamd has scored all of it. Now a ham post, one that is tagged, and GTUBE")
        scored = spam.show_scores(demo, stack, gate, address)

        demo.title("5  spamd is stopped: posts go on unscored, and it is known which")
        unscored = spam.show_outage(demo, stack, gate, spamd, address)
        demo.check_once(stack, [*scored, *unscored])

        demo.title("6  Exim asks mailgate before it accepts: GTUBE again, and a ham post")
        demo.check_once(stack, asking.show_refusal(demo, stack, gate, address))

        demo.title("7  A client's network is listed as abusive, and then is not any more")
        demo.check_once(stack, blocked.show_block(demo, stack, gate, address))

        demo.title("8  Who vouches for a post: SPF, DKIM, DMARC and ARC, for Mailman to take over")
        demo.check_once(stack, senders.show_senders(demo, stack, gate, address))

        demo.title("9  The metrics that moved")
        demo.show_metrics(gate)
        demo.check(not stack.exim.queue(), "Exim's queue is empty")
    demo.verdict(time.monotonic() - started)
    return 0 if demo.held else 1


def _parts(undo: ExitStack) -> tuple[Stack, Spamd]:
    """The real programs, running; spamd reads its rules while the others start."""
    stack = Stack(long_lines=True, trusting=True)
    spamd = Spamd(stack.directory / "spamd")
    undo.callback(spamd.close)
    spamd.begin()
    undo.enter_context(stack)
    spamd.ready()
    return stack, spamd


def _post(number: int, address: str) -> Mail:
    plain = mails()["plain"].at(address).marked(f"during-the-outage-{number:02}")
    return Mail(
        f"outage {number:02}", "sent while Mailman was down", plain.sender, plain.recipients,
        _CLIENTS[number % len(_CLIENTS)], plain.octets,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
