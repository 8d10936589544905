"""The Identity service: who this driver is and what it offers. It must not touch volumes."""

from __future__ import annotations

import asyncio
from importlib import metadata
from typing import Any

from google.protobuf.wrappers_pb2 import BoolValue

from adapters.localdisk import failures
from adapters.localdisk.driver import Driver
from adapters.localdisk.layout import MARKER
from adapters.localdisk.settings import Topology
from bridge.pb.csi.v1 import csi_pb2, csi_pb2_grpc

_Service = csi_pb2.PluginCapability.Service
_Expansion = csi_pb2.PluginCapability.VolumeExpansion
_SERVICES = (_Service.CONTROLLER_SERVICE, _Service.GROUP_CONTROLLER_SERVICE, _Service.SNAPSHOT_METADATA_SERVICE)
_PLACES = {
    Topology.NONE: (),
    Topology.VOLUMES: (_Service.VOLUME_ACCESSIBILITY_CONSTRAINTS,),
    Topology.ALL: (_Service.VOLUME_ACCESSIBILITY_CONSTRAINTS, _Service.SNAPSHOT_ACCESSIBILITY_CONSTRAINTS),
}


def version() -> str:
    """The version of the package, or of a source tree that was not installed."""
    try:
        return metadata.version("snapbridge")
    except metadata.PackageNotFoundError:
        return "0+source"


class Identity(csi_pb2_grpc.IdentityServicer):
    """Identity over one driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def GetPluginInfo(
        self, request: csi_pb2.GetPluginInfoRequest, context: Any
    ) -> csi_pb2.GetPluginInfoResponse:
        return csi_pb2.GetPluginInfoResponse(
            name=self._driver.settings.driver_name, vendor_version=version(), manifest=self._driver.manifest
        )

    async def GetPluginCapabilities(
        self, request: csi_pb2.GetPluginCapabilitiesRequest, context: Any
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        services = _SERVICES + _PLACES[self._driver.settings.topology]
        capabilities = [csi_pb2.PluginCapability(service=_Service(type=t)) for t in services]
        capabilities.append(csi_pb2.PluginCapability(volume_expansion=_Expansion(type=_Expansion.ONLINE)))
        return csi_pb2.GetPluginCapabilitiesResponse(capabilities=capabilities)

    async def Probe(self, request: csi_pb2.ProbeRequest, context: Any) -> csi_pb2.ProbeResponse:
        marker = self._driver.layout.root / MARKER
        if not await asyncio.to_thread(marker.exists):
            failures.precondition(f"{marker} is gone: is the disk of --state-dir still mounted?")
        return csi_pb2.ProbeResponse(ready=BoolValue(value=True))
