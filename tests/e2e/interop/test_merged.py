"""One process of ours does both halves."""

from __future__ import annotations

from tests.e2e.interop.scenarios import Scenarios
from tests.support import stacks

KIND = stacks.MERGED


class TestMerged(Scenarios):
    """Every scenario."""
