"""At most one default class per driver: the policies of configs/kubernetes/admission on a real API server."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.kubernetes import definitions
from tests.support import claims
from tests.support.bed import paths
from tests.support.bed.controlplane import ControlPlane

POLICIES = paths.REPOSITORY / "configs/kubernetes/admission"
_numbers = itertools.count(1)
Object = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Kind:
    """Classes of one of the two kinds, through plain HTTP."""

    plane: ControlPlane
    kind: str
    group: str
    version: str = "v1"

    @property
    def mark(self) -> str:
        return f"{self.group.replace('k8s.io', 'kubernetes.io')}/is-default-class"

    @property
    def collection(self) -> str:
        return f"/apis/{self.group}/{self.version}/{self.kind.lower()}es"

    def body(self, name: str, driver: str, *, default: bool) -> Object:
        return {
            "apiVersion": f"{self.group}/{self.version}",
            "kind": self.kind,
            "metadata": {"name": name, "annotations": {self.mark: "true"} if default else {}},
            "driver": driver,
            "deletionPolicy": "Delete",
        }

    def create(self, name: str, driver: str, *, default: bool = True, dry_run: bool = False) -> tuple[int, str]:
        """The status and the message."""
        query = "?dryRun=All" if dry_run else ""
        body = self.body(name, driver, default=default)
        status, answer = self.plane.admin.request("POST", self.collection + query, body)
        return status, str(json.loads(answer).get("message", ""))

    def patch(self, name: str, **annotations: str | None) -> tuple[int, str]:
        """Merge annotations, `mark` being the one that makes a default."""
        notes = {self.mark if key == "mark" else key: value for key, value in annotations.items()}
        path = f"{self.collection}/{name}"
        patch = {"metadata": {"annotations": notes}}
        status, answer = self.plane.admin.request("PATCH", path, patch, "application/merge-patch+json")
        return status, str(json.loads(answer).get("message", ""))

    def delete(self, name: str) -> None:
        status, _answer = self.plane.admin.request("DELETE", f"{self.collection}/{name}")
        assert status in (200, 404), status

    def until_refused(self, driver: str) -> None:
        """The server hears of new objects, and of its own policies, a moment later."""
        claims.until("the policy holds", lambda: self.create("probe", driver, dry_run=True)[0] == 403, 30.0)

    def until_free(self, driver: str) -> None:
        claims.until("the way is free", lambda: self.create("probe", driver, dry_run=True)[0] == 201, 30.0)


KINDS = {
    "snapshot": ("VolumeSnapshotClass", "snapshot.storage.k8s.io"),
    "groupsnapshot": ("VolumeGroupSnapshotClass", "groupsnapshot.storage.k8s.io"),
}
WITNESS = "witness.example"


@pytest.fixture(scope="module")
def policies(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The policies, in force; taken away again, for other tests of this cluster make defaults as they like."""
    definitions.install(control_plane)
    control_plane.kubectl("apply", "-k", str(POLICIES))
    kinds = [Kind(control_plane, *names) for names in KINDS.values()]
    for kind in kinds:
        claims.until("taken", lambda kind=kind: kind.create("witness", WITNESS)[0] in (201, 409))  # type: ignore[misc]
        kind.until_refused(WITNESS)
    yield control_plane
    control_plane.kubectl("delete", "-k", str(POLICIES))
    for kind in kinds:
        kind.until_free(WITNESS)
        kind.delete("witness")


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest, policies: ControlPlane) -> Kind:
    return Kind(policies, *KINDS[request.param])


@pytest.fixture
def drivers(kind: Kind) -> Iterator[tuple[str, str]]:
    """Two drivers of the test's own; their classes are called after them."""
    number = next(_numbers)
    found = (f"a{os.getpid()}-{number}.example", f"b{os.getpid()}-{number}.example")
    yield found
    status, answer = kind.plane.admin.request("GET", kind.collection)
    for item in json.loads(answer)["items"] if status == 200 else ():
        if item["driver"] in found:
            kind.delete(item["metadata"]["name"])


def test_a_second_default_is_refused_and_the_first_is_named(kind: Kind, drivers: tuple[str, str]) -> None:
    ours, other = drivers
    assert kind.create(f"first-{ours}", ours)[0] == 201, "without any class there is nothing to compare with"
    kind.until_refused(ours)
    status, message = kind.create(f"second-{ours}", ours)
    assert status == 403
    assert f"driver {ours} has a default class already: first-{ours}." in message
    assert f"kubectl annotate {kind.kind.lower()} first-{ours} {kind.mark}-" in message
    assert kind.create(f"third-{ours}", ours, default=False)[0] == 201, "a class that is no default is free"
    assert kind.create(f"first-{other}", other)[0] == 201, "another driver has its own default"
    status, message = kind.patch(f"third-{ours}", mark="true")
    assert (status, f"already: first-{ours}." in message) == (403, True), "nor may one become it"
    assert kind.patch(f"third-{ours}", mark="false")[0] == 200, "only the word true marks a default"


def test_the_default_itself_may_be_changed_and_replaced(kind: Kind, drivers: tuple[str, str]) -> None:
    ours = drivers[0]
    assert kind.create(f"first-{ours}", ours)[0] == 201
    kind.until_refused(ours)
    assert kind.patch(f"first-{ours}", note="x")[0] == 200
    assert kind.patch(f"first-{ours}", mark="true")[0] == 200
    kind.delete(f"first-{ours}")
    kind.until_free(ours)
    assert kind.create(f"second-{ours}", ours)[0] == 201
    kind.until_refused(ours)
    assert kind.patch(f"second-{ours}", mark=None)[0] == 200, "the remedy of the message"
    kind.until_free(ours)
    assert kind.create(f"first-{ours}", ours)[0] == 201


def test_two_defaults_from_before_stay_editable(kind: Kind, drivers: tuple[str, str]) -> None:
    """An upgrade finds two: each may be changed in any other way, and taking the mark off one ends it."""
    ours = drivers[0]
    binding = {"snapshot": "one-default-snapshot-class", "groupsnapshot": "one-default-group-snapshot-class"}
    name = f"{binding[kind.group.partition('.')[0]]}.snapbridge.dev"
    kind.plane.kubectl("delete", "validatingadmissionpolicybinding", name)
    claims.until(
        "both are in", lambda: all(kind.create(f"{n}-{ours}", ours)[0] in (201, 409) for n in ("first", "second"))
    )
    kind.plane.kubectl("apply", "-k", str(POLICIES))
    kind.until_refused(ours)
    for number in ("first", "second"):
        assert kind.patch(f"{number}-{ours}", note="x")[0] == 200
    assert kind.patch(f"first-{ours}", mark=None)[0] == 200
    status, message = kind.patch(f"first-{ours}", mark="true")
    assert (status, f"already: second-{ours}." in message) == (403, True)


def test_older_versions_of_the_group_classes_are_checked_too(policies: ControlPlane) -> None:
    new = Kind(policies, "VolumeGroupSnapshotClass", "groupsnapshot.storage.k8s.io")
    old = dataclasses.replace(new, version="v1beta2")
    driver = f"c{os.getpid()}-{next(_numbers)}.example"
    assert old.create(f"first-{driver}", driver)[0] == 201
    try:
        new.until_refused(driver)
        status, message = old.create(f"second-{driver}", driver)
        assert (status, f"already: first-{driver}." in message) == (403, True)
    finally:
        old.delete(f"first-{driver}")
