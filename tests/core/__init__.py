"""Tests of the pure core: tables and properties. No event loop, no clock, no sleeping."""
