"""Metrics: names, labels that stay bounded, and series that go when their subject goes."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from bridge.app.metrics import DRIVER_LIMIT, Metrics, Sources
from bridge.csi.trace import CallEnded
from bridge.model.node import Node
from bridge.model.plugin import InstanceId, PluginDescription, Route
from bridge.model.view import ClusterView


def _series(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    metrics.look()
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return _series(metrics).get((name, tuple(sorted(labels.items()))))


def test_what_happens_is_counted():
    metrics = Metrics()
    metrics.operation_ended("create", "done")
    metrics.orphan_possible()
    metrics.phase_ended("cut", 0.2)
    metrics.request(method="GET", route="/v1/snapshots", status=200, seconds=0.01)
    metrics.call_ended(CallEnded("CreateSnapshot", "d", "controller", "i", "OK", 0.5))
    assert _value(metrics, "snapbridge_snapshot_operations_total", op="create", result="done") == 1
    assert _value(metrics, "snapbridge_orphan_possible_total") == 1
    assert _value(metrics, "snapbridge_snapshot_phase_duration_seconds_count", phase="cut") == 1
    labels = {"driver": "d", "method": "CreateSnapshot", "code": "OK"}
    assert _value(metrics, "snapbridge_plugin_rpc_duration_seconds_sum", **labels) == 0.5
    labels = {"method": "GET", "route": "/v1/snapshots", "status": "200"}
    assert _value(metrics, "snapbridge_http_requests_total", **labels) == 1


def test_what_is_gone_has_no_series():
    metrics = Metrics()
    found = [PluginDescription(InstanceId("d", "controller", "i"), Route.SOCKET, "unix:/x", True, "", in_flight=3)]
    metrics.watch(
        Sources(
            plugins=lambda: found,
            nodes=lambda: [Node("n1", False)],
            clusters=lambda: [ClusterView("east", "standalone")],
            queue_depth=lambda: 7,
        )
    )
    labels = {"driver": "d", "role": "controller", "instance": "i"}
    assert _value(metrics, "snapbridge_plugin_up", **labels) == 1
    assert _value(metrics, "snapbridge_plugin_inflight", **labels) == 3
    assert _value(metrics, "snapbridge_node_up", node="n1") == 0
    assert _value(metrics, "snapbridge_cluster_ready", cluster="east", orchestrator="standalone") == 1
    assert _value(metrics, "snapbridge_queue_depth") == 7
    found.clear()
    assert _value(metrics, "snapbridge_plugin_up", **labels) is None


def test_drivers_cannot_blow_up_the_labels():
    metrics = Metrics()
    for number in range(DRIVER_LIMIT + 50):
        metrics.call_ended(CallEnded("Probe", f"d{number}", "controller", "i", "OK", 0.1))
    name = "snapbridge_plugin_rpc_duration_seconds_count"
    assert len([key for key in _series(metrics) if key[0] == name]) == DRIVER_LIMIT + 1
    assert _value(metrics, name, driver="other", method="Probe", code="OK") == 50


def test_every_name_has_the_prefix_or_is_the_process_own():
    names = {name for name, _ in _series(Metrics())}
    assert all(name.startswith(("snapbridge_", "process_", "python_")) for name in names)
