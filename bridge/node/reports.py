"""What an agent tells of its plugins, in the protocol's words. Pure translation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bridge.model.plugin import Capability, PluginDescription, Role
from bridge.pb.csi.v1 import csi_pb2
from bridge.pb.snapbridge.node.v1 import node_pb2 as pb

_ROLES: Mapping[str, pb.Role.ValueType] = {Role.CONTROLLER.value: pb.ROLE_CONTROLLER, Role.NODE.value: pb.ROLE_NODE}
_KINDS: tuple[tuple[str, Any], ...] = (
    ("plugin_services", csi_pb2.PluginCapability.Service.Type),
    ("controller", csi_pb2.ControllerServiceCapability.RPC.Type),
    ("group_controller", csi_pb2.GroupControllerServiceCapability.RPC.Type),
    ("node", csi_pb2.NodeServiceCapability.RPC.Type),
)


def of(rows: Iterable[PluginDescription], epoch: Callable[[str], str]) -> dict[str, pb.PluginReport]:
    """One report per instance. `epoch` tells the connection of an instance, empty for none."""
    reports: dict[str, pb.PluginReport] = {}
    for row in rows:
        name = row.id.instance
        report = reports.get(name)
        if report is None:
            report = reports[name] = pb.PluginReport(
                driver=row.id.driver,
                instance=name,
                socket_id=epoch(name),
                socket_path=row.endpoint.removeprefix("unix:"),
                vendor_version=row.vendor_version,
                capabilities=_capabilities(row.capabilities),
                healthy=row.healthy,
                health=row.sentence,
            )
        if row.id.role in _ROLES:
            report.roles.append(_ROLES[row.id.role])
    return reports


def _capabilities(announced: frozenset[Capability]) -> pb.Capabilities:
    words = {capability.value for capability in announced}
    numbers = {field: sorted(number for word, number in kind.items() if word in words) for field, kind in _KINDS}
    return pb.Capabilities(**numbers)
