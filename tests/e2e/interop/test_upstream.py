"""Upstream's controller beside upstream's sidecar: the scenarios are true of the incumbent itself."""

from __future__ import annotations

from tests.e2e.interop.scenarios import Scenarios
from tests.support import stacks

KIND = stacks.UPSTREAM


class TestUpstream(Scenarios):
    """Every scenario."""
