"""The cluster half under the rights that upstream's manifests give: only the image and the command change."""

from __future__ import annotations

import asyncio
import json

from adapters.kubernetes import names
from tests.integration.kubernetes.controller import stand as stands
from tests.integration.kubernetes.stand import snapshot_object
from tests.support.bed.controlplane import ControlPlane

READ = ["get", "list", "watch"]
RIGHTS = [
    ("", ["persistentvolumes"], READ),
    ("", ["persistentvolumeclaims"], [*READ, "update"]),
    ("", ["events"], ["list", "watch", "create", "update", "patch"]),
    (names.GROUP, ["volumesnapshotclasses"], READ),
    (names.GROUP, ["volumesnapshotcontents"], [*READ, "create", "update", "delete", "patch"]),
    (names.GROUP, ["volumesnapshotcontents/status"], ["patch"]),
    (names.GROUP, ["volumesnapshots"], [*READ, "update", "patch"]),
    (names.GROUP, ["volumesnapshots/status"], ["update", "patch"]),
]
"""What 8.6 grants beyond its groups; no `patch` of claims, and no lease of another namespace."""


async def test_a_snapshot_s_life(control_plane: ControlPlane, namespace: str) -> None:
    rules = [{"apiGroups": [group], "resources": kinds, "verbs": verbs} for group, kinds, verbs in RIGHTS]
    account, role = {"name": "upstream", "namespace": namespace}, f"{namespace}-upstream"
    version = "rbac.authorization.k8s.io/v1"
    objects = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": role}, "rules": rules},
        {
            "apiVersion": version,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role},
            "subjects": [{"kind": "ServiceAccount", **account}],
            "roleRef": {"apiGroup": version.split("/")[0], "kind": "ClusterRole", "name": role},
        },
    ]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    way = await asyncio.to_thread(control_plane.service_account, account["name"], namespace=namespace, manifests=text)
    async with stands.running(control_plane, kubeconfig=way.kubeconfig) as stand:
        await stand.prepare(namespace)
        await stand.apply(snapshot_object(namespace, "one", namespace, claim="data"))
        await stand.ready(namespace)
        await stand.until(lambda: not stand.claim_is_held(namespace))
        assert stand.half.ready() == ""
        updates = [where for method, where in stand.client.writes if method == "PUT" and "/persistentvolume" in where]
        assert len(updates) == 2, "held and let go"
        await stand.delete(names.SNAPSHOTS, namespace, "one")
        await stand.gone(namespace)
        assert stand.driver_half.cuts == {}
        claim = await asyncio.to_thread(stand.plane.admin.get, "pvc", "data", "-n", namespace)
        assert claim["spec"]["resources"] == {"requests": {"storage": "64Mi"}}, "written whole, as it was"
