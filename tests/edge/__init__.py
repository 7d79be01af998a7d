"""The relay door and the client to Mailman: `mailgate serve` itself between plain clients and a bad Mailman."""
