"""Finalizers from the first instant: the policies of configs/kubernetes/holds on a real API server.

They speak for classes with a label only, so that no other test of the shared control plane meets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.client import Client, Object
from adapters.kubernetes.connection import Connection
from tests.integration.kubernetes import definitions
from tests.integration.kubernetes import stand as stands
from tests.support import claims, holds, localdisk, role
from tests.support.bed import incumbent, process
from tests.support.bed.controlplane import ControlPlane

CHOSEN = {holds.LABEL: holds.VALUE}
SOURCE, BOUND = names.SNAPSHOT_FINALIZERS
ROUTE = f"{claims.GROUP}/namespaces/{{}}/volumesnapshots"


def klass(name: str, driver: str, policy: str = "Delete", *, chosen: bool = True) -> Object:
    made = stands.class_object(name, driver, policy)
    made["metadata"]["labels"] = CHOSEN if chosen else {}
    return made


def ask(plane: ControlPlane, body: Object, query: str = "") -> Object:
    """Create a VolumeSnapshot; the answer."""
    route = ROUTE.format(body["metadata"]["namespace"])
    status, answer = plane.admin.request("POST", route + query, body)
    assert status == 201, answer
    found: Object = json.loads(answer)
    return found


def dry(plane: ControlPlane, body: Object) -> list[str]:
    """The finalizers that it would have."""
    return ask(plane, body, "?dryRun=All")["metadata"].get("finalizers") or []


@pytest.fixture(scope="module")
def policies(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    definitions.install(control_plane)
    control_plane.admin.apply(klass("witness-of-holds", "witness.example"))
    with holds.in_force(control_plane, holds.PLAIN, "witness-of-holds"):
        yield control_plane
    control_plane.kubectl("delete", "volumesnapshotclass", "witness-of-holds")


def test_each_gets_what_upstream_would_put_on_it_for_certain(policies: ControlPlane, namespace: str) -> None:
    for name, policy, chosen in (("del", "Delete", True), ("ret", "Retain", True), ("own", "Delete", False)):
        policies.admin.apply(klass(f"{namespace}-{name}", "csi.example", policy, chosen=chosen))
    for name in ("del", "ret"):
        holds.until_spoken_for(policies, namespace, f"{namespace}-{name}")

    def found(name: str, *finalizers: str, **source: str) -> list[str]:
        called = f"{namespace}-{name}" if name else ""
        body = stands.snapshot_object(namespace, "one", called, **source)
        body["metadata"]["finalizers"] = list(finalizers)
        return dry(policies, body)

    assert found("del", claim="data") == [SOURCE, BOUND]
    assert found("ret", claim="data") == [SOURCE]
    assert found("own", claim="data") == [], "its class is not chosen"
    assert found("absent", claim="data") == [], "upstream holds none whose class is not there"
    assert found("", claim="data") == [], "upstream could not let it go again while no class can be chosen"
    assert found("del", content="there") == [], "what it takes over says what holds it"
    assert set(found("del", "mine.example/kept", claim="data")) == {"mine.example/kept", SOURCE, BOUND}
    assert sorted(found("del", SOURCE, claim="data")) == sorted([SOURCE, BOUND])


class Watchful(Client):
    """Notes what it writes of VolumeSnapshots and contents: the verb, the kind and the subresource."""

    def __init__(self, way: Connection, seen: list[str]) -> None:
        super().__init__(way)
        self._seen = seen

    async def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        *,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        words = ("volumesnapshots", "volumesnapshotcontents", "status")
        kinds = [part for part in path.split("/") if part in words]
        if method != "GET" and kinds:
            self._seen.append(f"{method} {'/'.join(kinds)}")
        return await super()._call(method, path, body, content_type, query=query)


@contextlib.asynccontextmanager
async def watched(plane: ControlPlane, seen: list[str]) -> AsyncIterator[stands.Stand]:
    async with stands.running(plane, client_type=lambda way: Watchful(way, seen)) as stand:
        yield stand


async def test_one_write_less_from_the_request_to_ready(policies: ControlPlane, namespace: str) -> None:
    seen: list[str] = []
    async with watched(policies, seen) as stand:
        await stand.apply(klass(namespace, stand.plugin.driver))
        await stand.until_known(lambda: stand.cluster.world.classes.get("", namespace))
        await stand.volume(namespace, "data")
        await asyncio.to_thread(holds.until_spoken_for, policies, namespace, namespace)
        body = stands.snapshot_object(namespace, "one", namespace, claim="data")
        assert holds.is_held((await asyncio.to_thread(ask, policies, body))["metadata"])
        await stand.until_ready(namespace, "one")
        await stand.settle()
        assert seen == [
            "POST volumesnapshotcontents",
            "PUT volumesnapshotcontents/status",
            "PUT volumesnapshots/status",
            "PUT volumesnapshotcontents",
        ], "none for its finalizers; and nobody waits for the end of the marks"
        await stand.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--wait=false")
        await stand.until_known(lambda: stand.snapshot(namespace, "one") is None)
        await stand.until_known(lambda: not stand.plugin.handles())


async def test_one_in_trouble_neither_keeps_its_claim_nor_stays(policies: ControlPlane, namespace: str) -> None:
    """It has its finalizers though nothing will come of it: it must not count as a holder of its claim."""
    async with stands.running(policies) as stand:
        await stand.apply(
            klass(namespace, stand.plugin.driver), klass(f"{namespace}-other", f"other-{stand.plugin.driver}")
        )
        await stand.until_known(lambda: stand.cluster.world.classes.get("", f"{namespace}-other"))
        await stand.volume(namespace, "data")
        await asyncio.to_thread(holds.until_spoken_for, policies, namespace, f"{namespace}-other")
        await stand.volume(namespace, "foreign", f"other-{stand.plugin.driver}")
        asked = (
            ("wrong", f"{namespace}-other", "data"),
            ("foreign", namespace, "foreign"),
            ("right", namespace, "data"),
        )
        for name, wanted, claim in asked:
            body = stands.snapshot_object(namespace, name, wanted, claim=claim)
            assert SOURCE in (await asyncio.to_thread(ask, policies, body))["metadata"]["finalizers"]
        await stand.until_ready(namespace, "right")

        def finalizers() -> Any:
            claim = stand.cluster.world.claims.get(namespace, "data") or {}
            return (claim.get("metadata") or {}).get("finalizers") or ()

        await stand.until_known(lambda: names.CLAIM_FINALIZER not in finalizers())
        for name, _, _ in asked:
            await stand.kubectl("delete", "volumesnapshot", name, "-n", namespace, "--wait=false")
            await stand.until_known(lambda name=name: stand.snapshot(namespace, name) is None)  # type: ignore[misc]


# -- with upstream's controller, with ours, with none ---------------------------------------------------------------


STARTED: dict[str, Callable[[ControlPlane, Path], process.Process]] = {
    "upstream's controller": lambda plane, _: incumbent.controller(plane.admin, incumbent.LIFTED_LIMITS),
    "our controller": lambda plane, _: role.role("controller", kubeconfig=plane.kubeconfig),
    "our merged role": lambda plane, socket: role.role("all", f"--csi-address={socket}", kubeconfig=plane.kubeconfig),
}


def early_ones_go(plane: ControlPlane, driver: localdisk.LocalDisk, who: str) -> None:
    """Asked for and deleted before any controller looked: whoever starts then lets them go, whatever they name."""
    tag = who.split()[1]
    plane.admin.apply([klass(f"{tag}-gone", localdisk.NAME), klass(f"{tag}-wrong", "other.example")])
    for name in (f"{tag}-gone", f"{tag}-wrong"):
        holds.until_spoken_for(plane, "default", name)
    asked = {
        f"{tag}-sound": (claims.CLASS, "data"),
        f"{tag}-no-claim": (claims.CLASS, "absent"),
        f"{tag}-no-class": (f"{tag}-gone", "absent"),
        f"{tag}-refused": (f"{tag}-wrong", "data"),
    }
    for name, (called, claim) in asked.items():
        assert holds.is_held(ask(plane, stands.snapshot_object("default", name, called, claim=claim))["metadata"])
        status, body = plane.admin.request("DELETE", f"{ROUTE.format('default')}/{name}")
        assert (status, holds.is_held(json.loads(body)["metadata"])) == (200, True), "nobody is there to let it go"
    plane.kubectl("delete", "volumesnapshotclass", f"{tag}-gone")
    with STARTED[who](plane, driver.socket):
        for name in asked:
            claims.until(
                f"{who} lets {name} go",
                lambda name=name: claims.is_gone(plane.admin, "volumesnapshot", name, "default"),  # type: ignore[misc]
            )
    assert claims.contents(plane.admin) == []
    status, body = plane.admin.request("GET", "/api/v1/namespaces/default/persistentvolumeclaims/data")
    assert names.CLAIM_FINALIZER not in json.loads(body)["metadata"]["finalizers"], status


def whole_life(plane: ControlPlane, name: str) -> None:
    """Made, ready, still held by the same two, deleted."""
    ask(plane, claims.snapshot("default", name, "data"))
    claims.until("it is ready", lambda: claims.is_ready(plane.admin, "default", name))
    _, body = plane.admin.request("GET", f"{ROUTE.format('default')}/{name}")
    assert holds.is_held(json.loads(body)["metadata"])
    plane.admin.request("DELETE", f"{ROUTE.format('default')}/{name}")
    claims.until("it is gone", lambda: claims.is_gone(plane.admin, "volumesnapshot", name, "default"))
    claims.until("its content is gone", lambda: claims.contents(plane.admin) == [])


@pytest.mark.timeout(400)
def test_upstreams_controller_and_ours_let_go_what_the_policy_holds(
    own_control_plane: ControlPlane, upstream_pair: None
) -> None:
    plane = own_control_plane
    with localdisk.start_localdisk(mode="directory") as driver, contextlib.ExitStack() as policy:
        claims.install(plane.admin, localdisk.NAME)
        claims.bound(plane.admin, "default", "data", localdisk.NAME, driver.volume("data", 1 << 20).volume_id)
        policy.enter_context(holds.in_force(plane, holds.PLAIN, claims.CLASS))
        for who in STARTED:
            early_ones_go(plane, driver, who)
        with incumbent.running(plane.admin, driver.socket, incumbent.LIFTED_LIMITS):
            whole_life(plane, "theirs")
        with STARTED["our merged role"](plane, driver.socket):
            whole_life(plane, "ours")
            owners_are_forgotten(plane)
        policy.close()
        flags = ("--forget-field-owners",)
        halves = (
            role.role("controller", *flags, kubeconfig=plane.kubeconfig),
            role.role("sidecar", f"--csi-address={driver.socket}", *flags, kubeconfig=plane.kubeconfig),
        )
        with halves[0], halves[1]:
            two_roles_forget(plane)


def owners(plane: ControlPlane, kind: str, name: str, namespace: str = "") -> list[Any]:
    place = f"namespaces/{namespace}/" if namespace else ""
    status, body = plane.admin.request("GET", f"{claims.GROUP}/{place}{kind}/{name}")
    assert status == 200, body
    found: list[Any] = json.loads(body)["metadata"].get("managedFields") or []
    return found


def owners_are_forgotten(plane: ControlPlane) -> None:
    """With the other folder: from the first instant, of the snapshot and its content, unless somebody applies it."""

    with holds.in_force(plane, holds.FORGETTING, claims.CLASS):
        ask(plane, claims.snapshot("default", "created", "data"))
        applied = json.dumps(claims.snapshot("default", "applied", "data"))
        plane.kubectl("apply", "--server-side", "-f", "-", stdin=applied)
        for name in ("created", "applied"):
            claims.until(f"{name} is ready", lambda name=name: claims.is_ready(plane.admin, "default", name))  # type: ignore[misc]
        assert owners(plane, "volumesnapshots", "created", "default") == []
        kept = owners(plane, "volumesnapshots", "applied", "default")
        assert "Apply" in {entry["operation"] for entry in kept}
        for content in claims.contents(plane.admin):
            assert owners(plane, "volumesnapshotcontents", content["metadata"]["name"]) == []
        for name in ("created", "applied"):
            plane.admin.request("DELETE", f"{ROUTE.format('default')}/{name}")
            claims.until(
                "it is gone", lambda name=name: claims.is_gone(plane.admin, "volumesnapshot", name, "default")
            )  # type: ignore[misc]


def two_roles_forget(plane: ControlPlane) -> None:
    """Without the policy, and with the flag of either role."""
    ask(plane, claims.snapshot("default", "split", "data"))
    claims.until("it is ready", lambda: claims.is_ready(plane.admin, "default", "split"))
    content = claims.contents(plane.admin)[0]["metadata"]["name"]

    def nobody() -> bool:
        found = (
            owners(plane, "volumesnapshots", "split", "default"), owners(plane, "volumesnapshotcontents", content)
        )  # fmt: skip
        return found == ([], [])

    claims.until("nobody owns a field", nobody)
