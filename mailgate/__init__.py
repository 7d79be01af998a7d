"""mailgate: the mail gate between Exim 4 and GNU Mailman 3."""

__version__ = "0.1.0"
