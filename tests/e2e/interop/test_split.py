"""Our controller beside our sidecar."""

from __future__ import annotations

from tests.e2e.interop.scenarios import Scenarios
from tests.support import stacks

KIND = stacks.SPLIT


class TestSplit(Scenarios):
    """Every scenario."""
