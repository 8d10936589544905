"""Where a story plays: a control plane of its own, a proxy before it, a driver behind another, and a stack at work.

What ends by itself is started again, as a kubelet would. Looking is by plain requests that may fail: the API server
itself is a victim here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import claims, httpproxy, localdisk, mirror, stacks
from tests.support.bed import access, controlplane, paths
from tests.support.faultproxy import proxy

Object = dict[str, Any]

GROUP = "/apis/snapshot.storage.k8s.io/v1"
DRIVER = "campaign.snapbridge.test"
CLASS = "campaign"
NAMESPACE = "campaign"
PATIENCE_SECONDS = 40.0
LOOK_SECONDS = 0.25


@dataclasses.dataclass(slots=True)
class Score:
    """What became of a batch. Nothing but zeros is good."""

    leaked: int = 0
    doubled: int = 0
    lost: int = 0
    stuck: int = 0

    @property
    def clean(self) -> bool:
        return not (self.leaked or self.doubled or self.lost or self.stuck)


class Field:
    """One stack on one cluster. Each VolumeSnapshot of a batch has a volume of its own: so doubles are seen."""

    def __init__(
        self,
        plane: controlplane.ControlPlane,
        api: httpproxy.HttpProxy,
        driver: localdisk.LocalDisk,
        csi: proxy.FaultProxy,
        stack: stacks.Stack,
        batch: int,
    ) -> None:
        self.plane = plane
        self.api = api
        self.driver = driver
        self.csi = csi
        self.stack = stack
        self.batch = batch
        self.storm_seconds = 4.0
        """How long a fault lasts that does not end by itself."""
        self.patience_seconds = PATIENCE_SECONDS
        """After so long what has not come about is stuck."""
        self.volumes: list[str] = []
        self.down = threading.Event()
        """Set while the story itself keeps processes down."""
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def prepare(self) -> None:
        """Namespace, class, claims."""
        admin = self.plane.admin
        claims.install(admin, DRIVER, name=CLASS)
        admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        objects: list[Object] = []
        for number in range(self.batch):
            handle = self.driver.volume(f"campaign-{number}", 1 << 20).volume_id
            self.volumes.append(handle)
            objects += claims.claim(NAMESPACE, f"claim-{number}", DRIVER, handle, size="1Mi")
        admin.apply(objects)
        waiting = ["wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s", "pvc", "--all", "-n", NAMESPACE]
        admin.kubectl(*waiting, seconds=70)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """The stack runs, and is kept running."""
        self.stack.start()
        self._keeper.start()
        try:
            yield
        finally:
            self._over.set()
            self._keeper.join(60.0)
            self.stack.close()

    def _keep(self) -> None:
        while not self._over.wait(0.3):
            for one in self.stack.processes:
                if not one.running and not self.down.is_set() and not self._over.is_set():
                    with contextlib.suppress(Exception):  # it may die at its start too: the next look tries again
                        one.kill()
                        one.start()

    # -- asking

    def ask(self, story: str) -> list[str]:
        """One VolumeSnapshot per volume; their names."""
        names = [f"{story}-{number}" for number in range(self.batch)]
        for number, name in enumerate(names):
            body = claims.snapshot(NAMESPACE, name, f"claim-{number}", CLASS)
            self._send("POST", f"{GROUP}/namespaces/{NAMESPACE}/volumesnapshots", body)
        return names

    def delete(self, names: list[str]) -> None:
        for name in names:
            self._send("DELETE", f"{GROUP}/namespaces/{NAMESPACE}/volumesnapshots/{name}")

    def retain(self) -> None:
        """Flip the policy of every content."""
        for one in self.contents():
            self._patch(
                f"{GROUP}/volumesnapshotcontents/{one['metadata']['name']}", {"spec": {"deletionPolicy": "Retain"}}
            )

    # -- looking

    def snapshots(self) -> dict[str, Object]:
        return {one["metadata"]["name"]: one for one in self._list(f"{GROUP}/namespaces/{NAMESPACE}/volumesnapshots")}

    def contents(self) -> list[Object]:
        return [one for one in self._list(f"{GROUP}/volumesnapshotcontents") if one["spec"]["driver"] == DRIVER]

    def backend(self, volume: str = "") -> set[str]:
        """The handles that the driver itself lists."""
        request = pb.ListSnapshotsRequest(source_volume_id=volume)
        answer = self.driver.controller.ListSnapshots(request, timeout=30, wait_for_ready=True)
        return {one.snapshot.snapshot_id for one in answer.entries}

    def ready(self, names: list[str]) -> int:
        found = self.snapshots()
        return sum(bool((found.get(name, {}).get("status") or {}).get("readyToUse")) for name in names)

    def until(self, holds: Callable[[], bool], seconds: float | None = None) -> bool:
        """Whether it came about in time."""
        deadline = time.monotonic() + (self.patience_seconds if seconds is None else seconds)
        while time.monotonic() < deadline:
            if holds():
                return True
            time.sleep(LOOK_SECONDS)
        return holds()

    # -- cleaning

    def clean(self) -> None:
        """Whatever a story left is taken away by force, so that the next one begins in an empty room."""
        self.api.refuse, self.api.strike, self.api.stream_seconds = _pass, _no_strike, None
        self.csi.clear()
        for place, plural in ((f"namespaces/{NAMESPACE}/", "volumesnapshots"), ("", "volumesnapshotcontents")):
            for one in self._list(f"{GROUP}/{place}{plural}"):
                path = f"{GROUP}/{place}{plural}/{one['metadata']['name']}"
                self._patch(path, {"metadata": {"finalizers": None}})
                self._send("DELETE", path)
                self._patch(path, {"metadata": {"finalizers": None}})
        for handle in self.backend():
            request = pb.DeleteSnapshotRequest(snapshot_id=handle)
            self.driver.controller.DeleteSnapshot(request, timeout=30, wait_for_ready=True)

    def _list(self, path: str) -> list[Object]:
        items: list[Object] = json.loads(self._send("GET", path))["items"]
        return items

    def _patch(self, path: str, body: Object) -> None:
        self._send("PATCH", path, body, "application/merge-patch+json")

    def _send(self, verb: str, path: str, body: Object | None = None, kind: str = "application/json") -> bytes:
        """Until the server answers. What is not there need not be deleted or changed."""
        deadline = time.monotonic() + self.patience_seconds
        while True:
            with contextlib.suppress(OSError):
                status, answer = self.plane.admin.request(verb, path, body, kind)
                if status < 300 or (status in (404, 409) and verb != "GET"):
                    return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"the API server did not take {verb} {path}")
            time.sleep(0.2)


def _pass(_request: Any) -> None:
    return None


def _no_strike(_moment: str, _what: str) -> bool:
    return False


@contextlib.contextmanager
def field(kind: stacks.Kind, batch: int, more: Sequence[str] = ()) -> Iterator[Field]:
    """Everything of one stack's campaign; leaving the block stops it."""
    with contextlib.ExitStack() as stack:
        plane = stack.enter_context(controlplane.running())
        backstage = stack.enter_context(mirror.Backstage())
        serving = plane.apiserver.authority.serving("campaign-proxy", ["127.0.0.1"])
        opened = httpproxy.running(plane.url, str(plane.certificate_authority), serving)
        api = backstage.run(opened.__aenter__())
        stack.callback(lambda: backstage.run(opened.__aexit__(None, None, None)))
        folder = paths.fresh("campaign")
        driver = stack.enter_context(
            localdisk.start_localdisk(folder / "disk", mode="directory", driver_name=DRIVER, rootless=True)
        )
        csi = proxy.FaultProxy(driver.socket, Path(folder) / "csi.sock")
        backstage.run(csi.__aenter__())
        stack.callback(lambda: backstage.run(csi.__aexit__(None, None, None)))
        through = access.write_kubeconfig(
            Path(folder) / "kubeconfig", api.url, plane.token, plane.certificate_authority
        )
        made = Field(plane, api, driver, csi, stacks.Stack(kind, through, csi.listen, more), batch)
        made.prepare()
        with made.at_work():
            yield made
