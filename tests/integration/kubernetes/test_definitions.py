"""Our own definitions of the six snapshot kinds, held to a real API server and to upstream's rule cases."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.integration.kubernetes import definitions, rule_cases
from tests.integration.kubernetes.rule_cases import KINDS
from tests.support import claims
from tests.support.bed import build, paths
from tests.support.bed.controlplane import ControlPlane

UPSTREAM_CASES = 82
APPROVED = "KubernetesAPIApprovalPolicyConformant"


@pytest.fixture
def plane(control_plane: ControlPlane) -> ControlPlane:
    definitions.install(control_plane)
    return control_plane


def test_the_server_takes_all_six_kinds_as_approved_and_established(plane: ControlPlane) -> None:
    claims.until("the approval is judged", lambda: all(APPROVED in _conditions(plane, kind) for kind in KINDS))
    for kind in KINDS:
        conditions = _conditions(plane, kind)
        assert conditions["Established"] == "True", kind
        assert conditions["NamesAccepted"] == "True", kind
        assert conditions[APPROVED] == "True", kind
        assert conditions.get("NonStructuralSchema", "False") == "False", kind


def _conditions(plane: ControlPlane, kind: str) -> dict[str, str]:
    """What the API server's own controllers have said so far, each when it comes to it."""
    version, plural, _ = KINDS[kind]
    name = f"{plural}.{version.partition('/')[0]}"
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    status, body = plane.admin.request("GET", path)
    assert status == 200, body
    return {one["type"]: one["status"] for one in json.loads(body)["status"]["conditions"]}


def test_columns_short_names_and_versions_are_upstreams(plane: ControlPlane) -> None:
    folder = build.snapshotter_client_module() / "config" / "crd"
    found = {item["metadata"]["name"]: item for item in plane.admin.get("crd")["items"]}
    upstream = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*snapshot.storage*.yaml"))]
    assert len(upstream) == 6
    for theirs in upstream:
        ours = found[theirs["metadata"]["name"]]
        assert ours["spec"]["scope"] == theirs["spec"]["scope"]
        for field in ("kind", "listKind", "plural", "singular", "shortNames"):
            assert ours["spec"]["names"][field] == theirs["spec"]["names"][field]
        wanted = [one for one in theirs["spec"]["versions"] if one["served"] and not one.get("deprecated")]
        have = {one["name"]: one for one in ours["spec"]["versions"]}
        assert set(have) == {one["name"] for one in wanted}
        for version in wanted:
            mine = have[version["name"]]
            assert mine["storage"] == version["storage"]
            assert bool(mine.get("subresources")) == bool(version.get("subresources"))
            assert _columns(mine) == _columns(version)
            assert _shape(mine["schema"]["openAPIV3Schema"]) == _shape(version["schema"]["openAPIV3Schema"])


def test_upstreams_rule_cases_hold_with_the_same_messages(plane: ControlPlane) -> None:
    failures, tried = rule_cases.failures(plane)
    assert not failures, "\n".join(failures)
    assert tried >= UPSTREAM_CASES


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described_in_our_own_words(kind: str) -> None:
    texts = " ".join(path.read_text() for path in (paths.REPOSITORY / "configs/kubernetes/crds").glob("*.yaml"))
    folder = build.snapshotter_client_module() / "config" / "crd"
    for path in folder.glob("*snapshot.storage*.yaml"):
        document = yaml.safe_load(path.read_text())
        if document["spec"]["names"]["kind"] != kind:
            continue
        copied = [text for text in _descriptions(document) if len(text) > 40 and text in texts]
        assert not copied


def _columns(version: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["name"], one["type"], one["jsonPath"]) for one in version.get("additionalPrinterColumns", [])]


def _shape(schema: dict[str, Any]) -> dict[str, Any]:
    """Types, requirements and messages, without wording; a quantity may be spelt with or without a pattern."""
    kept = {field: schema[field] for field in ("type", "format", "enum", "minimum") if field in schema}
    if schema.get("x-kubernetes-int-or-string"):
        kept["type"] = "int-or-string"
    kept["required"] = sorted(schema.get("required", []))
    kept["messages"] = sorted(rule["message"] for rule in schema.get("x-kubernetes-validations", []))
    kept["properties"] = {name: _shape(inner) for name, inner in schema.get("properties", {}).items()}
    if "items" in schema:
        kept["items"] = _shape(schema["items"])
    if kept.get("type") == "string" and "x-kubernetes-int-or-string" in schema:
        kept["type"] = "int-or-string"
    return kept


def _descriptions(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["description"]] if isinstance(node.get("description"), str) else []
        return own + [text for value in node.values() for text in _descriptions(value)]
    if isinstance(node, list):
        return [text for value in node for text in _descriptions(value)]
    return []
