"""`snapbridge kubernetes provisioner` with a real API server, controller manager and driver."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support import claims, localdisk, provisioning, role
from tests.support.bed import access, controlplane
from tests.support.provisioning import claim, from_claim, from_snapshot, storage_class, until_bound

CLASS, LATE, ELSEWHERE = "fast", "late", "elsewhere"
NODE, OTHER = "place-1", "place-2"
KEY = f"{localdisk.NAME}/node"
LATE_BINDING = {"volumeBindingMode": "WaitForFirstConsumer"}


@pytest.fixture(scope="module")
def admin(control_plane: controlplane.ControlPlane) -> access.Access:
    return control_plane.admin


@pytest.fixture(scope="module")
def driver(admin: access.Access) -> Iterator[localdisk.LocalDisk]:
    allowed = [{"matchLabelExpressions": [{"key": KEY, "values": [OTHER]}]}]
    with localdisk.start_localdisk(node_id=NODE) as running:
        claims.install(admin, localdisk.NAME)
        for name in (NODE, OTHER):
            provisioning.place(admin, name, localdisk.NAME, KEY)
        admin.apply(storage_class(CLASS))
        admin.apply(storage_class(LATE, **LATE_BINDING))
        admin.apply(storage_class(ELSEWHERE, **LATE_BINDING, allowedTopologies=allowed))
        yield running
        admin.kubectl("delete", "storageclass", CLASS, LATE, ELSEWHERE)
        admin.kubectl("delete", "node,csinode", NODE, OTHER)


@pytest.fixture(scope="module")
def roles(control_plane: controlplane.ControlPlane, driver: localdisk.LocalDisk) -> Iterator[role.Role]:
    """The provisioner under upstream's rules, and beside it the snapshots' role on the same socket."""
    account = control_plane.service_account("csi-provisioner", provisioning.UPSTREAM_RULES)
    address, config = f"--csi-address={driver.socket}", control_plane.kubeconfig
    with (
        role.role("all", address, "--leader-election=false", kubeconfig=config),
        role.role("provisioner", address, *provisioning.FAST, kubeconfig=account.kubeconfig) as running,
    ):
        yield running
        refused = [line for line in running.log.read_text().splitlines() if "orbidden" in line]
        # Upstream's rules let it see no leases of others: it says so once and goes on.
        assert not [line for line in refused if "leases may not be read" not in line]


@pytest.fixture
def handle(admin: access.Access, driver: localdisk.LocalDisk, roles: role.Role, namespace: str) -> str:
    """The volume of the claim `data`, of which the VolumeSnapshot `monday` is ready; its file was spoilt since."""
    admin.apply(claim(namespace, "data", CLASS))
    found: str = until_bound(admin, namespace, "data")["spec"]["csi"]["volumeHandle"]
    mounted = driver.publish(found)
    (mounted / "note.txt").write_text("kept")
    admin.apply(claims.snapshot(namespace, "monday", "data"))
    claims.until("ready", lambda: claims.is_ready(admin, namespace, "monday"))
    (mounted / "note.txt").write_text("spoilt")
    driver.withdraw(found, mounted)
    return found


def restored(driver: localdisk.LocalDisk, volume: provisioning.Object) -> str:
    """What the note says in a volume."""
    handle = volume["spec"]["csi"]["volumeHandle"]
    mounted = driver.publish(handle)
    text = (mounted / "note.txt").read_text()
    driver.withdraw(handle, mounted)
    return text


def held(admin: access.Access, namespace: str) -> bool:
    return provisioning.RESTORE in provisioning.finalizers(provisioning.snapshot_now(admin, namespace, "monday"))


def test_five_restores_share_one_snapshot_and_leave_nothing(
    admin: access.Access, driver: localdisk.LocalDisk, roles: role.Role, namespace: str, handle: str
) -> None:
    before = provisioning.handles(driver)
    wanted = [f"restored-{number}" for number in range(5)]
    admin.apply([claim(namespace, name, CLASS, dataSource=from_snapshot("monday")) for name in wanted])
    volumes = [until_bound(admin, namespace, name) for name in wanted]
    assert len(provisioning.handles(driver) - before) == 5
    assert restored(driver, volumes[4]) == "kept"
    claims.until("the snapshot is free", lambda: not held(admin, namespace))
    seen = lambda: {reason for reason, _ in provisioning.events(admin, namespace, "restored-0")}  # noqa: E731
    claims.until("its events are there", lambda: {"Provisioning", "ProvisioningSucceeded"} <= seen())
    assert "ProvisioningFailed" not in seen()
    assert volumes[0]["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"] == [
        {"matchExpressions": [{"key": KEY, "operator": "In", "values": [NODE]}]}
    ]

    admin.kubectl("delete", "pvc", "-n", namespace, *wanted, "--timeout=30s")
    for volume in volumes:
        name = volume["metadata"]["name"]
        claims.until("the volume is gone", lambda name=name: provisioning.volume_now(admin, name) is None)  # type: ignore[misc]
    assert provisioning.handles(driver) == before
    counted = (
        'controller_persistentvolumeclaim_provision_total{class="fast",source="VolumeSnapshot"} 5.0',
        'controller_persistentvolume_delete_total{class="fast"} 5.0',
    )
    for line in counted:
        claims.until(line, lambda line=line: line in roles.page("/metrics")[1])  # type: ignore[misc]


def test_a_clone_protects_its_source_until_both_may_go(
    admin: access.Access, driver: localdisk.LocalDisk, roles: role.Role, namespace: str, handle: str
) -> None:
    admin.apply(claim(namespace, "twin", CLASS, dataSource=from_claim("data")))
    volume = until_bound(admin, namespace, "twin")
    assert restored(driver, volume) == "spoilt"
    assert volume["spec"]["csi"]["volumeHandle"] != handle
    admin.kubectl("delete", "volumesnapshot", "monday", "-n", namespace, "--timeout=30s")
    admin.kubectl("delete", "pvc", "data", "-n", namespace, "--timeout=30s")
    claims.until("the source is gone", lambda: handle not in provisioning.handles(driver))
    assert restored(driver, volume) == "spoilt"


def test_a_restore_waits_for_its_snapshot_and_says_why(
    admin: access.Access, driver: localdisk.LocalDisk, roles: role.Role, namespace: str
) -> None:
    admin.apply(claim(namespace, "early", CLASS, dataSource=from_snapshot("monday")))

    def told() -> bool:
        return any(
            reason == "ProvisioningFailed" and "error getting snapshot monday" in text
            for reason, text in provisioning.events(admin, namespace, "early")
        )

    claims.until("the event is there", told)
    assert provisioning.FINALIZER not in provisioning.finalizers(provisioning.claim_now(admin, namespace, "early"))
    admin.apply(claim(namespace, "data", CLASS))
    until_bound(admin, namespace, "data")
    admin.apply(claims.snapshot(namespace, "monday", "data"))
    until_bound(admin, namespace, "early")


def choose(admin: access.Access, namespace: str, name: str, node: str) -> None:
    """As the scheduler does."""
    body = {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": node}}}
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"
    status, answer = admin.request("PATCH", path, body, "application/merge-patch+json")
    assert status == 200, answer


def test_late_binding_waits_for_a_node_and_gives_a_full_one_back(
    admin: access.Access, driver: localdisk.LocalDisk, roles: role.Role, namespace: str
) -> None:
    admin.apply([claim(namespace, "late", LATE), claim(namespace, "full", ELSEWHERE)])
    for _ in provisioning.polled(1.0):
        item = provisioning.claim_now(admin, namespace, "late")
        assert item is not None
        assert item["status"]["phase"] == "Pending"
        assert not provisioning.events(admin, namespace, "late") or all(
            reason != "Provisioning" for reason, _ in provisioning.events(admin, namespace, "late")
        )
    choose(admin, namespace, "late", NODE)
    choose(admin, namespace, "full", OTHER)
    until_bound(admin, namespace, "late")

    def given_back() -> bool:
        item = json.dumps(provisioning.claim_now(admin, namespace, "full"))
        return "volume.kubernetes.io/selected-node" not in item and provisioning.FINALIZER not in item

    def told() -> bool:
        events = provisioning.events(admin, namespace, "full")
        return any("rpc error: code = ResourceExhausted" in text for _, text in events)

    claims.until("it was tried", told)
    claims.until("the choice is given back", given_back)


def test_a_retained_volume_stays(
    admin: access.Access, driver: localdisk.LocalDisk, roles: role.Role, namespace: str
) -> None:
    admin.apply(claim(namespace, "kept", CLASS))
    volume = until_bound(admin, namespace, "kept")
    name = volume["metadata"]["name"]
    path = f"/api/v1/persistentvolumes/{name}"
    body = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    assert admin.request("PATCH", path, body, "application/merge-patch+json")[0] == 200

    def unguarded() -> bool:
        found = provisioning.finalizers(provisioning.volume_now(admin, name))
        return "external-provisioner.volume.kubernetes.io/finalizer" not in found

    claims.until("its finalizer is off", unguarded)
    admin.kubectl("delete", "pvc", "kept", "-n", namespace, "--timeout=30s")

    def released() -> bool:
        item = provisioning.volume_now(admin, name)
        return item is not None and item["status"]["phase"] == "Released"

    claims.until("released", released)
    assert volume["spec"]["csi"]["volumeHandle"] in provisioning.handles(driver)
    admin.kubectl("delete", "pv", name, "--timeout=30s")
