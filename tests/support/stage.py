"""One stack at work on one cluster and one driver, and what a scenario does there: make, break, look, wait.

Scenarios run at the same time, each with claims, classes and snapshots of its own names, and a fault strikes the
calls for one volume only. Safe to use from several threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import calls, localdisk, mirror, stacks
from tests.support.bed import access, paths
from tests.support.faultproxy import faults, proxy, wire

Object = dict[str, Any]

GROUP = mirror.SNAPSHOT_GROUP
API_VERSION = "snapshot.storage.k8s.io/v1"
PREFIX = "snapshot.storage.kubernetes.io"
AS_SOURCE = f"{PREFIX}/volumesnapshot-as-source-protection"
BOUND = f"{PREFIX}/volumesnapshot-bound-protection"
CONTENT_BOUND = f"{PREFIX}/volumesnapshotcontent-bound-protection"
CLAIM = f"{PREFIX}/pvc-as-source-protection"
BEING_CREATED = f"{PREFIX}/volumesnapshot-being-created"
INTENT = "snapbridge.dev/intent"
BEING_DELETED = f"{PREFIX}/volumesnapshot-being-deleted"
DEFAULT_CLASS = f"{PREFIX}/is-default-class"
SECRET_NAME = f"{PREFIX}/deletion-secret-name"
SECRET_NAMESPACE = f"{PREFIX}/deletion-secret-namespace"

_VOLUME_BYTES = 1 << 20
_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A bound claim and the handle of its volume."""

    name: str
    handle: str


def finalizers(found: Object | None) -> set[str]:
    """Those of an object; none of a missing one."""
    return set(found["metadata"].get("finalizers") or ()) if found else set()


def notes(found: Object) -> dict[str, str]:
    """An object's annotations."""
    return dict(found["metadata"].get("annotations") or {})


def status(found: Object | None) -> Object:
    """An object's status; empty when there is none."""
    return dict((found or {}).get("status") or {})


def error_text(found: Object | None) -> str:
    """What the status says went wrong."""
    return str((status(found).get("error") or {}).get("message") or "")


class Stage:
    """Everything a scenario needs at hand."""

    def __init__(
        self,
        admin: access.Access,
        seen: mirror.Mirror,
        stack: stacks.Stack,
        driver: localdisk.LocalDisk,
        middle: proxy.FaultProxy,
        driver_name: str,
    ) -> None:
        self.calls = calls.Calls(admin)
        self.seen = seen
        self.stack = stack
        self.driver = driver
        self.proxy = middle
        self.driver_name = driver_name
        self.namespace = f"{stack.kind.name}-{os.getpid()}-{next(_numbers)}"
        self.class_name = f"{self.namespace}-delete"

    @property
    def kind(self) -> stacks.Kind:
        return self.stack.kind

    def replace(self, stack: stacks.Stack) -> None:
        """From now on this stack, not started yet, is the one at work; the one before must have ended."""
        self.stack.close()
        self.stack = stack

    # -- making

    def prepare(self) -> None:
        """The namespace and the class that most scenarios use."""
        self.calls.create("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self.klass(self.class_name)

    def fresh(self, what: str) -> str:
        """A name that nobody else has."""
        return f"{what}-{next(_numbers)}"

    def klass(
        self, name: str = "", *, policy: str = "Delete", driver: str = "", default: bool = False, **parameters: str
    ) -> str:
        """A VolumeSnapshotClass; in parameters' names `__` stands for the reserved prefix and `_` for a hyphen."""
        name = name or f"{self.namespace}-{self.fresh('class')}"
        body: Object = {
            "metadata": {"name": name, "annotations": {DEFAULT_CLASS: "true"} if default else {}},
            "driver": driver or self.driver_name,
            "deletionPolicy": policy,
            "parameters": {_parameter(key): value for key, value in parameters.items()},
        }
        self.calls.create(f"{GROUP}/volumesnapshotclasses", _typed("VolumeSnapshotClass", body))
        return name

    def volume(self) -> str:
        """A volume of the driver; its handle."""
        return str(self.driver.volume(self.fresh(self.namespace), _VOLUME_BYTES).volume_id)

    def claim(self, *, mode: str = "Filesystem", bound: bool = True, **source: Object) -> Claim:
        """A claim that is bound to a new volume; not bound, it waits for ever. `source` replaces the CSI source."""
        name = self.fresh("claim")
        spec: Object = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeMode": mode}
        if not bound:
            self.pending_claim(name, {**spec, "storageClassName": "nobody-provisions-this"})
            return Claim(name, "")
        handle = "" if source else self.volume()
        volume = f"{self.namespace}-{name}"
        made = self.pending_claim(name, {**spec, "volumeName": volume})
        body = {
            **spec,
            **(source or {"csi": {"driver": self.driver_name, "volumeHandle": handle}}),
            "capacity": {"storage": "1Mi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": self.namespace, "name": name, "uid": made["metadata"]["uid"]},
        }
        self.calls.create("/api/v1/persistentvolumes", {"metadata": {"name": volume}, "spec": body})
        told = {"phase": "Bound", "accessModes": spec["accessModes"], "capacity": body["capacity"]}
        self.patch("claims", name, {"status": told}, sub="status")
        self.seen.until(f"{name} bound", lambda: status(self.of("claims", name)).get("phase") == "Bound")
        return Claim(name, handle)

    def pending_claim(self, name: str, spec: Object) -> Object:
        """A claim with this spec, as it stands."""
        body = {"metadata": {"name": name}, "spec": {**spec, "resources": {"requests": {"storage": "1Mi"}}}}
        return self.calls.create(f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims", body)

    def snapshot(self, source: Claim | str, klass: str | None = "", *, name: str = "") -> str:
        """A VolumeSnapshot of a claim, or (a text) of a content. `klass` None names no class."""
        name = name or self.fresh("snapshot")
        of_content = isinstance(source, str)
        spec: Object = {
            "source": {"volumeSnapshotContentName": source}
            if isinstance(source, str)
            else {"persistentVolumeClaimName": source.name}
        }
        if klass or (klass == "" and not of_content):
            spec["volumeSnapshotClassName"] = klass or self.class_name
        body = _typed("VolumeSnapshot", {"metadata": {"name": name}, "spec": spec})
        self.calls.create(f"{GROUP}/namespaces/{self.namespace}/volumesnapshots", body)
        self.until(f"{name} seen", lambda: self.of("snapshots", name) or self.past("snapshots", name))
        return name

    def content(self, handle: str, snapshot: str, *, policy: str = "Delete", called: str = "", **spec: Any) -> str:
        """A pre-provisioned content for the snapshot of this name; its own name is `called`."""
        name = called or f"{self.namespace}-{self.fresh('content')}"
        body: Object = {
            "driver": self.driver_name,
            "deletionPolicy": policy,
            "source": {"snapshotHandle": handle},
            "volumeSnapshotRef": {"namespace": self.namespace, "name": snapshot},
            **spec,
        }
        made = _typed("VolumeSnapshotContent", {"metadata": {"name": name}, "spec": body})
        self.calls.create(f"{GROUP}/volumesnapshotcontents", made)
        self.until(f"{name} seen", lambda: self.of("contents", name) or self.past("contents", name))
        return name

    def cut_by_hand(self) -> pb.Snapshot:
        """A snapshot that nobody but the driver knows of."""
        return self.driver.snapshot(self.fresh(f"{self.namespace}-by-hand"), self.volume())

    def secret(self, name: str, **data: str) -> None:
        """A Secret."""
        body: Object = {"metadata": {"name": name}, "stringData": data}
        self.calls.create(f"/api/v1/namespaces/{self.namespace}/secrets", body)

    # -- changing

    def path(self, kind: str, name: str) -> str:
        """Where an object is; kinds are snapshots, contents, classes, claims and secrets."""
        match kind:
            case "snapshots":
                return f"{GROUP}/namespaces/{self.namespace}/volumesnapshots/{name}"
            case "contents" | "classes":
                plural = {"contents": "volumesnapshotcontents", "classes": "volumesnapshotclasses"}[kind]
                return f"{GROUP}/{plural}/{name}"
            case "claims" | "secrets":
                plural = "persistentvolumeclaims" if kind == "claims" else kind
                return f"/api/v1/namespaces/{self.namespace}/{plural}/{name}"
        raise ValueError(kind)

    def delete(self, kind: str, name: str) -> None:
        self.calls.delete(self.path(kind, name))

    def patch(self, kind: str, name: str, body: Object, *, sub: str = "") -> Object:
        """A merge patch, of the status with `sub`."""
        return self.calls.patch(self.path(kind, name) + (f"/{sub}" if sub else ""), body)

    def strip_content(self, name: str) -> None:
        """Make a content vanish, as people do who take its finalizers off by hand.

        Upstream's controller may make another one of the same name at once.
        """
        uid = self.patch("contents", name, {"metadata": {"finalizers": None}})["metadata"]["uid"]
        self.delete("contents", name)
        gone = lambda: ((self.of("contents", name) or {}).get("metadata") or {}).get("uid") != uid  # noqa: E731
        if not gone():
            with contextlib.suppress(calls.RefusedError):
                self.patch("contents", name, {"metadata": {"finalizers": None}})
        self.until(f"content {name} gone", gone)

    def lose_volume(self, claim: Claim) -> None:
        """Make the PersistentVolume of a bound claim vanish."""
        self.calls.delete(f"/api/v1/persistentvolumes/{self.namespace}-{claim.name}")

    def forget(self, handle: str) -> None:
        """Delete on the backend what was left there on purpose."""
        self.driver.controller.DeleteSnapshot(
            pb.DeleteSnapshotRequest(snapshot_id=handle), timeout=30, wait_for_ready=True
        )

    def strike(
        self, method: str, fault: faults.Fault, volume: str, *, until: threading.Event | None = None, **options: Any
    ) -> None:
        """Script a fault for the snapshot calls of one volume (CreateSnapshot) or of its snapshots (others)."""

        def concerns(asked: Any) -> bool:
            return not (until is not None and until.is_set()) and self._concerns(asked, volume)

        self.proxy.script(method, fault, when=concerns, **options)

    def _concerns(self, asked: Any, volume: str) -> bool:
        if isinstance(asked, pb.CreateSnapshotRequest):
            return asked.source_volume_id == volume
        handle = str(getattr(asked, "snapshot_id", ""))
        return bool(handle) and handle in self._handles(volume)

    def _handles(self, volume: str) -> set[str]:
        return {
            call.reply.snapshot.snapshot_id
            for call in self.proxy.called("CreateSnapshot")
            if isinstance(call.reply, pb.CreateSnapshotResponse) and call.reply.snapshot.source_volume_id == volume
        }

    # -- looking

    def of(self, kind: str, name: str) -> Object | None:
        """The object as last seen."""
        return self.seen.get(*self._place(kind, name))

    def live(self, kind: str, name: str) -> Object:
        """The object as the API server has it at this moment."""
        return self.calls.get(self.path(kind, name))

    def past(self, kind: str, name: str) -> list[Object]:
        """All its versions that were seen."""
        return self.seen.past(*self._place(kind, name))

    def _place(self, kind: str, name: str) -> tuple[str, str, str]:
        plural = {
            "snapshots": "volumesnapshots",
            "contents": "volumesnapshotcontents",
            "claims": "persistentvolumeclaims",
        }[kind]
        return plural, name, "" if kind == "contents" else self.namespace

    def creates(self, volume: str) -> list[wire.Call]:
        """The CreateSnapshot calls for a volume that reached the proxy."""
        return [
            call
            for call in self.proxy.called("CreateSnapshot")
            if isinstance(call.request, pb.CreateSnapshotRequest) and call.request.source_volume_id == volume
        ]

    def calls_for(self, method: str, handle: str) -> list[wire.Call]:
        """The calls of a method with this snapshot_id."""
        return [call for call in self.proxy.called(method) if getattr(call.request, "snapshot_id", "") == handle]

    def backend(self, volume: str = "") -> list[str]:
        """The handles that the driver itself lists, of one volume or of all."""
        asked = pb.ListSnapshotsRequest(source_volume_id=volume)
        listed = self.driver.controller.ListSnapshots(asked, timeout=30, wait_for_ready=True)
        return [entry.snapshot.snapshot_id for entry in listed.entries]

    def events(self, name: str) -> list[Object]:
        """The events about a snapshot or a content, the oldest first."""
        found = [one for one in self.seen.all("events") if one["involvedObject"].get("name") == name]
        return sorted(found, key=lambda one: int(one["metadata"]["resourceVersion"]))

    def reasons(self, name: str) -> list[str]:
        """The reasons of these events."""
        return [str(one["reason"]) for one in self.events(name)]

    # -- waiting

    def until(self, what: str, holds: Callable[[], Any], seconds: float = 60.0) -> Any:
        return self.seen.until(what, holds, seconds)

    def let_it_be_heard(self) -> None:
        """All halves decide on what their caches say: news of every kind must have reached them.

        A cache hears of one kind in order; so whoever cuts what is younger has heard what is older.
        """
        klass = self.klass()
        name = self.snapshot(self.claim(), klass)
        self.until_ready(name)
        self.remove(name)
        self.delete("classes", klass)

    def until_ready(self, name: str) -> Object:
        """The VolumeSnapshot once it is ready, and its content is heard to be: two watches tell of the two."""

        def ready() -> Object | None:
            found = self.of("snapshots", name)
            if not found or not status(found).get("readyToUse"):
                return None
            content = self.of("contents", str(status(found).get("boundVolumeSnapshotContentName")))
            return found if status(content).get("readyToUse") else None

        return self.seen.until(f"{name} ready", ready)

    def until_error(self, name: str, words: str, kind: str = "snapshots") -> Object:
        """The object once its status tells of an error with these words; it may have gone on since we heard."""

        def told() -> Object | None:
            return next((one for one in reversed(self.past(kind, name)) if words in error_text(one)), None)

        try:
            return self.seen.until(f"{name}: an error with {words!r}", told)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {error_text(self.of(kind, name))!r}") from None

    def until_event(self, reason: str, *about: str) -> Object:
        """An event with this reason about one of these objects."""

        def told() -> Object | None:
            return next((e for name in about for e in self.events(name) if e["reason"] == reason), None)

        try:
            return self.seen.until(f"event {reason} about {about}", told)
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {[self.reasons(name) for name in about]}") from None

    def until_gone(self, kind: str, name: str) -> None:
        """Wait for its end; the error shows how it stands otherwise."""
        try:
            self.seen.until(f"{kind} {name} gone", lambda: self.of(kind, name) is None)
        except AssertionError as error:
            found = json.dumps({**(self.of(kind, name) or {}), "events": self.reasons(name)})
            raise AssertionError(f"{error}: {found}") from None

    def remove(self, name: str) -> None:
        """Delete a VolumeSnapshot and wait until it is gone, with whatever is to go with it."""
        self.delete("snapshots", name)
        self.until_away(name)

    def until_away(self, name: str) -> None:
        """Wait until a deleted VolumeSnapshot is gone, and its content if its policy is Delete."""
        self.until_gone("snapshots", name)
        uid = self.past("snapshots", name)[-1]["metadata"]["uid"]
        for one in self.seen.all("volumesnapshotcontents"):
            if one["spec"]["volumeSnapshotRef"].get("uid") == uid:
                self._until_settled(one["metadata"]["name"], uid)

    def _until_settled(self, content: str, uid: str) -> None:
        """Wait until a content is gone or is to be kept: its policy or its VolumeSnapshot may have become another
        without our having heard yet."""

        def settled() -> bool:
            spec = (self.of("contents", content) or {"spec": None})["spec"]
            return spec is None or spec["deletionPolicy"] != "Delete" or spec["volumeSnapshotRef"].get("uid") != uid

        try:
            self.seen.until(f"{content} gone or kept", settled)
        except AssertionError:
            self.until_gone("contents", content)

    def is_going(self, kind: str, name: str) -> bool:
        """Whether its deletion has been asked for, or is done."""
        found = self.of(kind, name)
        return found is None or "deletionTimestamp" in found["metadata"]

    def content_of(self, name: str) -> Object:
        """The content that a VolumeSnapshot is bound to."""
        bound = status(self.of("snapshots", name))["boundVolumeSnapshotContentName"]
        found = self.of("contents", bound)
        assert found is not None, bound
        return found


def _parameter(key: str) -> str:
    if key.startswith("__"):
        return "csi.storage.k8s.io/" + key.removeprefix("__").replace("_", "-")
    return key


def _typed(kind: str, body: Object) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, **body}


@contextlib.contextmanager
def standing(
    kind: stacks.Kind, admin: access.Access, seen: mirror.Mirror, backstage: mirror.Backstage, driver_name: str = ""
) -> Iterator[Stage]:
    """A driver, the proxy in front of it and a stack that is not started; leaving the block stops all of them."""
    folder = paths.fresh("stage")
    name = driver_name or f"{kind.name}.interop.test"
    with localdisk.start_localdisk(folder / "disk", mode="directory", driver_name=name, rootless=True) as driver:
        middle = proxy.FaultProxy(driver.socket, Path(folder) / "csi.sock")
        backstage.run(middle.__aenter__())
        stack = stacks.Stack(kind, admin, middle.listen)
        stage = Stage(admin, seen, stack, driver, middle, name)
        try:
            stage.prepare()
            yield stage
        finally:
            stage.calls.close()
            stage.stack.close()
            backstage.run(middle.__aexit__(None, None, None))
