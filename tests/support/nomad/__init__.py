"""A fake Nomad agent that keeps state, and a starter of a real one."""

from __future__ import annotations
