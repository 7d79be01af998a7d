"""A plugin for Mailman core: its LMTP server takes lines of more than 999 octets."""
