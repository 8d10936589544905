"""The story on a real API server: our samples, applied with kubectl, and, where a node can run, real pods.

It starts everything itself, touches no cluster but its own, and takes all of it away, also after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from bridge.pb.csi.v1 import csi_pb2
from demo.story import Story
from demo.workload import COPY, SAMPLES, SOURCE, Mounts, Pods, Workload, kubectl, volume_handle
from tests.support import beside_kubelet, claims, localdisk, serve
from tests.support.bed import access, build, controlplane, journal, node, packages, paths, process

CRDS = "configs/kubernetes/crds"
SERVERS = ("etcd", "kube-apiserver", "kube-controller-manager")
CONTAINER_PROGRAMS = ("containerd", "ctr", "containerd-shim-runc-v2", "runc", "busybox", "umount")
VOLUME_BYTES = 64 << 20
SNAPSHOT = "notes-monday"


def main() -> None:
    story = Story()
    os.chdir(paths.REPOSITORY)
    missing = why_no_pod()
    print("Kubernetes: a real API server of its own on this host, our CRDs and samples, and kubectl.")
    print(
        f"The pods are left out: {missing}." if missing else "A real kubelet and containerd run its pods.", flush=True
    )
    try:
        _build(with_pods=not missing)
        with story.interruptible(), contextlib.ExitStack() as stack, _kept_logs():
            _play(story, stack, with_pods=not missing)
    except (access.KubectlError, process.ServerError, process.MissingServerError, AssertionError) as error:
        print(f"   {error}", flush=True)
        raise SystemExit(1) from None
    story.end(
        "Done. The data came back, and nothing is left behind.",
        f"the manifests are in {SAMPLES}, a config to start from is configs/kubernetes.yaml",
    )


def why_no_pod() -> str:
    """Why no pod can run on this host, in words; "" if one can."""
    if os.geteuid() != 0:
        return "a kubelet needs root (everything else is the same)"
    try:
        for program in CONTAINER_PROGRAMS:
            packages.program(program)
    except process.MissingServerError as error:
        return str(error)
    return ""


def _build(*, with_pods: bool) -> None:
    """Only what this demonstration runs; the tests need more."""
    wanted = [*SERVERS, *(["kubelet"] if with_pods else []), *([] if shutil.which("kubectl") else ["kubectl"])]
    missing = [name for name in wanted if not build.cached(name).exists()]
    if missing:
        print(f"Building once, into {paths.cache()}: {', '.join(missing)} (some minutes).", flush=True)
    build.build(missing)


@contextlib.contextmanager
def _kept_logs() -> Iterator[None]:
    """After a failure the servers' logs are kept and named; a signal is no failure."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, SystemExit) or error.code == 1:
            print(f"   logs: {journal.keep()}", flush=True)
        raise


def _play(story: Story, stack: contextlib.ExitStack, *, with_pods: bool) -> None:
    story.step("Start Kubernetes: etcd, kube-apiserver, kube-controller-manager" + (", kubelet" if with_pods else ""))
    plane = stack.enter_context(controlplane.running())
    story.env["KUBECONFIG"] = str(plane.kubeconfig)
    if with_pods:
        place = stack.enter_context(node.running(plane))
        kubectl(story, "get", "nodes")
        story.say("(NotReady, because it has no pod network; pods on the host's network run)")
        disk = _driver_with_kubelet(story, stack, place)
        workload: Workload = Pods(story, place)
    else:
        kubectl(story, "get", "namespaces")
        story.step("Start a CSI driver over a directory")
        disk = stack.enter_context(localdisk.start_localdisk())
        story.say(f"localdisk, as {localdisk.NAME}")
        workload = Mounts(story, plane.admin, disk)
    _service(story, stack, plane, disk)
    _claim(story, disk)
    before = _cut_and_damage(story, workload)
    _restore(story, plane.admin, workload, before)
    _delete(story, plane.admin, disk, workload)


def _driver_with_kubelet(story: Story, stack: contextlib.ExitStack, place: node.Node) -> localdisk.LocalDisk:
    story.step("Start a CSI driver; `snapbridge node` registers it with the kubelet")
    kubectl(story, "apply", "-f", f"{SAMPLES}/csidriver.yaml")
    disk = stack.enter_context(beside_kubelet.driver(place))
    story.say("$ snapbridge node -c node.yaml &")
    stack.enter_context(beside_kubelet.agent(place))
    stack.callback(place.delete_all_pods, 30)  # before the driver goes: kubelet could not unmount without it
    beside_kubelet.until_registered(place)
    kubectl(story, "get", "csinode", "-o", "custom-columns=NODE:.metadata.name,DRIVERS:.spec.drivers[*].name")
    return disk


def _service(
    story: Story, stack: contextlib.ExitStack, plane: controlplane.ControlPlane, disk: localdisk.LocalDisk
) -> None:
    story.step("Add the snapshot API: our CRDs and a class for the driver")
    kubectl(story, "apply", "--server-side", "-k", CRDS)
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    kubectl(story, "apply", "-f", f"{SAMPLES}/class.yaml")

    story.step("Start the service; neither snapshot-controller nor csi-snapshotter runs here")
    made = serve.service(
        clusters=[{"name": "demo", "kind": "kubernetes", "kubeconfig": str(plane.kubeconfig)}],
        plugins=[{"name": "localdisk", "socket": str(disk.socket)}],
    )
    story.env["SNAPBRIDGE_ADDR"] = made.url
    story.say("$ snapbridge serve -c snapbridge.yaml &")
    stack.enter_context(made)
    story.snapbridge("cluster", "list")
    story.snapbridge("plugin", "list")


def _claim(story: Story, disk: localdisk.LocalDisk) -> None:
    story.step("Make a volume and claim it")
    handle = disk.volume("demo-notes", VOLUME_BYTES).volume_id
    manifest = (paths.REPOSITORY / SAMPLES / "volume.yaml").read_text(encoding="utf-8")
    kubectl(
        story, "apply", "-f", "-", stdin=manifest.replace("VOLUME-HANDLE", handle),
        shown=f"sed s/VOLUME-HANDLE/{handle}/ {SAMPLES}/volume.yaml | kubectl apply -f -",
    )  # fmt: skip
    kubectl(story, "wait", "--for=jsonpath={.status.phase}=Bound", f"pvc/{SOURCE}", "--timeout=60s")


def _cut_and_damage(story: Story, workload: Workload) -> str:
    story.step("Write files to the claim")
    before = workload.write()

    story.step("Cut a snapshot")
    kubectl(story, "apply", "-f", f"{SAMPLES}/snapshot.yaml")
    ready = "--for=jsonpath={.status.readyToUse}=true"
    kubectl(story, "wait", ready, f"volumesnapshot/{SNAPSHOT}", "--timeout=60s")
    kubectl(story, "get", "volumesnapshot")
    story.snapbridge("snapshot", "list")

    story.step("Have an accident")
    damaged = workload.damage()
    story.expect(damaged != before, f"the files are damaged: {damaged}, not {before}")
    return before


def _restore(story: Story, admin: access.Access, workload: Workload, before: str) -> None:
    story.step("Restore the snapshot into a new volume, with a claim of its own")
    uid = admin.get("volumesnapshot", SNAPSHOT)["metadata"]["uid"]
    story.snapbridge("snapshot", "restore", uid, "--as", COPY, "--wait")
    kubectl(story, "wait", "--for=jsonpath={.status.phase}=Bound", f"pvc/{COPY}", "--timeout=60s")
    kubectl(story, "get", "pvc")
    restored = workload.restored()
    story.expect(restored == before, f"the bytes are back: {restored}")


def _delete(story: Story, admin: access.Access, disk: localdisk.LocalDisk, workload: Workload) -> None:
    story.step("Delete the snapshot")
    kubectl(story, "delete", "volumesnapshot", SNAPSHOT)
    claims.until("the content is gone", lambda: not admin.get("volumesnapshotcontent")["items"])

    story.step("Show that nothing is left")
    kubectl(story, "get", "volumesnapshot,volumesnapshotcontent")
    answer = disk.controller.ListSnapshots(csi_pb2.ListSnapshotsRequest(), timeout=30)
    story.expect(not answer.entries, "the driver holds no snapshot")
    kubectl(story, "get", "pvc", "-o", "custom-columns=NAME:.metadata.name,FINALIZERS:.metadata.finalizers[*]")
    ours = [name for one in admin.get("pvc")["items"] for name in one["metadata"]["finalizers"] if "snapshot" in name]
    story.expect(ours == [], "the claims have only the finalizer that Kubernetes itself puts there")
    workload.stop()
    handles = [volume_handle(admin, claim) for claim in (SOURCE, COPY)]
    kubectl(story, "delete", "pvc", SOURCE, COPY)
    kubectl(story, "delete", "pv", "--all")
    for handle in handles:
        disk.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=handle), timeout=30)
    story.expect(disk.left_over() == [], "the volumes deleted too, the driver holds no byte, mount or device")


if __name__ == "__main__":
    main()
