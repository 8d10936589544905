"""Metrics: one registry, names with `snapbridge_`, bounded labels; never a label per snapshot.

What happens is counted where it happens, through the methods here; what is (plugins, nodes, the queue) is read
at the scrape, so that what is gone has no series.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Iterable, Sequence

import prometheus_client as prom
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import bridge
from bridge.csi.trace import CallEnded
from bridge.model.node import Node
from bridge.model.plugin import PluginDescription
from bridge.model.view import ClusterView

RPC_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
PHASE_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
HTTP_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.5, 10.0, 60.0)
DRIVER_LIMIT = 64
OTHER = "other"


def _no_plugins() -> Sequence[PluginDescription]:
    return ()


def _no_nodes() -> Sequence[Node]:
    return ()


def _no_clusters() -> Sequence[ClusterView]:
    return ()


def _no_depth() -> int:
    return 0


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """Where the present state is read at a scrape. Called on the loop; each must answer from memory."""

    plugins: Callable[[], Sequence[PluginDescription]] = _no_plugins
    nodes: Callable[[], Sequence[Node]] = _no_nodes
    clusters: Callable[[], Sequence[ClusterView]] = _no_clusters
    queue_depth: Callable[[], int] = _no_depth


class Metrics:
    """All of the service's series. Satisfies the API's `Measures`; `call_ended` is a listener of a CSI tracer."""

    def __init__(self) -> None:
        self.registry = prom.CollectorRegistry()
        prom.ProcessCollector(registry=self.registry)
        prom.GCCollector(registry=self.registry)
        self._present = _Present()
        self.registry.register(self._present)
        self._drivers: set[str] = set()
        self._make()

    def _make(self) -> None:
        registry = self.registry
        build = prom.Gauge("snapbridge_build_info", "What runs here.", ("version", "python"), registry=registry)
        build.labels(bridge.__version__, platform.python_version()).set(1)
        self._operations = prom.Counter(
            "snapbridge_snapshot_operations_total", "Ended operations.", ("op", "result"), registry=registry
        )
        self._phases = prom.Histogram(
            "snapbridge_snapshot_phase_duration_seconds",
            "From the request to the cut, and to ready.",
            ("phase",),
            buckets=PHASE_BUCKETS,
            registry=registry,
        )
        self._orphans = prom.Counter(
            "snapbridge_orphan_possible_total",
            "Snapshots released although their create could not be settled.",
            registry=registry,
        )
        self._rpc = prom.Histogram(
            "snapbridge_plugin_rpc_duration_seconds",
            "CSI calls, with the wait for a slot.",
            ("driver", "method", "code"),
            buckets=RPC_BUCKETS,
            registry=registry,
        )
        self._requests = prom.Counter(
            "snapbridge_http_requests_total", "Answered requests.", ("method", "route", "status"), registry=registry
        )
        self._request_seconds = prom.Histogram(
            "snapbridge_http_request_duration_seconds",
            "From the request's head to its answer.",
            ("method", "route"),
            buckets=HTTP_BUCKETS,
            registry=registry,
        )

    def watch(self, sources: Sources) -> None:
        """Say where the present state is read from now on."""
        self._present.sources = sources

    def call_ended(self, ended: CallEnded) -> None:
        """Record one CSI call."""
        driver = self._bounded(ended.driver)
        self._rpc.labels(driver, ended.method, ended.code).observe(ended.seconds)

    def operation_ended(self, op: str, result: str) -> None:
        """Count one ended operation: `op` is its verb, `result` done or failed."""
        self._operations.labels(op, result).inc()

    def phase_ended(self, phase: str, seconds: float) -> None:
        """Record how long it took from the request to `phase`: cut or ready."""
        self._phases.labels(phase).observe(max(seconds, 0.0))

    def orphan_possible(self) -> None:
        """Count one snapshot that may have been left on a backend."""
        self._orphans.inc()

    def request(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered HTTP request."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    @property
    def content_type(self) -> str:
        """Of the text format."""
        return prom.CONTENT_TYPE_LATEST

    def look(self) -> None:
        """Read the present state. On the loop, before `exposition`."""
        self._present.look()

    def exposition(self) -> bytes:
        """All series as text; thread-safe."""
        return prom.generate_latest(self.registry)

    def _bounded(self, driver: str) -> str:
        if driver not in self._drivers:
            if len(self._drivers) >= DRIVER_LIMIT:
                return OTHER
            self._drivers.add(driver)
        return driver


class _Present(Collector):
    """Gauges of what is, as it was at the last look."""

    def __init__(self) -> None:
        self.sources = Sources()
        self._families: tuple[GaugeMetricFamily, ...] = ()

    def look(self) -> None:
        plugins, sources = self.sources.plugins(), self.sources
        ids = ("driver", "role", "instance")
        up = GaugeMetricFamily("snapbridge_plugin_up", "Whether the instance is healthy.", labels=ids)
        busy = GaugeMetricFamily("snapbridge_plugin_inflight", "Calls under way.", labels=ids)
        for plugin in plugins:
            labels = (plugin.id.driver, plugin.id.role, plugin.id.instance)
            up.add_metric(labels, float(plugin.healthy))
            busy.add_metric(labels, plugin.in_flight)
        nodes = GaugeMetricFamily("snapbridge_node_up", "Whether the node agent is connected.", labels=("node",))
        for node in sources.nodes():
            nodes.add_metric((node.name,), float(node.connected))
        clusters = GaugeMetricFamily(
            "snapbridge_cluster_ready", "Whether its view is complete.", labels=("cluster", "orchestrator")
        )
        for cluster in sources.clusters():
            clusters.add_metric((cluster.name, cluster.kind), float(not cluster.sentence))
        depth = GaugeMetricFamily("snapbridge_queue_depth", "Keys that wait for a pass.", value=sources.queue_depth())
        self._families = (up, busy, nodes, clusters, depth)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        return self._families
