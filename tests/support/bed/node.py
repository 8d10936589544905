"""A real Kubernetes node in one handle: kubelet and containerd, pods that run, exec that answers.

Leaving it deletes its pods first, then ends the servers, unmounts, and only then removes folders.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.bed import containerd, controlplane, images, kubelet, process, sweep

_numbers = itertools.count(1)
IDLE = ("sh", "-c", "trap 'exit 0' TERM; sleep 2147483647 & wait")
"""A command that does nothing and ends at once when its pod is deleted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """A running node of a control plane. It runs pods that name it; no scheduler is needed."""

    plane: controlplane.ControlPlane
    kubelet: kubelet.Kubelet
    containerd: containerd.Containerd

    @property
    def name(self) -> str:
        return self.kubelet.node_name

    @property
    def root_dir(self) -> Path:
        """kubelet's root folder: volumes are mounted below it."""
        return self.kubelet.root_dir

    @property
    def plugins_registry(self) -> Path:
        """Where a registration socket goes (`<driver>-reg.sock`)."""
        return self.root_dir / "plugins_registry"

    @property
    def plugins(self) -> Path:
        """Where a CSI socket may go (`<driver>/csi.sock`); a socket's path must stay under 100 bytes."""
        return self.root_dir / "plugins"

    def prepare(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """The pod with all that this node needs filled in where it says nothing.

        That is: node name, host network, toleration of a node that is not ready, the local busybox
        image, an idle command, no pulling, and one second to end.
        """
        pod: dict[str, Any] = copy.deepcopy(dict(manifest))
        complete_template(pod["spec"], self.name)
        return pod

    def run_pod(self, manifest: Mapping[str, Any], *, ready: bool = True, seconds: float = 60.0) -> dict[str, Any]:
        """Create a pod (see `prepare`) and, unless `ready` is False, wait until it is ready; give the pod."""
        pod = self.prepare(manifest)
        namespace = pod["metadata"].get("namespace", "default")
        self.plane.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", **pod}))
        if ready:
            self.wait_pod(pod["metadata"]["name"], namespace, seconds=seconds)
        return self.plane.admin.get("pod", pod["metadata"]["name"], f"--namespace={namespace}")

    def wait_pod(
        self, name: str, namespace: str = "default", *, until: str = "condition=Ready", seconds: float = 60.0
    ) -> None:
        """Wait (`kubectl wait --for=UNTIL`). Raises ServerError with the pod's events when it takes longer."""
        done = self.plane.admin.run_kubectl(
            "wait", f"pod/{name}", f"--namespace={namespace}", f"--for={until}", f"--timeout={seconds:.0f}s",
            seconds=seconds + 10,
        )  # fmt: skip
        if done.returncode != 0:
            story = self.plane.kubectl("describe", "pod", name, f"--namespace={namespace}", check=False)
            raise process.ServerError(f"pod {namespace}/{name}: no {until}: {done.stderr.strip()}\n{story}")

    def exec(
        self, pod: str, *command: str, namespace: str = "default", container: str | None = None,
        stdin: str | None = None, check: bool = True, seconds: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """`kubectl exec`: the finished process. Raises KubectlError on an exit code other than 0, if `check`.

        With stdin, keep the command's stdout open until stdin is read (`cat > f; true`, not `cat > f`):
        else the input may be cut short without an error.
        """
        return self.plane.admin.run_kubectl(
            "exec", pod, f"--namespace={namespace}",
            *([f"--container={container}"] if container else []), *(["--stdin"] if stdin is not None else []),
            "--", *command, stdin=stdin, check=check, seconds=seconds,
        )  # fmt: skip

    def delete_pod(self, name: str, namespace: str = "default", *, seconds: float = 60.0) -> None:
        """Delete a pod and wait until it is gone: its volumes are unmounted then."""
        self.plane.kubectl(
            "delete", "pod", name, f"--namespace={namespace}", f"--timeout={seconds:.0f}s", seconds=seconds + 10
        )

    def import_image(self, archive: Path) -> None:
        """Import a docker-format image archive (see images.from_layer)."""
        self.containerd.import_image(archive)

    def delete_all_pods(self, seconds: float = 60.0) -> None:
        """Delete every pod of this node and wait until they are gone."""
        self.plane.kubectl(
            "delete", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={self.name}",
            "--ignore-not-found", f"--timeout={seconds:.0f}s", seconds=seconds + 10,
        )  # fmt: skip
        deadline = time.monotonic() + seconds
        while self.containerd.tasks():
            if time.monotonic() > deadline:
                raise process.ServerError(f"containers are still there: {self.containerd.tasks()}")
            time.sleep(0.1)


def pod(name: str, namespace: str = "default", *, command: Sequence[str] = IDLE) -> dict[str, Any]:
    """A pod with one container named `main` that runs a command."""
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "main", "command": list(command)}]},
    }


def complete_template(spec: dict[str, Any], node_name: str) -> None:
    """Fill a pod spec, or a Deployment's template.spec, in place with what a node of the bed needs."""
    spec.setdefault("nodeName", node_name)
    spec.setdefault("hostNetwork", True)
    spec.setdefault("terminationGracePeriodSeconds", 1)
    spec.setdefault("tolerations", [{"operator": "Exists"}])
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        container.setdefault("image", images.BUSYBOX)
        container.setdefault("imagePullPolicy", "Never")
    for container in spec["containers"]:
        container.setdefault("command", list(IDLE))


@contextlib.contextmanager
def running(plane: controlplane.ControlPlane) -> Iterator[Node]:
    """Start containerd and a kubelet that joins the control plane; leaving the block clears both away.

    Raises MissingServerError unless this is root. Raises ServerError at the end, and leaves the folder
    alone, when a mount below it cannot be unmounted.
    """
    if os.geteuid() != 0:
        raise process.MissingServerError("a node needs root: run as root, or deselect with -m 'not root'")
    runtime = containerd.start()
    agent = kubelet.Kubelet(plane.apiserver, runtime, f"bed-{os.getpid()}-{next(_numbers)}")
    left_behind = (runtime.socket, runtime.folder / "state", [agent.root_dir, runtime.folder / "state"])
    with sweep.follow(*left_behind) as follower:
        try:
            agent.start()
            handle = Node(plane, agent, runtime)
            try:
                yield handle
            finally:
                _leave(handle)
        finally:
            agent.stop()
            runtime.stop()
            left = sweep.clean(*left_behind)
            process.forget(agent)
            process.forget(runtime)
            assert follower.stdin is not None
            follower.stdin.close()
            follower.wait(90)
            if left:
                raise process.ServerError("the node left something behind: " + "; ".join(left))


def _leave(node: Node) -> None:
    """Delete pods and the node object; what a test broke (an API server that is down) must not stop the rest."""
    if node.plane.apiserver.running and node.kubelet.running and node.containerd.running:
        with contextlib.suppress(process.ServerError, subprocess.TimeoutExpired, RuntimeError):
            node.delete_all_pods(30)
        node.plane.kubectl("delete", "node", node.name, "--ignore-not-found", check=False)
