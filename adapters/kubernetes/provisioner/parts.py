"""What the turns of a provisioner share: the cluster, the driver and this process's right to act on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.client import Client
from adapters.kubernetes.events import Events
from adapters.kubernetes.names import Resource
from adapters.kubernetes.problem import ApiError, as_bridge_error
from adapters.kubernetes.provisioner.meters import Meters
from adapters.kubernetes.provisioner.scene import Scene
from adapters.kubernetes.secrets import ClusterSecrets
from adapters.kubernetes.writer import Writer
from bridge.model.failure import ElsewhereError, NotSyncedError, UnavailableError
from bridge.model.plugin import PluginView
from bridge.ports.clock import Clock
from bridge.ports.loop import RetrySchedule
from bridge.ports.plugin import PluginCalls, Plugins

Object = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """One driver's provisioner in one cluster."""

    driver: str
    scene: Scene
    client: Client
    writer: Writer
    events: Events
    secrets: ClusterSecrets
    plugins: Plugins
    clock: Clock
    meters: Meters
    retry: RetrySchedule
    slow_seconds: float
    """The pause after an answer that no repeat will change."""
    why_not: Callable[[], str] = lambda: ""
    """Why this process may not act at this moment; empty when it may."""

    def check(self) -> None:
        """Raise unless the caches are complete and this process may act."""
        if not self.scene.synced:
            raise NotSyncedError("the cluster is not read yet")
        reason = self.why_not()
        if reason:
            raise ElsewhereError(reason)

    def calls(self) -> PluginCalls:
        """The plugin to call now; it may be called only by who may act."""
        self.check()
        calls = self.plugins.controller(self.driver)
        if calls is None:
            raise UnavailableError(f"the CSI driver {self.driver} does not answer: {self.view().sentence}")
        return calls.under(self.why_not)

    def view(self) -> PluginView:
        """What is known of the driver."""
        return self.plugins.view(self.driver)

    async def read(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """One object as it stands now; None when it is not there."""
        try:
            return await self.client.get(resource, namespace, name)
        except ApiError as error:
            if error.missing:
                return None
            raise as_bridge_error(error, f"reading {resource.kind} {name}") from error

    async def snapshot(self, namespace: str, name: str) -> Object | None:
        """A VolumeSnapshot: from the cache, or live where the role may not watch them or has not read them yet."""
        cache = self.scene.snapshots
        if cache.synced:
            return cache.get(namespace, name)
        return await self.read(names.SNAPSHOTS, namespace, name)


def about(resource: Resource, item: Object) -> Object:
    """The object with its kind, which lists leave out and events need."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **item}
