"""Spam scoring: the scorers, and the story of a scan, on real servers and on one that misbehaves."""
