"""Have Mailman's LMTP server take long lines, as Exim and mailgate do.

Mailman core 3.3.10 answers `500 Line too long` to a message that has a line of 1000 octets or more, and has no setting
for it. Real mail has such lines (HTML without line breaks). To be used, this folder's parent is put on the PYTHONPATH
of Mailman, and mailman.cfg gets:

    [plugin.mailgate_longlines]
    class: mailgate_longlines.plugin.LongLines
    enabled: yes

The limit is also the size of the server's read buffer, so a connection may hold that much memory more.
"""

from aiosmtpd.lmtp import LMTP
from mailman.interfaces.plugin import IPlugin
from zope.interface import implementer

LIMIT = 2**20


@implementer(IPlugin)
class LongLines:
    """Raises the limit in each process of Mailman before it does anything else."""

    name = None
    resource = None

    def pre_hook(self) -> None:
        """Called by Mailman before its database is opened."""
        LMTP.line_length_limit = LIMIT

    def post_hook(self) -> None:
        """Called by Mailman when all is set up; there is nothing left to do."""
