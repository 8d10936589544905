"""The overlays of configs/kubernetes: rendered by kubectl, taken by a real API server, and hardened alike."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from adapters.catalog import Catalog
from bridge.ports.role import RolePlan
from tests.support import manifests
from tests.support.bed.controlplane import ControlPlane

OVERLAYS = manifests.overlays()
AS_ROOT = {"all", "sidecar", "provisioner", "registrar"}
"""Roles that open the sockets or directories of others, who are root."""


def containers(overlay: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(pod spec, container) of every container of ours."""
    found = []
    for one in manifests.rendered(overlay, "Deployment", "DaemonSet"):
        spec = one["spec"]["template"]["spec"]
        found += [(spec, each) for each in spec["containers"] if each["image"].startswith("snapbridge:")]
    assert found
    return found


def test_all_overlays_are_looked_at() -> None:
    assert OVERLAYS == ["central", "distributed", "merged", "node", "provisioner", "sidecar"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_real_api_server_takes_it(control_plane: ControlPlane, overlay: str) -> None:
    spaces = manifests.rendered(overlay, "Namespace")
    control_plane.admin.apply(spaces)
    others = [one for one in manifests.rendered(overlay) if one["kind"] != "Namespace"]
    words = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    control_plane.kubectl(*words, stdin=manifests.as_list([*others, *pods(overlay)]))


def pods(overlay: str) -> list[dict[str, Any]]:
    """What its workloads would make: the level of the namespace is enforced on these only."""
    found = []
    for one in manifests.rendered(overlay, "Deployment", "DaemonSet"):
        metadata = {"name": one["metadata"]["name"], "namespace": one["metadata"]["namespace"]}
        found.append(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": one["spec"]["template"]["spec"]}
        )
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_deleting_it_can_never_take_the_kinds_and_with_them_every_snapshot(overlay: str) -> None:
    assert manifests.rendered(overlay, "CustomResourceDefinition") == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_its_command_lines_are_good(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "n1")
    for _, container in containers(overlay):
        program, kind, name = container["command"]
        assert (program, kind) == ("snapbridge", "kubernetes")
        assert container["image"] == "snapbridge:VERSION"
        plan = Catalog().roles(kind).plan(name, container["args"])
        assert isinstance(plan, RolePlan)
        (port,) = container["ports"]
        assert plan.http_address == f":{port['containerPort']}"
        probes = [container[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe")]
        assert {probe["port"] for probe in probes} == {port["name"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_container_may_as_little_as_it_can(overlay: str) -> None:
    for spec, container in containers(overlay):
        role = container["command"][-1]
        pod, own = spec.get("securityContext", {}), container["securityContext"]
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        user = own.get("runAsUser", pod.get("runAsUser"))
        assert user == (0 if role in AS_ROOT else 65532)
        assert role in AS_ROOT or pod["runAsNonRoot"] is True
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert set(container["resources"]["limits"]) == {"memory"}, "a processor's limit only makes it slow"
        mounts = {mount["name"] for mount in container.get("volumeMounts", ())}
        assert mounts <= {volume["name"] for volume in spec.get("volumes", ())}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_replicas_are_not_taken_all_at_once(overlay: str) -> None:
    budgets = [one["spec"]["selector"]["matchLabels"] for one in manifests.rendered(overlay, "PodDisruptionBudget")]
    for one in manifests.rendered(overlay, "Deployment"):
        if one["spec"]["replicas"] > 1:
            assert one["spec"]["selector"]["matchLabels"] in budgets


def test_every_file_is_used() -> None:
    used: set[str] = set()
    for path in manifests.OVERLAYS.parent.rglob("kustomization.yaml"):
        content = yaml.safe_load(path.read_text())
        named = [*content.get("resources", ()), *(one.get("path", "") for one in content.get("patches", ()))]
        used |= {str((path.parent / name).resolve()) for name in named if name.endswith(".yaml")}
    folders = ("base", "overlays", "components", "examples")
    files = [path for folder in folders for path in (manifests.OVERLAYS.parent / folder).rglob("*.yaml")]
    assert {str(path) for path in files if path.name != "kustomization.yaml"} <= used
