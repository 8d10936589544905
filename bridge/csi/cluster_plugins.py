"""The registry as one cluster sees it: what it announces is marked as its own, and it is given nobody else's.

A driver's name says nothing of the storage behind it: two clusters may each have a plugin of it. It keeps no state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bridge.model.plugin import NO_RULES, CallRules, Capability, PluginDescription, PluginView
from bridge.ports.plugin import PluginCalls

if TYPE_CHECKING:
    from bridge.csi.registry import Registry


class ClusterPlugins:
    """Implements `Plugins` and `PluginSink` for one cluster."""

    def __init__(self, registry: Registry, cluster: str) -> None:
        self._registry = registry
        self._cluster = cluster

    def view(self, driver: str) -> PluginView:
        """See the port."""
        return self._registry.view(driver, self._cluster)

    def controller(self, driver: str) -> PluginCalls | None:
        """See the port."""
        return self._registry.controller(driver, self._cluster)

    def describe(self) -> Sequence[PluginDescription]:
        """See the port."""
        return self._registry.describe()

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """See the port."""
        return self._registry.on_change(listener)

    async def ensure_socket(
        self, instance: str, path: str, *, backend: str = "", node: str = "", rules: CallRules = NO_RULES
    ) -> None:
        """See the port."""
        await self._registry.ensure_socket(
            instance, path, backend=backend, node=node, rules=rules, cluster=self._cluster
        )

    async def ensure_rules(self, driver: str, rules: CallRules) -> None:
        """See the port."""
        await self._registry.ensure_rules(driver, rules)

    async def ensure_expected(self, name: str, driver: str, sentence: str) -> None:
        """See the port."""
        await self._registry.ensure_expected(name, driver, sentence, cluster=self._cluster)

    async def ensure_calls(
        self,
        calls: PluginCalls,
        capabilities: frozenset[Capability],
        *,
        endpoint: str,
        sentence: str = "",
        concurrency: int = 1,
    ) -> None:
        """See the port."""
        await self._registry.ensure_calls(
            calls,
            capabilities,
            endpoint=endpoint,
            sentence=sentence,
            concurrency=concurrency,
            cluster=self._cluster,
        )

    async def ensure_no_instance(self, instance: str) -> None:
        """See the port."""
        await self._registry.ensure_no_instance(instance)
