"""Upstream's controller beside our sidecar."""

from __future__ import annotations

from tests.e2e.interop.scenarios import Scenarios
from tests.support import stacks

KIND = stacks.OUR_SIDECAR


class TestOurSidecar(Scenarios):
    """Every scenario."""
