"""Our controller beside upstream's sidecar."""

from __future__ import annotations

from tests.e2e.interop.scenarios import Scenarios
from tests.support import stacks

KIND = stacks.OUR_CONTROLLER


class TestOurController(Scenarios):
    """Every scenario."""
