"""The verdict door: what Exim asks before it accepts a message, and what it is told."""
