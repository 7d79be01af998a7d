"""What the demo shows and checks. Every check is printed with its outcome; `held` is the sum of them."""

import subprocess
from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.stack.arrivals import place
from tests.stack.gate import Gate
from tests.stack.mails import Mail
from tests.stack.stack import Stack
from tests.stack.waiting import wait_until

_PATIENCE = 60.0
_SHOWN = (
    "mailgate_messages_total",
    "mailgate_recipients_total",
    "mailgate_replays_total",
    "mailgate_spam_scans_total",
    "mailgate_unscored_total",
    "mailgate_verdicts_joined_total",
    "mailgate_origin_total",
    "mailgate_network_hits_total",
    "mailgate_network_drift_total",
    "mailgate_auth_results_total",
    "mailgate_spool_messages",
    "mailgate_spool_bytes",
    "mailgate_upstream_up",
    "mailgate_breaker_open",
)


class Demo:
    """The stage: prints acts, tables and progress, and keeps the score."""

    def __init__(self) -> None:
        self.held = True
        self._console = Console(highlight=False)

    def title(self, text: str) -> None:
        """A new act."""
        self._console.rule(f"[bold]{escape(text)}", align="left")

    def say(self, text: str) -> None:
        """A line of prose."""
        self._console.print(escape(text))

    def print(self, table: Table) -> None:
        """A table."""
        self._console.print(table)

    def check(self, held: bool, what: str) -> None:
        """Print what was checked and how it came out."""
        self.held = self.held and held
        self._console.print(f"[green]ok[/green]      {escape(what)}" if held else f"[red]FAILED[/red]  {escape(what)}")

    def verdict(self, seconds: float) -> None:
        """The last line."""
        words = "It all held." if self.held else "Something did not hold: see FAILED above."
        self._console.rule(f"[bold {'green' if self.held else 'red'}]{words} ({seconds:.0f} s)", align="left")

    def show(self, done: subprocess.CompletedProcess[str], command: str) -> None:
        """A command and what it printed."""
        self._console.print(f"[bold]$ {escape(command)}")
        lines = done.stdout.splitlines()
        for line in lines[:14]:
            self._console.print(escape(line), soft_wrap=True)
        if len(lines) > 14:
            self.say(f"… {len(lines) - 14} more lines")

    # act 1

    def post_all(self, stack: Stack, mails: list[Mail]) -> None:
        """Give every mail to Exim; it must take each of them."""
        with self._progress("posting") as bar:
            task = bar.add_task("posting", total=len(mails))
            codes = []
            for mail in mails:
                codes.append(stack.post(mail).codes[-1])
                bar.advance(task)
        clients = len({mail.client for mail in mails})
        self.check(codes == [250] * len(mails), f"Exim took all {len(mails)} mails, from {clients} client addresses")

    def show_what_happened(self, stack: Stack, mails: list[Mail]) -> None:
        """One row a mail: what mailgate answered Exim, and where the mail is now."""
        table = Table("mail", "client", "size", "mailgate's reply to Exim", "where it is now")
        for mail in mails:
            reply = self._reply(stack, mail)
            where = self._where(stack, mail, reply)
            table.add_row(mail.name, mail.client, f"{len(mail.octets)}", escape(reply), escape(where))
        self.print(table)

    def _reply(self, stack: Stack, mail: Mail) -> str:
        if not mail.message_id:
            return self._reply_without_id(stack, mail)
        transaction = stack.to_gate.wait_for(mail.message_id, deadline=_PATIENCE)
        replies = Counter(_short(reply.decode("ascii", "replace")) for reply in transaction.replies)
        return ", ".join(f"{reply} (x{count})" if count > 1 else reply for reply, count in replies.items())

    def _reply_without_id(self, stack: Stack, mail: Mail) -> str:
        """Exim has given the mail a Message-ID: look for its body."""
        body = mail.octets.partition(b"\r\n\r\n")[2]

        def seen() -> list[bytes]:
            return [reply for one in stack.to_gate.transactions if one.octets.endswith(body) for reply in one.replies]

        return _short(wait_until(seen, "the mail without Message-ID", deadline=_PATIENCE)[0].decode())

    def _where(self, stack: Stack, mail: Mail, reply: str) -> str:
        if mail.refused:
            self.check(reply.startswith("5"), f"{mail.name}: refused, since {mail.refused}")
            return "told to the sender"
        if not mail.message_id:
            return "Mailman took it, and gave it a Message-ID"
        for recipient in mail.recipients:
            stack.mailman.wait_arrived(recipient, mail.message_id, deadline=_PATIENCE)
        return f"Mailman, {len(mail.recipients)} recipient{'s' if len(mail.recipients) > 1 else ''}"

    # acts 2 and 3

    def wait_spooled(self, stack: Stack, count: int) -> None:
        """Exim must have handed everything over, though Mailman is down."""
        gate = _gate(stack)
        wait_until(lambda: _waiting(gate) >= count, "all posts are in the spool", deadline=_PATIENCE)
        stack.exim.wait_empty(_PATIENCE)
        self.check(_waiting(gate) == count, f"{count} posts are in the spool, none is left in Exim's queue")

    def drain(self, stack: Stack, count: int) -> None:
        """Show the queue becoming empty."""
        gate = _gate(stack)
        with self._progress("draining") as bar:
            task = bar.add_task("draining", total=count)

            def drained() -> bool:
                left = _waiting(gate)
                bar.update(task, completed=count - left)
                return left == 0

            wait_until(drained, "the spool is empty", deadline=_PATIENCE)
        self.check(True, "the spool is empty")

    def check_once(self, stack: Stack, mails: list[Mail]) -> None:
        """Every post must be in Mailman, and exactly once for each of its recipients."""
        wanted = Counter(
            (place(recipient), mail.message_id)
            for mail in mails
            if mail.message_id and not mail.refused
            for recipient in mail.recipients
        )
        for address, message_id in wanted:
            stack.mailman.wait_arrived(address, message_id, deadline=_PATIENCE)
        there = {(address, message_id): stack.mailman.arrived(address)[message_id] for address, message_id in wanted}
        wrong = [f"{key}: {there[key]} times, not {times}" for key, times in wanted.items() if there[key] != times]
        for line in wrong:
            self.say(line)
        self.check(not wrong, f"{wanted.total()} deliveries looked for in Mailman: each is there exactly once")

    # the last act

    def show_metrics(self, gate: Gate) -> None:
        """The samples that are not zero."""
        for name, value in gate.metrics().items():
            if name.startswith(_SHOWN) and value:
                self.say(f"{name} {value:g}")

    def _progress(self, what: str) -> Progress:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self._console)


def _gate(stack: Stack) -> Gate:
    assert stack.gate is not None
    return stack.gate


def _waiting(gate: Gate) -> int:
    return int(sum(gate.metric("mailgate_spool_messages", state=state) for state in ("pending", "uncertain")))


def _short(reply: str) -> str:
    """Code and enhanced code, and the word that says what became of it; the gate id differs each time."""
    words = reply.split()
    return " ".join([*words[:2], *(word.rstrip(":") for word in words[3:4] if words[0] == "250")])
