"""Each role under exactly the rules of its manifests: they are enough for its whole job, and none is too many."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import yaml

from tests.support import claims, httpproxy, localdisk, manifests, provisioning, role
from tests.support.bed import access, build, paths
from tests.support.bed.controlplane import ControlPlane
from tests.support.manifests import Right

SETTLING: frozenset[Right] = frozenset(
    (verb, resource)
    for verb in ("get",)
    for resource in (
        "volumesnapshots",
        "volumesnapshotcontents",
        "volumegroupsnapshots",
        "volumegroupsnapshotcontents",
        "persistentvolumeclaims",
        "persistentvolumes",
    )
)
"""An object is read anew when a write of ours meets a newer one: seldom, so that a quiet run may do without."""
OF_OTHER_DRIVERS: frozenset[Right] = frozenset(
    {("list", "volumeattachments"), ("watch", "volumeattachments"), ("get", "volumeattributesclasses")}
)
"""For drivers that attach volumes to nodes, and for those that change volumes; ours does neither."""
NODE = "place-rbac"


@pytest.fixture(scope="module")
def driver(control_plane: ControlPlane) -> Iterator[localdisk.LocalDisk]:
    with localdisk.start_localdisk(node_id=NODE) as running:
        claims.install(control_plane.admin, localdisk.NAME)
        yield running


@contextlib.contextmanager
def rights(plane: ControlPlane, overlay: str) -> Iterator[access.Access]:
    """The overlay's accounts, roles and bindings; the way in of the account that they are for."""
    objects = manifests.rbac(overlay)
    (binding,) = [one for one in objects if one["kind"] == "ClusterRoleBinding"]
    (subject,) = binding["subjects"]
    name, namespace = subject["name"], subject["namespace"]
    text = manifests.as_list(objects)
    account = plane.service_account(name, namespace=namespace, manifests=text)
    try:
        manifests.until_granted(account, objects)
        yield account
    finally:
        plane.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text)
        plane.kubectl("delete", "lease", "--all", "-n", namespace)


def under(account: access.Access, url: str, name: str, *flags: str) -> role.Role:
    """A role that reaches the API server by this address, as this account, with elections in its namespace."""
    folder = paths.fresh("rbac")
    way = access.write_kubeconfig(folder / "kubeconfig", url, account.token, account.certificate_authority)
    election = ("--leader-election=true", f"--leader-election-namespace={account.namespace}")
    return role.role(name, *election, *flags, kubeconfig=way.kubeconfig)


@contextlib.asynccontextmanager
async def audited(
    plane: ControlPlane, overlay: str, make: Callable[[access.Access, str], role.Role]
) -> AsyncIterator[None]:
    """Run the role while the block runs. Then it has asked for what it may, all of it, and nothing was refused."""
    with rights(plane, overlay) as account:
        async with httpproxy.running(plane.url, str(plane.certificate_authority)) as proxy:
            made = make(account, proxy.url)
            await asyncio.to_thread(made.start)
            try:
                yield
            finally:
                await asyncio.to_thread(made.stop)
    granted = manifests.granted(manifests.rbac(overlay))
    refused = [answer for answer in proxy.answers if answer.status in (401, 403)]
    assert refused == []
    used = {manifests.asked(answer) for answer in proxy.answers if answer.path.startswith("/api")}
    assert sorted(used - granted) == []
    assert sorted(granted - used - SETTLING - OF_OTHER_DRIVERS) == [], "rights that nothing needs"


def snapshots(plane: ControlPlane, driver: localdisk.LocalDisk, namespace: str, *, with_secret: bool = True) -> None:
    """A class with a secret; a dynamic and a static snapshot, and one that is not there; and their end."""
    admin = plane.admin
    volume = driver.volume(f"{namespace}-rbac", 1 << 20)
    claims.bound(admin, namespace, "data", localdisk.NAME, volume.volume_id)
    parameters = {
        "csi.storage.k8s.io/snapshotter-secret-name": "cut",
        "csi.storage.k8s.io/snapshotter-secret-namespace": namespace,
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cut", "namespace": namespace}}
    klass = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": {"name": namespace},
        "driver": localdisk.NAME,
        "deletionPolicy": "Delete",
        "parameters": parameters if with_secret else {},
    }
    admin.apply([{**secret, "stringData": {"key": "value"}}, klass])
    admin.apply(claims.snapshot(namespace, "one", "data", namespace))
    claims.until("ready", lambda: claims.is_ready(admin, namespace, "one"))
    cut = driver.snapshot(f"{namespace}-by-hand", volume.volume_id)
    admin.apply(claims.static(namespace, "static", localdisk.NAME, cut.snapshot_id))
    claims.until("bound", lambda: claims.is_ready(admin, namespace, "static"))
    admin.apply(claims.static(namespace, "missing", localdisk.NAME, "no-such-snapshot"))
    claims.until(
        "told", lambda: "error" in (provisioning.snapshot_now(admin, namespace, "missing") or {}).get("status", {})
    )
    admin.kubectl("delete", "volumesnapshot", "one", "static", "missing", "-n", namespace, "--timeout=50s")
    claims.until("contents are gone", lambda: not claims.contents(admin, namespace))
    admin.kubectl("delete", "volumesnapshotclass", namespace)


def groups(plane: ControlPlane, namespace: str) -> None:
    """A group snapshot of the claim that `snapshots` has made: ready, and deleted."""
    admin = plane.admin
    version = "groupsnapshot.storage.k8s.io/v1"
    klass = {
        "apiVersion": version,
        "kind": "VolumeGroupSnapshotClass",
        "metadata": {"name": namespace},
        "driver": localdisk.NAME,
        "deletionPolicy": "Delete",
    }
    group = {
        "apiVersion": version,
        "kind": "VolumeGroupSnapshot",
        "metadata": {"name": "group", "namespace": namespace},
        "spec": {
            "volumeGroupSnapshotClassName": namespace,
            "source": {"selector": {"matchLabels": {"in": "group"}}},
        },
    }
    admin.kubectl("label", "pvc", "data", "in=group", "-n", namespace)
    admin.apply([klass, group])
    path = f"/apis/{version}/namespaces/{namespace}/volumegroupsnapshots/group"
    claims.until(
        "the group is ready",
        lambda: (provisioning.look(admin, path) or {}).get("status", {}).get("readyToUse") is True,
    )
    admin.kubectl("delete", "volumegroupsnapshot", "group", "-n", namespace, "--timeout=50s")
    admin.kubectl("delete", "volumegroupsnapshotclass", namespace)
    claims.until("its members are gone", lambda: not claims.contents(admin, namespace))


async def test_all(control_plane: ControlPlane, driver: localdisk.LocalDisk, namespace: str) -> None:
    def make(account: access.Access, url: str) -> role.Role:
        return under(account, url, "all", f"--csi-address={driver.socket}")

    async with audited(control_plane, "merged", make):
        await asyncio.to_thread(snapshots, control_plane, driver, namespace)
        await asyncio.to_thread(groups, control_plane, namespace)


@pytest.mark.timeout(400)
async def test_the_two_halves(control_plane: ControlPlane, driver: localdisk.LocalDisk, namespace: str) -> None:
    def controller(account: access.Access, url: str) -> role.Role:
        return under(account, url, "controller", "--enable-distributed-snapshotting=true")

    def sidecar(account: access.Access, url: str) -> role.Role:
        return under(account, url, "sidecar", f"--csi-address={driver.socket}")

    async with audited(control_plane, "distributed", controller), audited(control_plane, "sidecar", sidecar):
        await asyncio.to_thread(snapshots, control_plane, driver, namespace)
        await asyncio.to_thread(groups, control_plane, namespace)


def test_without_distributed_snapshotting_the_controller_needs_no_nodes() -> None:
    nodes = {("list", "nodes"), ("watch", "nodes")}
    assert manifests.granted(manifests.rbac("central")) == manifests.granted(manifests.rbac("distributed")) - nodes


async def test_the_two_halves_in_upstreams_manifests_with_another_image_and_command_alone(
    control_plane: ControlPlane, driver: localdisk.LocalDisk, namespace: str
) -> None:
    with (
        upstreams(control_plane, "snapshot-controller", "kube-system") as first,
        upstreams(control_plane, "csi-snapshotter", "default") as second,
    ):
        async with httpproxy.running(control_plane.url, str(control_plane.certificate_authority)) as proxy:
            controller = under(first, proxy.url, "controller")
            sidecar = under(second, proxy.url, "sidecar", f"--csi-address={driver.socket}")

            def work() -> None:
                with controller, sidecar:
                    snapshots(control_plane, driver, namespace, with_secret=False)

            await asyncio.to_thread(work)
    refused = {manifests.asked(answer) for answer in proxy.answers if answer.status in (401, 403)}
    assert refused <= {("list", "leases"), ("patch", "persistentvolumeclaims")}, "what it can do without"
    held = [answer for answer in proxy.answers if manifests.asked(answer) == ("update", "persistentvolumeclaims")]
    assert held
    assert {answer.status for answer in held} <= {200, 409}
    tried = [answer for answer in proxy.answers if manifests.asked(answer) == ("patch", "persistentvolumeclaims")]
    assert len(tried) == 1, "after the first refusal it knows"


@contextlib.contextmanager
def upstreams(plane: ControlPlane, program: str, namespace: str) -> Iterator[access.Access]:
    """The service account that upstream's own manifest gives a program, with its rules as they stand there."""
    text = (build.snapshotter_module() / f"deploy/kubernetes/{program}/rbac-{program}.yaml").read_text()
    plane.kubectl("create", "namespace", "kube-system", check=False)
    account = plane.service_account(program, namespace=namespace, manifests=text)
    try:
        manifests.until_granted(account, [one for one in yaml.safe_load_all(text) if one])
        yield account
    finally:
        plane.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text)
        plane.kubectl("delete", "lease", "--all", "-n", namespace)


def test_a_nodes_sidecar_may_do_what_the_central_one_may_but_for_leases_and_groups() -> None:
    """Nobody labels a group's content with a node: groups are a central sidecar's."""
    central = manifests.granted(manifests.rbac("sidecar"))
    others = {(verb, resource) for verb, resource in central if resource == "leases" or "group" in resource}
    assert manifests.granted(manifests.rbac("node")) == central - others


async def test_provisioner(control_plane: ControlPlane, driver: localdisk.LocalDisk, namespace: str) -> None:
    admin = control_plane.admin
    address = f"--csi-address={driver.socket}"
    snapshotter = role.role("all", address, kubeconfig=control_plane.kubeconfig)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "make", "namespace": namespace}}
    parameters = {
        "csi.storage.k8s.io/provisioner-secret-name": "make",
        "csi.storage.k8s.io/provisioner-secret-namespace": namespace,
    }
    provisioning.place(admin, NODE, localdisk.NAME, f"{localdisk.NAME}/node")
    admin.apply(
        [{**secret, "stringData": {"key": "value"}}, provisioning.storage_class(namespace, parameters=parameters)]
    )

    before = provisioning.handles(driver)

    def job() -> None:
        with snapshotter:
            admin.apply(provisioning.claim(namespace, "data", namespace))
            provisioning.until_bound(admin, namespace, "data")
            admin.apply(claims.snapshot(namespace, "one", "data"))
            claims.until("ready", lambda: claims.is_ready(admin, namespace, "one"))
            for name, source in (
                ("restored", provisioning.from_snapshot("one")),
                ("cloned", provisioning.from_claim("data")),
            ):
                admin.apply(provisioning.claim(namespace, name, namespace, dataSource=source))
                provisioning.until_bound(admin, namespace, name)
            admin.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--timeout=50s")
            admin.kubectl("delete", "pvc", "data", "restored", "cloned", "-n", namespace, "--timeout=50s")
            claims.until("the volumes are gone", lambda: provisioning.handles(driver) == before)

    def make(account: access.Access, url: str) -> role.Role:
        return under(account, url, "provisioner", address, "--timeout=50s")

    try:
        async with audited(control_plane, "provisioner", make):
            await asyncio.to_thread(job)
    finally:
        admin.kubectl("delete", "node,csinode", NODE)
        admin.kubectl("delete", "storageclass", namespace)
