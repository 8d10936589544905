"""Upstream's metrics under upstream's names and labels, so that dashboards and alerts go on working.

It records and counts; it decides nothing. Ours, with `snapbridge_` names, stand beside them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import prometheus_client as prom
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from bridge.model.failure import BridgeError, ElsewhereError
from bridge.ports.loop import Loop, Turn

OPERATION_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
CALL_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0)
QUEUE_SECONDS = tuple(10.0**power for power in range(-8, 4))
OTHER = "other"
DRIVER_LIMIT = 64

_SERVICES = {
    "Identity": ("GetPluginInfo", "GetPluginCapabilities", "Probe"),
    "GroupController": (
        "GroupControllerGetCapabilities",
        "CreateVolumeGroupSnapshot",
        "DeleteVolumeGroupSnapshot",
        "GetVolumeGroupSnapshot",
    ),
    "SnapshotMetadata": ("GetMetadataAllocated", "GetMetadataDelta"),
}
_METHODS = {method: f"/csi.v1.{service}/{method}" for service, methods in _SERVICES.items() for method in methods}
_CODES = {"OK": "OK", "CANCELLED": "Canceled"}


class UpstreamMetrics:
    """What snapshot-controller and csi-snapshotter measure. Make one per process and registry."""

    def __init__(self, registry: prom.CollectorRegistry) -> None:
        self._registry = registry
        self._operations: prom.Histogram | None = None
        self._calls: prom.Histogram | None = None
        self._queues: _QueueMeters | None = None
        self._drivers: set[str] = set()

    def operation(self, driver: str, operation: str, kind: str, status: str, seconds: float) -> None:
        """One has ended: `operation` as CreateSnapshot, `kind` dynamic or pre-provisioned, `status` success …"""
        if self._operations is None:
            self._operations = prom.Histogram(
                "snapshot_controller_operation_total_seconds",
                "From the first sight of a request to its end.",
                ("driver_name", "operation_name", "snapshot_type", "operation_status"),
                buckets=OPERATION_SECONDS,
                registry=self._registry,
            )
        self._operations.labels(self._bounded(driver), operation, kind, status).observe(max(seconds, 0.0))

    def watch_in_flight(self, count: Callable[[], int]) -> None:
        """Read the number of operations under way here at a scrape."""
        name = "snapshot_controller_operations_in_flight"
        prom.Gauge(name, "Operations under way.", registry=self._registry).set_function(count)

    def call_ended(self, driver: str, method: str, code: str, seconds: float) -> None:
        """One plugin call has ended: a listener for `RoleSurroundings.on_call`."""
        if self._calls is None:
            self._calls = prom.Histogram(
                "csi_sidecar_operations_seconds",
                "CSI calls.",
                ("driver_name", "method_name", "grpc_status_code"),
                buckets=CALL_SECONDS,
                registry=self._registry,
            )
        self._calls.labels(self._bounded(driver), method_name(method), code_name(code)).observe(seconds)

    def watch_leases(self, held: Callable[[], Mapping[str, bool]]) -> None:
        """Read at a scrape which leases (by name) are ours."""
        self._registry.register(_Leases(held))

    def queue(self, name: str) -> Queue:
        """The meters of one work queue, by upstream's name for it."""
        if self._queues is None:
            self._queues = _QueueMeters(self._registry)
        return Queue(name, self._queues)

    def _bounded(self, driver: str) -> str:
        """A driver's name comes from objects that anybody may make: not every one becomes a series."""
        if driver not in self._drivers and len(self._drivers) >= DRIVER_LIMIT:
            return OTHER
        self._drivers.add(driver)
        return driver


def method_name(method: str) -> str:
    """A CSI method as gRPC calls it in full.

    >>> method_name("CreateSnapshot"), method_name("Probe")
    ('/csi.v1.Controller/CreateSnapshot', '/csi.v1.Identity/Probe')
    """
    if "/" in method:
        return method
    return _METHODS.get(method) or f"/csi.v1.{'Node' if method.startswith('Node') else 'Controller'}/{method}"


def code_name(code: str) -> str:
    """A gRPC code as Go spells it.

    >>> code_name("DEADLINE_EXCEEDED"), code_name("OK"), code_name("CANCELLED")
    ('DeadlineExceeded', 'OK', 'Canceled')
    """
    return _CODES.get(code) or "".join(word.capitalize() for word in code.split("_"))


class Queue:
    """One queue's figures. Put `timed` around its turn and `watched` around its loop."""

    def __init__(self, name: str, meters: _QueueMeters) -> None:
        self.meters = meters
        self.name = name
        self.waiting: dict[str, float] = {}
        """Key -> when it was added."""
        self.running: dict[str, float] = {}
        """Key -> when its turn began: what shows at a scrape that one hangs."""
        meters.of(name).watch(self._seconds_under_way)

    def _seconds_under_way(self) -> list[float]:
        now = time.perf_counter()
        return [now - began for began in self.running.values()]

    def timed(self, turn: Turn) -> Turn:
        """The same turn, measured."""
        meters, instant = self.meters.of(self.name), time.perf_counter

        async def measured(key: str) -> float | None:
            began = instant()
            added = self.waiting.pop(key, None)
            if added is None:
                meters.adds.inc()  # It came back by itself, after a delay.
            meters.waited.observe(began - (added if added is not None else began))
            self.running[key] = began
            try:
                return await turn(key)
            except ElsewhereError:
                raise
            except BridgeError:
                meters.retries.inc()
                raise
            finally:
                self.running.pop(key, None)
                meters.worked.observe(instant() - began)

        return measured

    def watched(self, loop: Loop) -> Loop:
        """The same loop, counted."""
        meters = self.meters.of(self.name)
        meters.depth.set_function(lambda: loop.depth)
        return _Watched(loop, self, meters)


class _Watched:
    """A loop that counts what is added. Implements bridge.ports.loop.Loop."""

    def __init__(self, loop: Loop, queue: Queue, meters: _Series) -> None:
        self._loop = loop
        self._queue = queue
        self._meters = meters

    def wake(self, key: str) -> None:
        if key not in self._queue.waiting:
            self._queue.waiting[key] = time.perf_counter()
            self._meters.adds.inc()
        self._loop.wake(key)

    def wake_after(self, key: str, seconds: float) -> None:
        self._loop.wake_after(key, seconds)

    @property
    def idle(self) -> bool:
        return self._loop.idle

    @property
    def depth(self) -> int:
        return self._loop.depth

    async def run(self) -> None:
        await self._loop.run()

    async def drain(self, seconds: float) -> None:
        await self._loop.drain(seconds)


class _Series:
    """One queue's children of the metrics."""

    def __init__(self, name: str, meters: _QueueMeters) -> None:
        self.depth = meters.depth.labels(name)
        self.adds = meters.adds.labels(name)
        self.retries = meters.retries.labels(name)
        self.waited = meters.waited.labels(name)
        self.worked = meters.worked.labels(name)
        self._unfinished = meters.unfinished.labels(name)
        self._longest = meters.longest.labels(name)

    def watch(self, seconds: Callable[[], list[float]]) -> None:
        """Read at a scrape for how long each turn has been under way."""
        self._unfinished.set_function(lambda: sum(seconds()))
        self._longest.set_function(lambda: max(seconds(), default=0.0))


class _QueueMeters:
    """The Go client's names."""

    def __init__(self, registry: prom.CollectorRegistry) -> None:
        label = ("name",)
        self.depth = prom.Gauge("workqueue_depth", "Keys that wait for a worker.", label, registry=registry)
        self.adds = prom.Counter("workqueue_adds", "Keys added.", label, registry=registry)
        self.retries = prom.Counter("workqueue_retries", "Turns that failed.", label, registry=registry)
        self.waited = self._seconds("workqueue_queue_duration_seconds", "From adding to the turn.", registry)
        self.worked = self._seconds("workqueue_work_duration_seconds", "One turn.", registry)
        under_way = "Seconds that turns have been under way: in sum."
        self.unfinished = prom.Gauge("workqueue_unfinished_work_seconds", under_way, label, registry=registry)
        longest = "workqueue_longest_running_processor_seconds"
        self.longest = prom.Gauge(
            longest, "Seconds that the longest turn has been under way.", label, registry=registry
        )

    def of(self, name: str) -> _Series:
        """The series of one queue."""
        return _Series(name, self)

    @staticmethod
    def _seconds(name: str, meaning: str, registry: prom.CollectorRegistry) -> prom.Histogram:
        return prom.Histogram(name, meaning, ("name",), buckets=QUEUE_SECONDS, registry=registry)


class _Leases(Collector):
    def __init__(self, held: Callable[[], Mapping[str, bool]]) -> None:
        self._held = held

    def collect(self) -> Iterable[Any]:
        """1 for a lease that is ours."""
        family = GaugeMetricFamily("leader_election_master_status", "Whether the lease is ours.", labels=["name"])
        for name, ours in self._held().items():
            family.add_metric([name], float(ours))
        yield family
