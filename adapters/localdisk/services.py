"""What all services of one driver share: the driver, its threads, and where its things are usable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adapters.localdisk import failures, wire
from adapters.localdisk.driver import Driver
from adapters.localdisk.settings import Topology
from adapters.localdisk.work import Work
from bridge.pb.csi.v1 import csi_pb2


@dataclass(frozen=True, slots=True)
class Shared:
    """Handed to each service."""

    driver: Driver
    work: Work

    @property
    def places(self) -> list[csi_pb2.Topology]:
        """The topology of volumes: this node, unless topology is off."""
        settings = self.driver.settings
        key = "" if settings.topology is Topology.NONE else self.driver.topology_key
        return wire.topology(key, settings.node_id)

    @property
    def snapshot_places(self) -> list[csi_pb2.Topology]:
        """The topology of snapshots, told only if its capability is announced."""
        return self.places if self.driver.settings.topology is Topology.ALL else []

    def check_topology(self, requirement: csi_pb2.TopologyRequirement) -> None:
        """Raises RESOURCE_EXHAUSTED if this node is not among the places asked for."""
        key, here = self.driver.topology_key, self.driver.settings.node_id
        allowed = requirement.requisite or requirement.preferred
        told = self.driver.settings.topology is not Topology.NONE
        if told and allowed and not any(t.segments.get(key) == here for t in allowed):
            failures.exhausted(f"accessibility_requirements: none of them is {key}={here}, the only place here")

    def now_ns(self) -> int:
        return self.driver.snapshots.clock()


def capabilities(found: Iterable[csi_pb2.VolumeCapability]) -> list[csi_pb2.VolumeCapability]:
    """A required list of capabilities, each of them whole. Raises INVALID_ARGUMENT."""
    listed = list(found)
    if not listed:
        failures.invalid("volume_capabilities is required")
    kinds = {wire.is_block(c) for c in listed}
    if len(kinds) > 1:
        failures.invalid("volume_capabilities: a volume is either a block or a mount volume")
    return listed
