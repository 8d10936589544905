"""Bad input at the Kubernetes door: refused by the API server or told in the status, and nothing is left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.test_standalone import backend
from tests.support import claims, localdisk, serve
from tests.support.bed import controlplane

pytestmark = pytest.mark.slow

DRIVER, OTHER, NOBODY = "bad.snapbridge.dev", "other.snapbridge.dev", "nobody.example"


@dataclasses.dataclass
class Stand:
    plane: controlplane.ControlPlane
    namespace: str
    driver: localdisk.LocalDisk
    service: serve.Serve

    def contents(self) -> list[str]:
        """Names of the contents of our drivers."""
        found = self.plane.admin.get("volumesnapshotcontent")["items"]
        return [one["metadata"]["name"] for one in found if one["spec"]["driver"] in (DRIVER, OTHER, NOBODY)]

    def snapshots(self) -> list[str]:
        found = self.plane.admin.get("volumesnapshot", "-n", self.namespace)["items"]
        return [one["metadata"]["name"] for one in found]

    @contextlib.contextmanager
    def untouched(self) -> Iterator[None]:
        """The block leaves no object, no hold on a claim, and nothing on the backend."""
        yield
        claims.until("no content is left", lambda: self.contents() == [], 30.0)
        assert self.snapshots() == []
        assert backend(self.driver) == []
        claims.until("no hold is left", lambda: self.holds() == [])

    def holds(self) -> list[str]:
        """Ours on the claim."""
        held = self.plane.admin.get("pvc", "data", "-n", self.namespace)["metadata"].get("finalizers", [])
        return [name for name in held if "as-source" in name]

    def told(self, name: str) -> str:
        """What the status says is wrong."""
        status = self.plane.admin.get("volumesnapshot", name, "-n", self.namespace).get("status", {})
        return str(status.get("error", {}).get("message", ""))

    def delete(self, name: str) -> None:
        self.plane.admin.kubectl("delete", "volumesnapshot", name, "-n", self.namespace, "--timeout=30s")


@pytest.fixture(scope="module")
def stand(control_plane: controlplane.ControlPlane) -> Iterator[Stand]:
    admin, namespace = control_plane.admin, f"bad-{os.getpid()}"
    with localdisk.start_localdisk(mode="directory", driver_name=DRIVER) as driver:
        for name, of in (("bad", DRIVER), ("bad-other", OTHER), ("bad-nobody", NOBODY)):
            claims.install(admin, of, name=name)
        admin.kubectl("create", "namespace", namespace)
        handle = driver.volume("data", 1 << 20).volume_id
        claims.bound(admin, namespace, "data", DRIVER, handle)
        claims.bound(admin, namespace, "foreign", NOBODY, "v-1")
        volume, claim = claims.claim(namespace, "plain", DRIVER, "unused")
        volume["spec"].pop("csi")
        volume["spec"]["hostPath"] = {"path": "/nowhere"}
        admin.apply([volume, claim])
        made = serve.service(
            clusters=[{"name": "kube", "kind": "kubernetes", "kubeconfig": str(control_plane.kubeconfig)}],
            plugins=[{"name": "bad", "socket": str(driver.socket)}],
        )
        with made as running:
            yield Stand(control_plane, namespace, driver, running)
        log = running.process.log.read_text()
        assert "Traceback" not in log
        assert "the turn crashed" not in log
        admin.kubectl("delete", "namespace", namespace, "--wait=false")


def _snapshot(stand: Stand, name: str, claim: str = "data", class_name: str = "bad", **source: str) -> dict[str, Any]:
    body = claims.snapshot(stand.namespace, name, claim, class_name)
    if source or name == "none":
        body["spec"]["source"] = source
    return body


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("n" * 1000, {}, "253"),
        ("Upper_Case", {}, "lowercase"),
        ("none", {}, "exactly one"),
        ("both", {"persistentVolumeClaimName": "data", "volumeSnapshotContentName": "x"}, "exactly one"),
    ],
    ids=["long", "letters", "no source", "two sources"],
)
def test_what_the_api_server_refuses(stand: Stand, name: str, source: dict[str, str], words: str) -> None:
    with stand.untouched():
        body = json.dumps(_snapshot(stand, name, **source))
        done = stand.plane.admin.run_kubectl("apply", "-f", "-", stdin=body)
        assert done.returncode != 0
        assert words in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("name", "claim", "class_name", "words"),
    [
        ("no-claim", "missing", "bad", "missing"),
        ("empty-claim", "", "bad", ""),
        ("no-class", "data", "bad-nowhere", "bad-nowhere"),
        ("other-class", "data", "bad-other", OTHER),
        ("no-csi", "plain", "bad", "plain"),
    ],
)
def test_what_the_status_tells(stand: Stand, name: str, claim: str, class_name: str, words: str) -> None:
    with stand.untouched():
        stand.plane.admin.apply(_snapshot(stand, name, claim, class_name))
        claims.until(f"told of {words!r}", lambda: stand.told(name) != "" and words in stand.told(name), 30.0)
        assert stand.contents() == []
        stand.delete(name)


def test_a_driver_that_is_not_ours_is_left_alone(stand: Stand) -> None:
    """Another controller may own it: no content, no hold; and it can be deleted."""
    with stand.untouched():
        stand.plane.admin.apply(_snapshot(stand, "foreign", "foreign", "bad-nobody"))
        stand.plane.admin.apply(_snapshot(stand, "ours"))
        claims.until("ours is ready", lambda: claims.is_ready(stand.plane.admin, stand.namespace, "ours"))
        assert len(stand.contents()) == 1
        found = stand.plane.admin.get("volumesnapshot", "foreign", "-n", stand.namespace)
        assert not found["metadata"].get("finalizers")
        stand.delete("foreign")
        stand.delete("ours")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"name": "x", "volume": "missing"}, 404, "missing"),
        ({"name": "x", "volume": "data", "namespace": "nowhere"}, 404, "nowhere"),
        ({"name": "Upper_Case", "volume": "data"}, 422, "lower"),
        ({"name": "x", "volume": "data", "parameters": {"colour": "red"}}, 422, "class=NAME"),
        ({"name": "Upper_Case", "adoptHandle": "snap-none", "driver": DRIVER}, 422, "lower"),
        ({"name": "x", "adoptHandle": "snap-none", "driver": DRIVER, "namespace": "nowhere"}, 404, "nowhere"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_our_own_door_refuses(stand: Stand, body: dict[str, Any], status: int, words: str) -> None:
    with stand.untouched():
        found, problem = stand.service.request("POST", "/v1/snapshots", {"namespace": stand.namespace, **body})
        assert found == status, problem
        assert words in problem["detail"] + problem["hint"], problem
