"""Frozen data that every ring shares: what things are. No behaviour beyond validation, no IO, no clock."""
