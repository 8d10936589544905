"""What kubectl shows, under upstream's pair and under ours on one control plane: the same columns and the same texts.

Each side is given the same objects under the same names, with its own definitions. What differs by nature is made the
same first: uids, ages, instants, handles, versions. Two differences are meant, and are checked as such: the merged
service sends one of the three normal events (SnapshotReady), and its errors go on with what to do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import claims, localdisk, serve
from tests.support.bed import access, build, controlplane, incumbent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

DRIVER = "transcript.snapbridge.dev"
CLASS = "shop"
Object = dict[str, Any]


@dataclasses.dataclass
class Transcript:
    """One side's answers, by step."""

    admin: access.Access
    namespace: str
    handle: str
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    events: dict[str, set[tuple[str, str, str]]] = dataclasses.field(default_factory=dict)

    def run(self, step: str, *words: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace, and keep what it says."""
        done = self.admin.run_kubectl(*words, "-n", self.namespace, stdin=stdin)
        self.texts[step] = plain((done.stdout + done.stderr).replace(self.namespace, "NAMESPACE"))
        return done.stdout

    def keep_events(self, step: str, name: str) -> None:
        """(type, reason, message) of all events of a snapshot so far."""
        self.events[step] = self.told(name)

    def told(self, name: str) -> set[tuple[str, str, str]]:
        """The events of a snapshot so far."""
        path = f"/api/v1/namespaces/{self.namespace}/events?fieldSelector=involvedObject.name={name}"
        found = json.loads(self.admin.request("GET", path)[1])["items"]
        texts = {one["message"]: plain(one["message"].replace(self.namespace, "NAMESPACE")) for one in found}
        return {(one["type"], one["reason"], texts[one["message"]]) for one in found}

    def until_told(self, name: str, reason: str = "") -> None:
        """Wait for an event of this reason, or for any."""
        self.until(f"{name}: {reason}", lambda: any(reason in one[1] for one in self.told(name)))

    @property
    def snapshots(self) -> str:
        return f"{claims.GROUP}/namespaces/{self.namespace}/volumesnapshots"

    def post(self, path: str, body: Object) -> None:
        """What the transcript does not need kubectl for: each of its processes costs a while."""
        status, answer = self.admin.request("POST", path, body)
        assert status == 201, answer

    def delete(self, path: str) -> None:
        assert self.admin.request("DELETE", path)[0] == 200

    def snapshot(self, name: str) -> Object:
        status, body = self.admin.request("GET", f"{self.snapshots}/{name}")
        found: Object = json.loads(body)
        return found if status == 200 else {}

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        claims.until(what, holds, 60.0)


def plain(text: str) -> str:
    """Without what is never the same twice."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "INSTANT", text)
    text = re.sub(r"(Creation Time|Generation|Resource Version): +\d+", r"\1: N", text)
    text = re.sub(r"\bsnap-[0-9a-f]+\b", "HANDLE", text)
    return re.sub(r"(?<=\s)(\d+m\d+s|\d+m|\d+s)\b", "AGE", text)


def lines(text: str) -> list[list[str]]:
    """A table's words, line by line: how wide a column is depends on what stands in it."""
    return [line.split() for line in text.splitlines()]


def block(text: str, name: str) -> list[str]:
    """The lines of one top-level block of `kubectl describe`."""
    found = re.search(rf"^{name}:.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s+", " ", line).strip() for line in found.group().splitlines()] if found else []


def definitions(plane: controlplane.ControlPlane, *, ours: bool) -> None:
    """Put one side's own definitions in place."""
    folder = claims.CRDS if ours else build.snapshotter_client_module() / "config" / "crd"
    files = [path for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"]
    words = [word for path in files for word in ("-f", str(path))]
    plane.kubectl("apply", "--server-side", "--force-conflicts", *words)
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


@contextlib.contextmanager
def ours(plane: controlplane.ControlPlane, driver: localdisk.LocalDisk) -> Iterator[None]:
    made = serve.service(
        clusters=[{"name": "kube", "kind": "kubernetes", "kubeconfig": str(plane.kubeconfig)}],
        plugins=[{"name": "localdisk", "socket": str(driver.socket)}],
    )
    with made:
        yield


@contextlib.contextmanager
def upstreams(plane: controlplane.ControlPlane, driver: localdisk.LocalDisk) -> Iterator[None]:
    with incumbent.running(plane.admin, driver.socket):
        yield


def play(plane: controlplane.ControlPlane, driver: localdisk.LocalDisk, namespace: str, handle: str) -> Transcript:
    """The whole session of one user."""
    made = Transcript(plane.admin, namespace, handle)
    plane.kubectl("create", "namespace", namespace)
    claims.bound(plane.admin, namespace, "data", DRIVER, handle)
    classes(made)
    taken(made)
    wrong(made)
    pending(made)
    given(made, driver)
    groups(made)
    plane.kubectl("delete", "vsclass,vgsclass", "--all", "--timeout=50s")
    return made


def classes(made: Transcript) -> None:
    body = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": {"name": CLASS},
        "driver": DRIVER,
        "deletionPolicy": "Delete",
    }
    made.run("apply class", "apply", "-f", "-", stdin=json.dumps(body))
    made.run("get vsclass", "get", "vsclass")
    made.run("describe vsclass", "describe", "vsclass", CLASS)
    group = {**body, "apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshotClass"}
    made.post("/apis/groupsnapshot.storage.k8s.io/v1/volumegroupsnapshotclasses", group)
    made.run("get vgsclass", "get", "vgsclass")


def groups(made: Transcript) -> None:
    """Only so that there are rows: without one, kubectl shows no columns."""
    name = f"{made.namespace}-group"
    root = "/apis/groupsnapshot.storage.k8s.io/v1"
    head = {"apiVersion": "groupsnapshot.storage.k8s.io/v1", "metadata": {"name": name}}
    spec: Object = {"driver": "nobody.example", "deletionPolicy": "Retain", "source": {"volumeHandles": ["v"]}}
    spec["volumeGroupSnapshotRef"] = {"name": name, "namespace": made.namespace}
    made.post(f"{root}/volumegroupsnapshotcontents", {**head, "kind": "VolumeGroupSnapshotContent", "spec": spec})
    body = {**head, "kind": "VolumeGroupSnapshot", "spec": {"source": {"volumeGroupSnapshotContentName": "nobody"}}}
    made.post(f"{root}/namespaces/{made.namespace}/volumegroupsnapshots", body)
    made.run("get vgs", "get", "vgs")
    made.run("get vgsc", "get", "vgsc")


def taken(made: Transcript) -> None:
    """A snapshot that works, and its end."""
    body = json.dumps(claims.snapshot(made.namespace, "one", "data", CLASS))
    made.run("apply vs", "apply", "-f", "-", stdin=body)
    made.until("ready", lambda: claims.is_ready(made.admin, made.namespace, "one"))
    for kind in ("vs", "vsc"):
        made.run(f"get {kind}", "get", kind)
        made.run(f"get {kind} -o wide", "get", kind, "-o", "wide")
        made.run(f"describe {kind}", "describe", kind)
    made.until_told("one", "SnapshotReady")
    made.keep_events("taken", "one")
    made.run("apply vs again", "apply", "-f", "-", stdin=body)
    made.run("delete vs", "delete", "vs", "one", "--timeout=40s")
    made.until("no content", lambda: not claims.contents(made.admin))
    made.run("get vs, none", "get", "vs")


def wrong(made: Transcript) -> None:
    """A class and a claim that are not there."""
    for name, claim, klass in (("no-class", "data", "nowhere"), ("no-claim", "nobody", CLASS)):
        made.post(made.snapshots, claims.snapshot(made.namespace, name, claim, klass))
        made.until("told", lambda name=name: bool(made.snapshot(name).get("status", {}).get("error")))  # type: ignore[misc]
        made.run(f"get {name}", "get", "vs", name)
        made.run(f"describe {name}", "describe", "vs", name)
        made.until_told(name)
        made.keep_events(name, name)
        made.delete(f"{made.snapshots}/{name}")
        made.until("gone", lambda name=name: not made.snapshot(name))  # type: ignore[misc]


def pending(made: Transcript) -> None:
    """A deletion that waits for a claim that is being filled."""
    made.post(made.snapshots, claims.snapshot(made.namespace, "used", "data", CLASS))
    made.until("ready", lambda: claims.is_ready(made.admin, made.namespace, "used"))
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "filling", "namespace": made.namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "nobody-provisions",
            "resources": {"requests": {"storage": "32Mi"}},
            "dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "used"},
        },
    }
    claims_path = f"/api/v1/namespaces/{made.namespace}/persistentvolumeclaims"
    made.post(claims_path, claim)
    heard_of_claims(made, claims_path)
    made.run("delete pending", "delete", "vs", "used", "--wait=false")
    made.until_told("used", "SnapshotDeletePending")
    made.run("get pending", "get", "vs", "used")
    made.run("describe pending", "describe", "vs", "used")
    made.keep_events("pending", "used")
    made.delete(f"{claims_path}/filling")
    made.until("gone", lambda: not made.snapshot("used"))


def heard_of_claims(made: Transcript, claims_path: str) -> None:
    """Wait until the controller has heard of all claims so far: it hears of them in order, so of a younger one."""
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "nobody-provisions"}
    body = {"metadata": {"name": "younger"}, "spec": {**spec, "resources": {"requests": {"storage": "32Mi"}}}}
    made.post(claims_path, body)
    made.post(made.snapshots, claims.snapshot(made.namespace, "heard", "younger", CLASS))
    told = lambda: "not yet bound" in json.dumps(made.snapshot("heard").get("status", {}))  # noqa: E731
    made.until("the youngest claim is heard of", told)
    made.delete(f"{made.snapshots}/heard")
    made.until("gone", lambda: not made.snapshot("heard"))
    made.delete(f"{claims_path}/younger")


def given(made: Transcript, driver: localdisk.LocalDisk) -> None:
    """A pre-provisioned snapshot, kept."""
    cut = driver.snapshot("given", made.handle)
    content = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": "given"},
        "spec": {
            "driver": DRIVER,
            "deletionPolicy": "Delete",
            "source": {"snapshotHandle": cut.snapshot_id},
            "volumeSnapshotRef": {"name": "given", "namespace": made.namespace},
        },
    }
    body = claims.snapshot(made.namespace, "given", "data", CLASS)
    body["spec"]["source"] = {"volumeSnapshotContentName": "given"}
    made.post(f"{claims.GROUP}/volumesnapshotcontents", content)
    made.post(made.snapshots, body)
    made.until("ready", lambda: claims.is_ready(made.admin, made.namespace, "given"))
    made.run("get given", "get", "vs,vsc")
    made.run("describe given vs", "describe", "vs")
    made.run("describe given vsc", "describe", "vsc")
    made.run("delete given", "delete", "vs", "given", "--timeout=40s")
    made.until("no content", lambda: not claims.contents(made.admin))


@pytest.fixture(scope="module")
def sides(upstream_pair: None) -> tuple[Transcript, Transcript]:
    """Upstream's transcript and ours, of one control plane, one after the other."""
    del upstream_pair
    found = []
    with controlplane.running() as plane, localdisk.start_localdisk(mode="directory", driver_name=DRIVER) as driver:
        handle = driver.volume("data", 1 << 20).volume_id
        for own, start, namespace in ((False, upstreams, "their-shop"), (True, ours, "our-shop")):
            definitions(plane, ours=own)
            with start(plane, driver):
                found.append(play(plane, driver, namespace, handle))
    return found[0], found[1]


TABLES = (
    *("get vsclass", "get vgsclass"),
    *("get vs", "get vs -o wide", "get vsc", "get vsc -o wide"),
    *("get no-class", "get no-claim", "get pending", "get given"),
)
SAYINGS = (
    *("apply class", "apply vs", "apply vs again", "delete vs", "get vs, none"),
    *("delete pending", "delete given"),
)


@pytest.mark.parametrize("step", TABLES)
def test_tables_have_the_same_columns_and_rows(sides: tuple[Transcript, Transcript], step: str) -> None:
    theirs, mine = (lines(side.texts[step]) for side in sides)
    assert mine == theirs


@pytest.mark.parametrize("step", ["get vgs", "get vgsc"])
def test_tables_of_groups_have_the_same_columns(sides: tuple[Transcript, Transcript], step: str) -> None:
    theirs, mine = (lines(side.texts[step])[0] for side in sides)
    assert mine == theirs
    assert "READYTOUSE" in mine


@pytest.mark.parametrize("step", SAYINGS)
def test_kubectl_says_the_same(sides: tuple[Transcript, Transcript], step: str) -> None:
    assert sides[1].texts[step] == sides[0].texts[step]


@pytest.mark.parametrize(
    "step", ["describe vs", "describe vsc", "describe given vs", "describe given vsc", "describe vsclass"]
)
@pytest.mark.parametrize("name", ["Name", "API Version", "Kind", "Spec", "Status", "Driver", "Deletion Policy"])
def test_describe_shows_the_same_blocks(sides: tuple[Transcript, Transcript], step: str, name: str) -> None:
    theirs, mine = (block(side.texts[step], name) for side in sides)
    assert mine == theirs


@pytest.mark.parametrize("step", ["no-class", "no-claim"])
def test_errors_begin_with_the_same_words_and_go_on_with_a_remedy(
    sides: tuple[Transcript, Transcript], step: str
) -> None:
    """A claim that is not there is named by ours; upstream says "cannot get claim from snapshot"."""
    theirs, mine = (block(side.texts[f"describe {step}"], "Status") for side in sides)
    assert len(theirs) == len(mine) > 2
    for one, other in zip(theirs, mine, strict=True):
        if one.startswith("Message:"):
            beginning = one.partition("error ")[0] if step == "no-claim" else one
            assert other.startswith(beginning)
            assert ("nobody" if step == "no-claim" else "nowhere") in other
        else:
            assert other == one
    events = [{(kind, reason) for kind, reason, _text in side.events[step]} for side in sides]
    assert events[1] == events[0]


def test_of_the_three_normal_events_the_last_one_is_sent(sides: tuple[Transcript, Transcript]) -> None:
    theirs, mine = (side.events["taken"] for side in sides)
    assert {reason for _kind, reason, _text in theirs} == {"CreatingSnapshot", "SnapshotCreated", "SnapshotReady"}
    assert mine == {one for one in theirs if one[1] == "SnapshotReady"}


def test_a_deletion_that_waits_is_told_alike(sides: tuple[Transcript, Transcript]) -> None:
    told = [{one for one in side.events["pending"] if one[0] == "Warning"} for side in sides]
    assert {one[1] for one in told[1]} == {one[1] for one in told[0]} == {"SnapshotDeletePending"}
    theirs, mine = (block(side.texts["describe pending"], "Status") for side in sides)
    assert mine == theirs
