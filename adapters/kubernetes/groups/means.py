"""What every part of the group half is given by the cluster's adapter."""

from __future__ import annotations

import dataclasses

from adapters.kubernetes.claims import ClaimHolds
from adapters.kubernetes.events import Events
from adapters.kubernetes.ownership import Ownership
from adapters.kubernetes.writer import Writer
from bridge.ports.clock import Clock


@dataclasses.dataclass(frozen=True, slots=True)
class Means:
    """Shared with the single snapshots' half: one writer, one lock per claim, one say on whose driver it is."""

    cluster: str
    writer: Writer
    claims: ClaimHolds
    events: Events
    ownership: Ownership
    clock: Clock
