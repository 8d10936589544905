"""Upstream's metrics: names, labels, and what they count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import prometheus_client as prom
import pytest

from adapters.kubernetes import metrics
from adapters.kubernetes.operations import Operations
from adapters.kubernetes.world import World
from bridge.model.failure import ConflictError
from bridge.service.loop import WorkLoop
from tests.support.memory import VirtualClock
from tests.unit.kubernetes import objects as o
from tests.unit.kubernetes import views as v

Labels = dict[str, str]


@pytest.fixture
def registry() -> prom.CollectorRegistry:
    return prom.CollectorRegistry()


def value(registry: prom.CollectorRegistry, metric: str, /, **labels: str) -> float | None:
    return registry.get_sample_value(metric, labels)


def count(
    registry: prom.CollectorRegistry,
    operation: str,
    status: str = "success",
    kind: str = "dynamic",
    *,
    driver: str = o.DRIVER,
) -> float:
    labels = {
        "driver_name": driver,
        "operation_name": operation,
        "snapshot_type": kind,
        "operation_status": status,
    }
    return value(registry, "snapshot_controller_operation_total_seconds_count", **labels) or 0.0


class Stand:
    """A world whose operations are measured."""

    def __init__(self, registry: prom.CollectorRegistry) -> None:
        self.now = 100.0
        self.acting = True
        self.world = World()
        self.world.classes.fold(o.klass())
        self.meters = metrics.UpstreamMetrics(registry)
        operations = Operations(self.world, lambda: self.now, self.meters.operation, lambda: self.acting)
        self.meters.watch_in_flight(operations.in_flight)
        self._version = 10

    def tell(self, item: dict[str, Any], seconds: float = 1.0) -> None:
        self.now += seconds
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self.world.snapshots.fold(item)


def test_a_snapshot_s_way_is_measured(registry: prom.CollectorRegistry) -> None:
    stand = Stand(registry)
    stand.tell(o.snapshot())
    assert value(registry, "snapshot_controller_operations_in_flight") == 2
    cut = v.ready_snapshot()
    cut["status"]["readyToUse"] = False
    stand.tell(cut, 2.0)
    assert (count(registry, "CreateSnapshot"), count(registry, "CreateSnapshotAndReady")) == (1, 0)
    stand.tell(v.ready_snapshot(), 3.0)
    assert (count(registry, "CreateSnapshot"), count(registry, "CreateSnapshotAndReady")) == (1, 1)
    labels = {"driver_name": o.DRIVER, "operation_name": "CreateSnapshotAndReady"}
    labels |= {"snapshot_type": "dynamic", "operation_status": "success"}
    assert value(registry, "snapshot_controller_operation_total_seconds_sum", **labels) == 5.0
    stand.tell(v.ready_snapshot(**v.GONE))
    assert value(registry, "snapshot_controller_operations_in_flight") == 1
    stand.tell(v.ready_snapshot(**v.GONE, **v.FREE))
    assert count(registry, "DeleteSnapshot") == 1
    assert value(registry, "snapshot_controller_operations_in_flight") == 0


def test_one_that_is_deleted_before_it_is_ready_is_cancelled(registry: prom.CollectorRegistry) -> None:
    stand = Stand(registry)
    stand.tell(o.snapshot())
    stand.tell(o.snapshot(**v.GONE))
    stand.tell(o.snapshot(**v.GONE, **v.FREE))
    assert count(registry, "CreateSnapshot", "cancel") == count(registry, "CreateSnapshotAndReady", "cancel") == 1
    assert count(registry, "DeleteSnapshot") == 1


def test_a_deletion_bears_the_driver_that_was_known_when_it_began(registry: prom.CollectorRegistry) -> None:
    """A pre-provisioned snapshot names no class, and its content is gone before it is."""
    stand = Stand(registry)
    old = v.old_content(spec__volumeSnapshotRef__uid=o.UID)
    static = {"spec__source": {"volumeSnapshotContentName": "old"}, "spec__volumeSnapshotClassName": None}
    stand.world.contents.fold(old)
    stand.tell(v.ready_snapshot(**static))
    stand.tell(v.ready_snapshot(**static, **v.GONE))
    stand.world.contents.forget("", "old", old["metadata"]["uid"])
    stand.tell(v.ready_snapshot(**static, **v.GONE, **v.FREE))
    assert count(registry, "DeleteSnapshot", kind="pre-provisioned") == 1


def test_a_driver_that_was_never_known_is_called_so(registry: prom.CollectorRegistry) -> None:
    stand = Stand(registry)
    stand.tell(o.snapshot(spec__volumeSnapshotClassName="none"))
    stand.tell(o.snapshot(spec__volumeSnapshotClassName="none", **v.GONE, **v.FREE))
    assert count(registry, "CreateSnapshot", "cancel", driver="unknown") == 1


def test_what_was_ready_at_the_start_and_what_others_do_is_not_counted(registry: prom.CollectorRegistry) -> None:
    stand = Stand(registry)
    stand.tell(v.ready_snapshot())
    stand.acting = False
    stand.tell(v.ready_snapshot(**v.GONE))
    stand.tell(v.ready_snapshot(**v.GONE, **v.FREE))
    assert count(registry, "CreateSnapshot") == count(registry, "DeleteSnapshot") == 0


@pytest.mark.parametrize("malformed", [{"spec": None}, {"spec__source": "x"}, {"status": {"readyToUse": 1}}])
def test_a_malformed_snapshot_breaks_nothing(registry: prom.CollectorRegistry, malformed: dict[str, Any]) -> None:
    stand = Stand(registry)
    stand.tell(o.snapshot(**malformed))
    stand.tell(o.snapshot(**malformed, **v.GONE))
    stand.tell(o.snapshot(**malformed, **v.GONE, **v.FREE))
    assert value(registry, "snapshot_controller_operations_in_flight") == 0


def test_plugin_calls_bear_go_s_names(registry: prom.CollectorRegistry) -> None:
    meters = metrics.UpstreamMetrics(registry)
    meters.call_ended(o.DRIVER, "CreateSnapshot", "RESOURCE_EXHAUSTED", 0.2)
    labels = {"driver_name": o.DRIVER, "method_name": "/csi.v1.Controller/CreateSnapshot"}
    found = value(registry, "csi_sidecar_operations_seconds_count", **labels, grpc_status_code="ResourceExhausted")
    assert found == 1


def test_drivers_beyond_reason_share_a_series(registry: prom.CollectorRegistry) -> None:
    meters = metrics.UpstreamMetrics(registry)
    for number in range(metrics.DRIVER_LIMIT + 5):
        meters.call_ended(f"driver-{number}", "Probe", "OK", 0.1)
    labels = {"driver_name": "other", "method_name": "/csi.v1.Identity/Probe", "grpc_status_code": "OK"}
    assert value(registry, "csi_sidecar_operations_seconds_count", **labels) == 5


def test_leases(registry: prom.CollectorRegistry) -> None:
    metrics.UpstreamMetrics(registry).watch_leases(lambda: {"snapshot-controller-leader": True, "other": False})
    assert value(registry, "leader_election_master_status", name="snapshot-controller-leader") == 1
    assert value(registry, "leader_election_master_status", name="other") == 0


async def test_a_queue_is_counted(registry: prom.CollectorRegistry) -> None:
    queue = metrics.UpstreamMetrics(registry).queue("snapshot-controller-snapshot")
    seen: list[str] = []
    through = asyncio.Event()

    async def turn(key: str) -> float | None:
        seen.append(key)
        if len(seen) == 1:
            raise ConflictError("once")
        if len(seen) == 3:
            through.set()
        return None

    clock = VirtualClock()
    loop = queue.watched(WorkLoop("it", queue.timed(turn), clock, workers=1))
    for key in ("a", "a", "b"):
        loop.wake(key)
    name = {"name": "snapshot-controller-snapshot"}
    assert value(registry, "workqueue_depth", **name) == 2
    task = asyncio.create_task(loop.run())
    async with asyncio.timeout(30):
        await through.wait()
    task.cancel()
    assert sorted(seen) == ["a", "a", "b"]
    assert value(registry, "workqueue_adds_total", **name) == 3
    assert value(registry, "workqueue_retries_total", **name) == 1
    assert value(registry, "workqueue_queue_duration_seconds_count", **name) == 3
    assert value(registry, "workqueue_work_duration_seconds_count", **name) == 3


async def test_a_turn_that_hangs_is_seen_while_it_hangs(registry: prom.CollectorRegistry) -> None:
    name = {"name": "snapshot-controller-content"}
    queue = metrics.UpstreamMetrics(registry).queue(name["name"])
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def turn(_key: str) -> float | None:
        begun.set()
        await go_on.wait()
        return None

    measured = queue.timed(turn)
    assert value(registry, "workqueue_longest_running_processor_seconds", **name) == 0.0
    running = asyncio.create_task(_through(measured("a")))
    await begun.wait()
    assert (value(registry, "workqueue_unfinished_work_seconds", **name) or 0.0) > 0.0
    assert (value(registry, "workqueue_longest_running_processor_seconds", **name) or 0.0) > 0.0
    go_on.set()
    await running
    assert value(registry, "workqueue_unfinished_work_seconds", **name) == 0.0


async def _through(turn: Awaitable[float | None]) -> None:
    await turn
