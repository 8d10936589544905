"""What every part of the group half is given by whoever joins it."""

from __future__ import annotations

import dataclasses

from adapters.kubernetes.claims import ClaimHolds
from adapters.kubernetes.events import Events
from adapters.kubernetes.ownership import Ownership
from adapters.kubernetes.writer import Writer
from bridge.ports.clock import Clock

GROUP = "group:"
"""Before a group's uid where uids of snapshots and of groups are kept together."""


@dataclasses.dataclass(frozen=True, slots=True)
class Means:
    """Shared with the single snapshots' half."""

    cluster: str
    writer: Writer
    events: Events
    clock: Clock


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterMeans(Means):
    """Further what the cluster's side needs: one lock per claim, one say on whose driver it is."""

    claims: ClaimHolds
    ownership: Ownership
