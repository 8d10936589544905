"""What no API server would take, and answers that no driver should give: told, and neither a loop nor a crash.

The cluster's definitions have no schema here, as if validation were off, so that objects are as wrong as they like.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from adapters.kubernetes.facts import seconds_of
from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import claims, csi_server, csi_thread, serve
from tests.support.bed import controlplane, paths
from tests.support.bed.requests import WRITES

pytestmark = pytest.mark.slow

DRIVER = "malformed.snapbridge.dev"
NAMESPACE = "malformed"
CLASS = "good"
GROUPS = "/apis/groupsnapshot.storage.k8s.io/v1"
WATCHED = {
    "volumesnapshots",
    "volumegroupsnapshots",
    "volumesnapshotcontents",
    "volumesnapshotclasses",
    "persistentvolumeclaims",
    "events",
}
QUIET_SECONDS = 1.2
MOST_WRITES = 4
"""In `QUIET_SECONDS`, for all objects of this file together: a back-off that happens to be over now."""
HUGE = "x" * 10_000
Object = dict[str, Any]


@dataclasses.dataclass
class Stand:
    plane: controlplane.ControlPlane
    plugin: csi_server.Plugin
    service: serve.Serve

    def call(self, method: str, path: str, body: Object | None = None) -> Object:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        status, answer = self.plane.admin.request(method, path, body, kind)
        assert status < 300, (method, path, status, answer)
        found: Object = json.loads(answer)
        return found

    def path(self, plural: str, name: str = "") -> str:
        where = f"namespaces/{NAMESPACE}/" if plural in ("volumesnapshots", "volumegroupsnapshots") else ""
        api = GROUPS if plural.startswith("volumegroup") else claims.GROUP
        return f"{api}/{where}{plural}" + (f"/{name}" if name else "")

    def make(self, plural: str, body: Object) -> Object:
        """Create an object with its status, which needs a second write."""
        made = self.call("POST", self.path(plural), body)
        if "status" in body:
            made = self.call(
                "PATCH", self.path(plural, made["metadata"]["name"]) + "/status", {"status": body["status"]}
            )
        return made

    def get(self, plural: str, name: str) -> Object:
        return self.call("GET", self.path(plural, name))

    def error(self, name: str, plural: str = "volumesnapshots") -> str:
        """What a VolumeSnapshot's status says is wrong, or a group's."""
        status = self.get(plural, name).get("status")
        return str(((status if isinstance(status, dict) else {}).get("error") or {}).get("message", ""))

    def warnings(self, name: str, namespace: str = NAMESPACE) -> list[str]:
        """The warning events about an object."""
        where = f"/api/v1/namespaces/{namespace}/events?fieldSelector=type=Warning,involvedObject.name={name}"
        return [one["message"] for one in self.call("GET", where)["items"]]

    def delete(self, plural: str, name: str) -> None:
        self.call("DELETE", self.path(plural, name))
        claims.until("gone", lambda: self.plane.admin.request("GET", self.path(plural, name))[0] == 404, 30.0)

    def quiet(self) -> float:
        """Nothing is written over and over, nothing has crashed, and good work still goes on.

        Gives how many times `QUIET_SECONDS` it has looked: more than one on a machine that stands still.
        """
        before, begun = self.plane.metrics(), time.monotonic()
        time.sleep(QUIET_SECONDS)
        wrote = (self.plane.metrics() - before).total(WRITES, WATCHED)
        seconds = time.monotonic() - begun
        assert wrote <= MOST_WRITES * seconds / QUIET_SECONDS, f"{wrote} writes in {seconds:.1f} s"
        log = self.service.process.log.read_text()
        assert "Traceback" not in log
        assert "crashed" not in log
        return seconds / QUIET_SECONDS

    def until_told(self, name: str, words: str, plural: str = "volumesnapshots") -> None:
        """Wait until the status names these words: what was heard of first may have told of less before."""
        try:
            claims.until(f"{name} is told {words!r}", lambda: words in self.error(name, plural), 60.0)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.error(name, plural)!r}") from None

    def until_warned(self, name: str, words: str = "", namespace: str = NAMESPACE) -> None:
        """Wait for a warning event with these words."""
        warned = lambda: any(words in text for text in self.warnings(name, namespace))  # noqa: E731
        claims.until(f"{name} has an event {words!r}", warned, 60.0)


def snapshot(name: str, **changes: Any) -> Object:
    body = claims.snapshot(NAMESPACE, name, "data", CLASS)
    return changed(body, changes)


def content(name: str, **changes: Any) -> Object:
    body = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": name},
        "spec": {
            "driver": DRIVER,
            "deletionPolicy": "Delete",
            "source": {"snapshotHandle": "snap-9"},
            "volumeSnapshotRef": {"name": name, "namespace": NAMESPACE},
        },
    }
    return changed(body, changes)


def changed(body: Object, changes: Object) -> Object:
    """Fields by path (`__` between names); None takes one away."""
    made = copy.deepcopy(body)
    for path, value in changes.items():
        *outer, last = path.split("__")
        inner = made
        for field in outer:
            inner = inner[field]
        if value is None:
            inner.pop(last)
        else:
            inner[last] = value
    return made


def any_shape(path: Any) -> Object:
    """A definition that takes every object, with its sub-resources."""
    found: Object = yaml.safe_load(path.read_text())
    for version in found["spec"]["versions"]:
        version["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return found


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    folder = paths.fresh("malformed")
    plugin = csi_server.Plugin(DRIVER)
    with controlplane.running() as plane, csi_thread.serving(plugin, folder / "csi.sock"):
        files = [path for path in sorted(claims.CRDS.glob("*.yaml")) if path.name != "kustomization.yaml"]
        plane.admin.apply([any_shape(path) for path in files])
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        plane.kubectl("create", "namespace", NAMESPACE)
        claims.bound(plane.admin, NAMESPACE, "data", DRIVER, "vol-1")
        made = serve.service(
            clusters=[{"name": "kube", "kind": "kubernetes", "kubeconfig": str(plane.kubeconfig)}],
            plugins=[{"name": "rogue", "socket": str(folder / "csi.sock")}],
        )
        with made as running:
            stand = Stand(plane, plugin, running)
            stand.make("volumesnapshotclasses", klass(CLASS))
            yield stand


def klass(name: str, **changes: Any) -> Object:
    body = {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "metadata": {"name": name}}
    return changed({**body, "driver": DRIVER, "deletionPolicy": "Delete"}, changes)


SNAPSHOTS: dict[str, tuple[Object, str]] = {
    "no-spec": ({"spec": None}, "spec is missing, it must be an object"),
    "spec-text": ({"spec": "text"}, "spec is 'text'"),
    "no-source": ({"spec__source": None}, "spec.source is missing"),
    "source-list": ({"spec__source": ["data"]}, "spec.source is ['data']"),
    "claim-object": (
        {"spec__source": {"persistentVolumeClaimName": {"a": 1}}},
        "persistentVolumeClaimName is {'a': 1}",
    ),
    "content-number": ({"spec__source": {"volumeSnapshotContentName": 7}}, "volumeSnapshotContentName is 7"),
    "class-list": ({"spec__volumeSnapshotClassName": ["a"]}, "volumeSnapshotClassName is ['a']"),
    "neither": ({"spec__source": {}}, "Exactly one of"),
    "both": (
        {"spec__source": {"persistentVolumeClaimName": "data", "volumeSnapshotContentName": "x"}},
        "Exactly one of",
    ),
    "empty-class": ({"spec__volumeSnapshotClassName": ""}, "cannot find default snapshot class"),
    "huge-class": ({"spec__volumeSnapshotClassName": HUGE}, "not found"),
}


def test_malformed_snapshots_are_told_and_can_be_deleted(stand: Stand) -> None:
    for name, (changes, _words) in SNAPSHOTS.items():
        stand.make("volumesnapshots", snapshot(name, **changes))
    for name, (_changes, words) in SNAPSHOTS.items():
        stand.until_told(name, words)
        stand.until_warned(name)
    stand.quiet()
    for name in SNAPSHOTS:
        stand.delete("volumesnapshots", name)
    assert stand.plugin.store.snapshots == {}


def test_a_malformed_status_is_told_anew(stand: Stand) -> None:
    stand.make("volumesnapshots", snapshot("status"))
    claims.until("ready", lambda: claims.is_ready(stand.plane.admin, NAMESPACE, "status"))
    good = stand.get("volumesnapshots", "status")["status"]
    for status in ("text", {**good, "readyToUse": "yes", "creationTime": 7, "error": "none"}):
        stand.call("PATCH", stand.path("volumesnapshots", "status") + "/status", {"status": status})
        claims.until("mended", lambda: stand.get("volumesnapshots", "status")["status"] == good, 30.0)
    stand.delete("volumesnapshots", "status")
    assert stand.plugin.store.snapshots == {}


CONTENTS: dict[str, tuple[Object, str]] = {
    "c-no-spec": ({"spec": None}, "spec is missing"),
    "c-no-source": ({"spec__source": None}, "spec.source is missing"),
    "c-driver": ({"spec__driver": None}, "spec.driver is missing"),
    "c-policy": ({"spec__deletionPolicy": "Explode"}, "spec.deletionPolicy is 'Explode'"),
    "c-ref": ({"spec__volumeSnapshotRef": "me"}, "spec.volumeSnapshotRef is 'me'"),
    "c-handle": ({"spec__source": {"snapshotHandle": 7}}, "spec.source.snapshotHandle is 7"),
    "c-status": ({"status": {"restoreSize": "1Gi"}}, "status.restoreSize is '1Gi'"),
    "c-marked": (
        {"status": {"snapshotHandle": ["snap-9"], "readyToUse": True}},
        "status.snapshotHandle is ['snap-9']",
    ),
}


def test_malformed_contents_are_told_with_and_without_a_snapshot_and_take_no_data_along(stand: Stand) -> None:
    stand.plugin.store.snapshots["snap-9"] = pb.Snapshot(
        snapshot_id="snap-9", source_volume_id="v", ready_to_use=True
    )
    for name, (changes, _words) in CONTENTS.items():
        stand.make("volumesnapshotcontents", content(name, **changes))
        source = {"volumeSnapshotContentName": name}
        stand.make("volumesnapshots", snapshot(name, spec__source=source, spec__volumeSnapshotClassName=None))
    for name, (_changes, words) in CONTENTS.items():
        stand.until_told(name, f"VolumeSnapshotContent {name} is malformed: {words}")
        stand.until_warned(name, words, "default")
    stand.quiet()
    for name in CONTENTS:
        stand.delete("volumesnapshots", name)
        stand.delete("volumesnapshotcontents", name)
    assert stand.plugin.store.snapshots.pop("snap-9", None) is not None, "nothing malformed takes data along"


CLASSES: dict[str, tuple[Object, str]] = {
    "k-driver": ({"driver": None}, "driver is missing"),
    "k-number": ({"driver": 7}, "driver is 7"),
    "k-policy": ({"deletionPolicy": "Explode"}, "deletionPolicy is 'Explode', it must be Delete or Retain"),
    "k-list": ({"parameters": ["a"]}, "parameters is ['a']"),
    "k-value": ({"parameters": {"size": 7}}, "parameters.size is 7, it must be a text"),
    "k-token": (
        {
            "parameters": {
                "csi.storage.k8s.io/snapshotter-secret-name": "${pvc.name}-$who",
                "csi.storage.k8s.io/snapshotter-secret-namespace": "default",
            }
        },
        'invalid tokens: ["pvc.name" "who"]',
    ),
    "k-reserved": ({"parameters": {"csi.storage.k8s.io/colour": "red"}}, "unknown parameter key"),
    "k-half": ({"parameters": {"csi.storage.k8s.io/snapshotter-secret-name": "a"}}, "Both must be specified"),
}


def test_malformed_classes_are_told(stand: Stand) -> None:
    for name, (changes, _words) in CLASSES.items():
        stand.make(
            "volumesnapshotclasses", klass(name, **changes) if "driver" not in changes else klass(name) | changes
        )
        stand.make("volumesnapshots", snapshot(name, spec__volumeSnapshotClassName=name))
    for name, (_changes, words) in CLASSES.items():
        stand.until_told(name, words)
        stand.until_warned(name)
    stand.quiet()
    for name in CLASSES:
        stand.delete("volumesnapshots", name)
        stand.delete("volumesnapshotclasses", name)
    assert stand.plugin.store.snapshots == {}


GROUP_SNAPSHOTS: dict[str, tuple[Object, str]] = {
    "g-spec": ({"spec": "text"}, "spec is 'text'"),
    "g-selector": ({"spec__source": {"selector": ["a"]}}, "spec.source.selector is ['a']"),
    "g-labels": ({"spec__source": {"selector": {"matchLabels": "a"}}}, "matchLabels is 'a'"),
    "g-class": ({"spec__volumeGroupSnapshotClassName": {}}, "volumeGroupSnapshotClassName is {}"),
}


def test_malformed_groups_are_told_and_can_be_deleted(stand: Stand) -> None:
    whole = {"spec": {"source": {"selector": {}}, "volumeGroupSnapshotClassName": "none"}}
    for name, (changes, _words) in GROUP_SNAPSHOTS.items():
        body = {"apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshot", **whole}
        stand.make("volumegroupsnapshots", changed({**body, "metadata": {"name": name}}, changes))
    for name, (_changes, words) in GROUP_SNAPSHOTS.items():
        stand.until_told(name, f"VolumeGroupSnapshot {name} is malformed: ", "volumegroupsnapshots")
        assert words in stand.error(name, "volumegroupsnapshots")
        stand.until_warned(name)
    stand.quiet()
    for name in GROUP_SNAPSHOTS:
        stand.delete("volumegroupsnapshots", name)


# -- drivers -----------------------------------------------------------------------------------------------------


def spoiled(answer: str, given: pb.Snapshot) -> pb.Snapshot:
    """A good answer, made wrong."""
    wrong: dict[str, Any] = {
        "other-source": {"source_volume_id": "vol-2"},
        "negative-size": {"size_bytes": -5},
        "huge-handle": {"snapshot_id": HUGE},
        "no-handle": {"snapshot_id": ""},
        "no-source": {"source_volume_id": ""},
    }
    made = pb.Snapshot()
    made.CopyFrom(given)
    if answer in ("year-1970", "far-future"):
        made.creation_time.FromSeconds(0 if answer == "year-1970" else 200_000_000_000)
    for field, value in wrong.get(answer, {}).items():
        setattr(made, field, value)
    return made


ANSWERS = {
    "other-source": "it is a snapshot of the volume 'vol-2', asked was 'vol-1'",
    "negative-size": "size_bytes is -5",
    "huge-handle": "snapshot_id",
    "no-handle": "snapshot_id",
    "no-source": "it is a snapshot of the volume ''",
}
ODD_INSTANTS = ("year-1970", "far-future")


def test_a_driver_that_answers_nonsense_is_told_asked_seldom_and_loses_nothing(stand: Stand) -> None:
    """The answer says what went wrong; once the driver is mended, what it cut all the same is found and deleted."""
    plugin, ill = stand.plugin, [True]

    async def create(request: pb.CreateSnapshotRequest, context: Any) -> pb.CreateSnapshotResponse:
        reply = await plugin.CreateSnapshot(request, context)
        answer = request.parameters.get("answer", "") if ill[0] else ""
        return pb.CreateSnapshotResponse(snapshot=spoiled(answer, reply.snapshot))

    plugin.script["CreateSnapshot"] = create
    for name in (*ANSWERS, *ODD_INSTANTS):
        stand.make("volumesnapshotclasses", klass(name, parameters={"answer": name}))
        stand.make("volumesnapshots", snapshot(name, spec__volumeSnapshotClassName=name))
    for name, words in ANSWERS.items():
        stand.until_told(name, words)
        assert len(stand.error(name)) < 2000
        assert stand.get("volumesnapshots", name)["status"]["readyToUse"] is False
        stand.until_warned(name)
    for name in ODD_INSTANTS:
        claims.until("ready", lambda name=name: claims.is_ready(stand.plane.admin, NAMESPACE, name))  # type: ignore[misc]
        told = seconds_of(stand.get("volumesnapshots", name)["status"].get("creationTime")) or time.time()
        assert abs(told - time.time()) < 600, "no instant, or ours, rather than a wrong one"
    asked = plugin.calls["CreateSnapshot"]
    looks = stand.quiet()
    assert plugin.calls["CreateSnapshot"] - asked <= 2 * len(ANSWERS) * looks
    assert len(plugin.store.snapshots) == len(ANSWERS) + len(ODD_INSTANTS)
    ill[0] = False
    for name in (*ANSWERS, *ODD_INSTANTS):
        stand.call("DELETE", stand.path("volumesnapshots", name))
    claims.until("nothing is left", lambda: plugin.store.snapshots == {}, 60.0)
    claims.until("no content is left", lambda: not claims.contents(stand.plane.admin), 30.0)
    plugin.script.clear()


def test_ready_that_goes_back_to_false(stand: Stand) -> None:
    """Who was told that it is ready relies on it: it stays so, and the driver is not asked for ever."""
    plugin, ready = stand.plugin, [False]

    async def create(request: pb.CreateSnapshotRequest, context: Any) -> pb.CreateSnapshotResponse:
        reply = await plugin.CreateSnapshot(request, context)
        reply.snapshot.ready_to_use = ready[0]
        return reply

    async def get(request: pb.GetSnapshotRequest, context: Any) -> pb.GetSnapshotResponse:
        reply = await plugin.GetSnapshot(request, context)
        reply.snapshot.ready_to_use = ready[0]
        return reply

    plugin.script |= {"CreateSnapshot": create, "GetSnapshot": get}
    stand.make("volumesnapshots", snapshot("back"))
    claims.until("cut", lambda: "status" in stand.get("volumesnapshots", "back"), 30.0)
    ready[0] = True
    claims.until("ready", lambda: claims.is_ready(stand.plane.admin, NAMESPACE, "back"))
    ready[0] = False
    patch = {"metadata": {"annotations": {"look": "again"}}}
    stand.call("PATCH", stand.path("volumesnapshots", "back"), patch)
    stand.quiet()
    assert claims.is_ready(stand.plane.admin, NAMESPACE, "back")
    plugin.script.clear()
    stand.delete("volumesnapshots", "back")
    assert plugin.store.snapshots == {}


def secret(stand: Stand, *, there: bool) -> None:
    where = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    if there:
        metadata = {"name": "key", "namespace": NAMESPACE}
        stand.call("POST", where, {"metadata": metadata, "stringData": {"password": "hush"}})
    else:
        stand.call("DELETE", f"{where}/key")


def test_a_secret_that_vanishes_is_told_by_name_and_waited_for(stand: Stand) -> None:
    parameters = {
        "csi.storage.k8s.io/snapshotter-secret-name": "key",
        "csi.storage.k8s.io/snapshotter-secret-namespace": "${volumesnapshot.namespace}",
    }
    stand.make("volumesnapshotclasses", klass("secret", parameters=parameters))
    stand.make("volumesnapshots", snapshot("secret", spec__volumeSnapshotClassName="secret"))
    told = f"the secret {NAMESPACE}/key does not exist (SECRET_NOT_FOUND). Create it"
    stand.until_told("secret", told)
    stand.until_warned("secret", told)
    assert stand.plugin.store.snapshots == {}
    secret(stand, there=True)
    claims.until("ready", lambda: claims.is_ready(stand.plane.admin, NAMESPACE, "secret"), 60.0)
    assert stand.error("secret") == ""
    secret(stand, there=False)
    stand.call("DELETE", stand.path("volumesnapshots", "secret"))
    stand.until_told("secret", told)
    stand.quiet()
    assert len(stand.plugin.store.snapshots) == 1, "nothing is forgotten that is still there"
    secret(stand, there=True)
    claims.until("gone", lambda: stand.plugin.store.snapshots == {}, 60.0)
    claims.until("no content is left", lambda: not claims.contents(stand.plane.admin), 30.0)
    secret(stand, there=False)


def test_handles_of_ten_kilobytes(stand: Stand) -> None:
    """A volume's and a snapshot's: never sent, told in short, and its objects can be taken away."""
    claims.bound(stand.plane.admin, NAMESPACE, "huge", DRIVER, HUGE)
    stand.make("volumesnapshots", snapshot("huge-volume", spec__source={"persistentVolumeClaimName": "huge"}))
    stand.make("volumesnapshotcontents", content("huge-snapshot", spec__source={"snapshotHandle": HUGE}))
    source = {"volumeSnapshotContentName": "huge-snapshot"}
    stand.make("volumesnapshots", snapshot("huge-snapshot", spec__source=source, spec__volumeSnapshotClassName=None))
    for name, words in (("huge-volume", "source_volume_id"), ("huge-snapshot", "snapshot_id")):
        stand.until_told(name, words)
        assert len(stand.error(name)) < 2000
    stand.quiet()
    assert not [one for one in stand.plugin.requests if HUGE in str(one)]
    stand.delete("volumesnapshots", "huge-volume")
    stand.call("DELETE", stand.path("volumesnapshots", "huge-snapshot"))
    going = functools.partial(stand.get, "volumesnapshotcontents", "huge-snapshot")
    # Retained before its deletion is asked for, it would be kept as any other.
    claims.until("its deletion is asked for", lambda: "deletionTimestamp" in going()["metadata"], 30.0)
    patch = {"spec": {"deletionPolicy": "Retain"}}
    stand.call("PATCH", stand.path("volumesnapshotcontents", "huge-snapshot"), patch)
    claims.until("gone", lambda: not claims.contents(stand.plane.admin), 30.0)
