"""Whether Mailman does anything with the mail that it accepts: its queues, its runners, its REST interface."""

from mailgate.edge.mailmanwatch.watch import MailmanWatch

__all__ = ["MailmanWatch"]
