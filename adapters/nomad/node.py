"""The plugin sockets of one Nomad client, for a node agent that runs there. It reads, and writes nothing to Nomad.

Which allocations hold a plugin is asked of Nomad; that one of them is on this host is proved by its socket.
"""

from __future__ import annotations

from adapters.nomad.client import Client
from adapters.nomad.discovery import PluginFollower
from adapters.nomad.handles import Handles
from adapters.nomad.settings import NodeSettings
from bridge.model.plugin import NO_RULES, CallRules, Capability
from bridge.ports.plugin import PluginCalls, SocketSink


class NodeSockets:
    """The `SocketFinder` port."""

    def __init__(self, settings: NodeSettings, node: str) -> None:
        self._client = Client(settings.whole())
        self._node = node
        self._follower = PluginFollower(settings.region or "here", self._client, Handles(self._client))

    @property
    def sentence(self) -> str:
        return self._follower.sentence

    async def run(self, plugins: SocketSink) -> None:
        try:
            await self._follower.run(_SocketsOnly(plugins, self._node))
        finally:
            await self._client.close()


class _SocketsOnly:
    """A `PluginSink` for a host that has nothing but sockets, all of one node."""

    def __init__(self, sink: SocketSink, node: str) -> None:
        self._sink = sink
        self._node = node

    async def ensure_socket(
        self, instance: str, path: str, *, backend: str = "", node: str = "", rules: CallRules = NO_RULES
    ) -> None:
        await self._sink.ensure_socket(instance, path, backend=backend, node=self._node)

    async def ensure_calls(
        self,
        calls: PluginCalls,
        capabilities: frozenset[Capability],
        *,
        endpoint: str,
        sentence: str = "",
        concurrency: int = 1,
    ) -> None:
        raise AssertionError("a node agent never calls through Nomad's API")

    async def ensure_rules(self, driver: str, rules: CallRules) -> None:
        """How many calls at once is the service's to say: it makes them."""

    async def ensure_expected(self, name: str, driver: str, sentence: str) -> None:
        """What may be waited for is the service's to say too."""

    async def ensure_no_instance(self, instance: str) -> None:
        await self._sink.ensure_no_instance(instance)
