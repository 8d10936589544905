"""A write that is spared, and what stands in for it: upstream's mark comes late."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from adapters.kubernetes import names
from bridge.model.outcome import Outcome
from bridge.model.snapshot import CutSnapshot
from tests.integration.kubernetes import stand as stands
from tests.integration.kubernetes.test_snapshots import of
from tests.support.bed.controlplane import ControlPlane
from tests.support.memory import MemoryPlugin


class Slow(MemoryPlugin):
    """A plugin that cuts when it is told to."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.go = asyncio.Event()
        self.creates = 0

    async def create_snapshot(
        self, *, name: str, volume_handle: str, parameters: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Outcome[CutSnapshot]:
        self.creates += 1
        await self.go.wait()
        return await super().create_snapshot(
            name=name, volume_handle=volume_handle, parameters=parameters, secrets=secrets
        )


async def test_a_long_create_carries_upstreams_mark_and_is_not_repeated_for_it(
    control_plane: ControlPlane, namespace: str
) -> None:
    """Upstream's sidecar, started in our place, would wait for the outcome of a content with this mark."""
    given = stands.memory()
    plugin = Slow(given.script, given.clock, driver=given.driver)
    async with stands.running(control_plane, plugin=plugin) as stand:
        await stand.klass(f"{namespace}-c")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))

        def content() -> dict[str, Any] | None:
            own = [item for item in stand.cluster.world.contents.all() if _of(item, namespace)]
            return own[0] if own else None

        def marked() -> bool:
            return names.BEING_CREATED in (of(content(), "metadata", "annotations") or {})

        await stand.until_known(content)
        assert not marked()
        await stand.until_known(marked)
        plugin.go.set()
        await stand.until_ready(namespace, "one")
        await stand.until_known(lambda: not marked())
        await stand.settle()
        assert plugin.creates == 1


def _of(content: dict[str, Any], namespace: str) -> bool:
    return bool(content["spec"]["volumeSnapshotRef"]["namespace"] == namespace)
