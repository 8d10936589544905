"""What a plugin is and can do: asked once per connection, as a restart may bring another version."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

from google.protobuf.message import Message

from bridge.csi import methods
from bridge.csi.client import Client
from bridge.csi.methods import Method
from bridge.model.failure import Failure
from bridge.model.outcome import Done, Failed
from bridge.model.plugin import Capability, Role
from bridge.pb.csi.v1 import csi_pb2 as pb

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_KNOWN = {capability.value: capability for capability in Capability}
_MOST_DRIVER_NAME = 63
_PASSING = frozenset({"DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED", "CANCELLED"})
_PLUGIN_SERVICES = pb.PluginCapability.Service.Type
_CONTROLLER = pb.ControllerServiceCapability.RPC.Type
_GROUP = pb.GroupControllerServiceCapability.RPC.Type
_NODE = pb.NodeServiceCapability.RPC.Type


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    """The facts of a plugin that hold for one connection."""

    driver: str
    vendor_version: str = ""
    roles: frozenset[Role] = frozenset()
    capabilities: frozenset[Capability] = frozenset()
    node_id: str = ""


class NotTakenError(Exception):
    """The plugin did not tell; the text is a sentence for people."""


async def name(client: Client) -> Fingerprint:
    """The driver's name and version. NotTakenError when the plugin does not answer, or answers nonsense."""
    reply = await _ask(client, methods.GET_PLUGIN_INFO, pb.GetPluginInfoRequest())
    if not reply.name:
        raise NotTakenError("the plugin gives no driver name: GetPluginInfo must name one")
    if len(reply.name) > _MOST_DRIVER_NAME or "/" in reply.name:
        raise NotTakenError(f"the driver name {reply.name[:80]!r} is not valid: at most 63 characters and no '/'")
    return Fingerprint(reply.name, reply.vendor_version)


async def complete(client: Client, known: Fingerprint) -> Fingerprint:
    """The same with roles and capabilities. NotTakenError as above."""
    found: set[Capability] = set()
    roles: set[Role] = set()
    plugin = await _ask(client, methods.GET_PLUGIN_CAPABILITIES, pb.GetPluginCapabilitiesRequest())
    _take(found, _PLUGIN_SERVICES, [part.service.type for part in plugin.capabilities])
    if Capability.CONTROLLER_SERVICE in found:
        roles.add(Role.CONTROLLER)
        controller = await _ask(client, methods.CONTROLLER_GET_CAPABILITIES, pb.ControllerGetCapabilitiesRequest())
        _take(found, _CONTROLLER, [part.rpc.type for part in controller.capabilities])
    if Capability.GROUP_CONTROLLER_SERVICE in found:
        group = await _ask(client, methods.GROUP_GET_CAPABILITIES, pb.GroupControllerGetCapabilitiesRequest())
        _take(found, _GROUP, [part.rpc.type for part in group.capabilities])
    node_id = await _node(client, found, needed=not roles)
    if node_id is not None:
        roles.add(Role.NODE)
    if not roles:
        raise NotTakenError("the plugin serves neither the Controller nor the Node service: nothing to use it for")
    return dataclasses.replace(known, roles=frozenset(roles), capabilities=frozenset(found), node_id=node_id or "")


async def _node(client: Client, found: set[Capability], *, needed: bool) -> str | None:
    """The node id, or None when there is no Node service. CSI has no flag for it: the call itself tells."""
    outcome = await client.unary(methods.NODE_GET_CAPABILITIES, pb.NodeGetCapabilitiesRequest())
    if isinstance(outcome, Failed):
        _check_node("NodeGetCapabilities", outcome.failure, needed=needed)
        return None
    _take(found, _NODE, [part.rpc.type for part in outcome.value.capabilities])
    info = await client.unary(methods.NODE_GET_INFO, pb.NodeGetInfoRequest())
    if isinstance(info, Done):
        return info.value.node_id
    _check_node("NodeGetInfo", info.failure, needed=needed)
    return None


def _check_node(verb: str, failure: Failure, *, needed: bool) -> None:
    """A controller elsewhere may fail here for good; what passes is asked again."""
    if failure.code in _PASSING or (needed and failure.code != "UNIMPLEMENTED"):
        raise NotTakenError(_sentence(verb, failure))


async def _ask(client: Client, method: Method[Q, R], request: Q) -> R:
    outcome = await client.unary(method, request)
    if isinstance(outcome, Failed):
        raise NotTakenError(_sentence(method.verb, outcome.failure))
    return outcome.value


def _sentence(verb: str, failure: Failure) -> str:
    if failure.code == "DEADLINE_EXCEEDED":
        return f"the plugin does not answer {verb}: see its log, restart it if it hangs"
    return f"the plugin does not answer {verb} well: {failure.message} ({failure.code})"


def _take(found: set[Capability], kind: Any, numbers: Iterable[int]) -> None:
    """Add what we know by name; a number or a name from a newer specification is left out."""
    for number in numbers:
        if number in kind.values():
            capability = _KNOWN.get(kind.Name(number))
            if capability is not None:
                found.add(capability)
