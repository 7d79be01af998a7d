"""Whom a message comes from, and how much of it is taken: with the real Exim in front."""
