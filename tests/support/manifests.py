"""The manifests in configs/kubernetes as kubectl renders them, what they grant, and how they fit the bed's node."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tests.support import claims, httpproxy
from tests.support.bed import access, node, paths

Object = dict[str, Any]
Right = tuple[str, str]
"""(verb, resource), as a rule names them."""

OVERLAYS = paths.REPOSITORY / "configs/kubernetes/overlays"
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_TOKENS = "/var/run/secrets/kubernetes.io/serviceaccount"
_RBAC = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")


def overlays() -> list[str]:
    """The overlays that there are."""
    return sorted(path.parent.name for path in OVERLAYS.glob("*/kustomization.yaml"))


@functools.cache
def text(overlay: str) -> str:
    """What `kubectl kustomize` makes of an overlay."""
    nowhere = access.Access("", "", paths.REPOSITORY, paths.REPOSITORY / "no-kubeconfig-is-needed")
    return nowhere.kubectl("kustomize", str(OVERLAYS / overlay))


def rendered(overlay: str, *kinds: str) -> list[Object]:
    """Its objects, of these kinds or of all."""
    found = [one for one in yaml.safe_load_all(text(overlay)) if one]
    return [one for one in found if not kinds or one["kind"] in kinds]


def rbac(overlay: str) -> list[Object]:
    """Its service accounts, roles and bindings."""
    return rendered(overlay, *_RBAC)


def granted(objects: Sequence[Mapping[str, Any]]) -> set[Right]:
    """What the rules allow, wherever they hold."""
    rules = [rule for one in objects if one["kind"] in ("ClusterRole", "Role") for rule in one["rules"]]
    return {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}


def until_granted(account: access.Access, objects: Sequence[Mapping[str, Any]]) -> None:
    """Wait until the API server grants an account all of this: it hears of roles and bindings a moment later."""

    def holds() -> bool:
        path, body = (
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            {"spec": {"namespace": account.namespace}},
        )
        status, answer = account.request("POST", path, body)
        rules = json.loads(answer)["status"]["resourceRules"] if status == 201 else ()
        have = {(verb, one) for rule in rules for verb in rule["verbs"] for one in rule.get("resources", ())}
        return granted(objects) <= have

    claims.until(f"{account.namespace} has its rights", holds)


def asked(answer: httpproxy.Answer) -> Right:
    """A request as RBAC sees it."""
    parts = answer.path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    parts = parts[2:] if parts[0] == "namespaces" and len(parts) > 2 else parts
    resource = "/".join((parts[0], *parts[2:]))
    read = "watch" if answer.watch else "get" if len(parts) > 1 else "list"
    return VERBS.get(answer.method, read), resource


def fitted(
    workload: Mapping[str, Any], place: node.Node, image: str, *, env: Mapping[str, str] | None = None
) -> Object:
    """A Deployment or DaemonSet as this node can run it: no scheduler, no pod network, no admission of accounts.

    Probes and pages stay on loopback. The token and the authority are mounted as a cluster's admission would.
    """
    made: Object = copy.deepcopy(dict(workload))
    spec = made["spec"]["template"]["spec"]
    host, _, port = place.plane.url.removeprefix("https://").partition(":")
    address = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, **(env or {})}
    if "serviceAccountName" in spec:
        spec.setdefault("volumes", []).append(_token_volume())
    for container in spec["containers"]:
        container["image"] = image
        container.setdefault("env", []).extend({"name": name, "value": value} for name, value in address.items())
        if "serviceAccountName" in spec:
            mount = {"name": "service-account", "mountPath": _TOKENS, "readOnly": True}
            container.setdefault("volumeMounts", []).append(mount)
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            if "httpGet" in container.get(probe, {}):
                container[probe]["httpGet"]["host"] = "127.0.0.1"
    node.complete_template(spec, place.name)
    return made


def on_port(container: Object, port: int) -> None:
    """Serve its pages on a free port of loopback: all pods of the bed's node share one network."""
    container["args"] = [
        f"--http-endpoint=127.0.0.1:{port}" if word.startswith("--http-endpoint") else word
        for word in container["args"]
    ]
    container.pop("ports", None)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if "httpGet" in container.get(probe, {}):
            container[probe]["httpGet"]["port"] = port


def _token_volume() -> Object:
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"name": "service-account", "projected": {"sources": sources}}


def as_list(objects: Sequence[Mapping[str, Any]]) -> str:
    """For `kubectl apply -f -`."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
