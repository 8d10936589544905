"""A node agent in a process of its own, to be killed by tests. Arguments: node, hub, socket, CA, certificate, key."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from bridge.csi.registry import Registry
from bridge.csi.settings import RegistrySettings
from bridge.node.agent import NodeAgent
from bridge.node.settings import AgentSettings, Tls
from tests.support.csi_server import RealClock


async def main() -> None:
    """Run until killed."""
    node, hub, path, authorities, certificate, key = sys.argv[1:]
    clock = RealClock()
    registry = Registry(RegistrySettings(probe_interval_seconds=0.5), clock)
    tls = Tls(certificate, key, authorities)
    agent = NodeAgent(AgentSettings(node, hub, tls, paths=(path,)), clock, registry)
    async with asyncio.TaskGroup() as group:
        group.create_task(registry.run())
        group.create_task(agent.run())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
