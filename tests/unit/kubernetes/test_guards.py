"""What keeps data that somebody else relies on: a small API server in a dict, and caches that may lag behind it."""

from __future__ import annotations

import copy
import datetime
import itertools
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.client import Client
from adapters.kubernetes.contents import Contents
from adapters.kubernetes.events import Events
from adapters.kubernetes.intake import Door
from adapters.kubernetes.ownership import Ownership
from adapters.kubernetes.problem import ApiError
from adapters.kubernetes.requests import SnapshotRequests
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer
from bridge.model.failure import ConflictError, InvalidError
from bridge.model.keys import snapshot_key
from bridge.model.snapshot import DeletionPolicy, SnapshotRequest
from bridge.ports.orchestrator import SnapshotDraft
from tests.support.memory import VirtualClock
from tests.unit.kubernetes import objects as o

Object = dict[str, Any]
KEY = snapshot_key("east", o.UID)
DELETED = {"metadata__deletionTimestamp": "2026-11-21T12:30:00Z"}


class Server:
    """Keeps objects by kind and name; counts the requests that only read one."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str, str], Object] = {}
        self.reads = 0
        self._versions = itertools.count(1000)

    def has(self, resource: names.Resource, item: Object) -> Object:
        metadata = item["metadata"]
        self.items[resource.plural, metadata.get("namespace", ""), metadata["name"]] = item
        return item

    async def get(self, resource: names.Resource, namespace: str, name: str) -> Object:
        self.reads += 1
        found = self.items.get((resource.plural, namespace, name))
        if found is None:
            raise ApiError(404, "NotFound", f"no {name}")
        return copy.deepcopy(found)

    async def create(self, resource: names.Resource, namespace: str, body: Object) -> Object:
        place = (resource.plural, namespace, body["metadata"]["name"])
        if place in self.items:
            raise ApiError(409, "AlreadyExists", "taken")
        return await self._keep(place, body, {"uid": f"made-{next(self._versions)}", "namespace": namespace})

    async def put(self, resource: names.Resource, body: Object, *, status: bool = False) -> Object:
        metadata = body["metadata"]
        place = (resource.plural, metadata.get("namespace", ""), metadata["name"])
        if self.items[place]["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise ApiError(409, "Conflict", "it has moved on")
        return await self._keep(place, body, {})

    async def _keep(self, place: tuple[str, str, str], body: Object, more: Object) -> Object:
        kept = copy.deepcopy(body)
        kept["metadata"] |= {"resourceVersion": str(next(self._versions)), **more}
        if kept["metadata"].get("deletionTimestamp") and not kept["metadata"].get("finalizers"):
            del self.items[place]
        else:
            self.items[place] = kept
        return copy.deepcopy(kept)

    async def list(self, resource: names.Resource, _namespace: str = "", **_: Any) -> AsyncIterator[Object]:
        for place, item in list(self.items.items()):
            if place[0] == resource.plural:
                yield item


class Place:
    """The adapter's parts over one server."""

    def __init__(self) -> None:
        self.server = Server()
        self.clock = VirtualClock(1_795_262_400.0)
        self.world = World()
        client = cast("Client", self.server)
        self.writer = Writer(client, self.world)
        events = Events(client, self.clock)
        self.ownership = Ownership(
            client, self.clock, drivers=(o.DRIVER,), serves=None, check_seconds=1, quiet_seconds=1
        )
        self.requests = SnapshotRequests(
            "east", self.world, self.writer, events=events, ownership=self.ownership, clock=self.clock
        )
        self.contents = Contents("east", self.world, self.writer, events, self.clock)
        self.door = Door("east", self.world, self.writer)
        for cache in self.world.caches.values():
            cache.replace({}, "0")

    def knows(self, resource: names.Resource, item: Object) -> Object:
        """The server has it and the cache too."""
        self.world.caches[resource].fold(copy.deepcopy(item))
        return self.server.has(resource, item)

    async def observed(self) -> SnapshotRequest:
        await self.ownership.check()
        request = await self.requests.observe(KEY)
        assert request is not None
        return request


CUT = {"status": {"snapshotHandle": "snap-9", "readyToUse": True}}


def namesake(**changes: Any) -> Object:
    """A pre-provisioned content of the snapshot that `CUT` cut."""
    usual = {
        "metadata__name": "imported",
        "metadata__uid": "imported-uid",
        "spec__source": {"snapshotHandle": "snap-9"},
        "spec__volumeSnapshotRef": {"namespace": "web", "name": "theirs", "uid": "their-uid"},
    }
    return o.content(**{**usual, **changes})


HOLDERS: list[tuple[str, Object, Object | None, bool]] = [
    ("a content that keeps its data", namesake(spec__deletionPolicy="Retain"), None, True),
    ("a content with a living snapshot", namesake(), o.snapshot(metadata__uid="their-uid", metadata__name="t"), True),
    ("a content of another driver", namesake(spec__driver="other"), None, False),
    ("a content that goes too", namesake(**DELETED), None, False),
    ("a content whose snapshot goes", namesake(), o.snapshot(metadata__uid="their-uid", **DELETED), False),
    (
        "a kept content whose snapshot goes",
        namesake(spec__deletionPolicy="Retain"),
        o.snapshot(metadata__uid="their-uid", metadata__name="t", **DELETED),
        True,
    ),
    (
        "a deleted content with a living snapshot",
        namesake(**DELETED),
        o.snapshot(metadata__uid="their-uid", metadata__name="t"),
        True,
    ),
]


@pytest.mark.parametrize(("other", "theirs", "held"), [row[1:] for row in HOLDERS], ids=[row[0] for row in HOLDERS])
async def test_a_snapshot_that_another_content_names_is_in_use(
    other: Object, theirs: Object | None, held: bool
) -> None:
    place = Place()
    place.knows(names.SNAPSHOTS, o.snapshot(**DELETED))
    place.knows(names.CONTENTS, o.content(**CUT))
    place.knows(names.CONTENTS, other)
    if theirs is not None:
        place.knows(names.SNAPSHOTS, o.changed(theirs, {"metadata__name": "theirs", "metadata__namespace": "web"}))
    assert ("imported" in (await place.observed()).in_use) is held


async def test_what_is_kept_by_its_policy_waits_for_nobody() -> None:
    place = Place()
    place.knows(names.SNAPSHOTS, o.snapshot(**DELETED))
    place.knows(names.CONTENTS, o.content(spec__deletionPolicy="Retain", **CUT))
    place.knows(names.CONTENTS, namesake())
    assert (await place.observed()).in_use == ""


async def test_a_snapshot_is_not_let_go_while_its_content_may_only_lag_behind() -> None:
    """Another controller made the content just before we took over: letting go would leak its snapshot."""
    place = Place()
    snapshot = place.knows(names.SNAPSHOTS, o.snapshot(**DELETED))
    place.server.has(names.CONTENTS, o.content(**CUT))
    request = await place.observed()
    with pytest.raises(ConflictError, match="not known yet"):
        await place.requests.release(request)
    assert place.server.items["volumesnapshots", "apps", "one"] == snapshot
    assert await place.contents.load(KEY) is not None


async def test_what_we_saw_go_costs_no_read() -> None:
    place = Place()
    place.knows(names.SNAPSHOTS, o.snapshot(**DELETED))
    place.world.contents.fold(o.content())
    place.world.contents.forget("", names.content_name(o.UID), "content-uid")
    await place.requests.release(await place.observed())
    assert place.server.reads == 0
    assert place.server.items == {}


@pytest.mark.parametrize("marked", [False, True])
async def test_a_kept_content_whose_policy_turns_to_delete_needs_its_mark(marked: bool) -> None:
    """It was deleted on its own, and the cache has not heard yet that its policy was changed."""
    place = Place()
    notes = {names.BEING_DELETED: "yes"} if marked else {}
    deleted = {"metadata__annotations": notes, **DELETED, **CUT}
    place.world.contents.fold(o.content(spec__deletionPolicy="Retain", **deleted))
    place.server.has(names.CONTENTS, o.content(metadata__resourceVersion="21", **deleted))
    record = await place.contents.load(KEY)
    assert record is not None
    assert record.policy is DeletionPolicy.DELETE
    assert record.condemned is marked


async def test_a_kept_content_that_was_condemned_is_looked_at_anew() -> None:
    place = Place()
    kept = o.content(spec__deletionPolicy="Retain", **DELETED, **CUT)
    place.knows(names.CONTENTS, kept)
    first = await place.contents.load(KEY)
    assert first is not None
    assert first.condemned
    place.knows(names.CONTENTS, o.content(metadata__resourceVersion="22", **DELETED, **CUT))
    second = await place.contents.load(KEY)
    assert second is not None
    assert not second.condemned


def lease(renewed: float) -> Object:
    at = datetime.datetime.fromtimestamp(renewed, datetime.UTC).isoformat()
    return {
        "metadata": {"name": names.CONTROLLER_LEASE, "namespace": "sys"},
        "spec": {"holderIdentity": "incumbent", "leaseDurationSeconds": 15, "renewTime": at},
    }


@pytest.mark.parametrize("behind_seconds", [-120.0, 0.0, 120.0, 3000.0])
async def test_a_lease_that_is_renewed_is_live_whatever_the_clocks_say(behind_seconds: float) -> None:
    place = Place()
    for _ in range(4):
        place.server.has(names.LEASES, lease(place.clock.now() - behind_seconds))
        await place.ownership.check()
        place.clock.instant += 10
    assert "incumbent" in place.ownership.sentence()
    place.clock.instant += 200
    await place.ownership.check()
    assert place.ownership.sentence() == ""


async def test_a_lease_that_was_left_long_ago_holds_nobody_up() -> None:
    place = Place()
    place.server.has(names.LEASES, lease(place.clock.now() - 86_400))
    for _ in range(2):
        await place.ownership.check()
        assert place.ownership.sentence() == ""


async def test_a_promise_to_keep_needs_a_class_that_keeps() -> None:
    place = Place()
    place.knows(names.CLASSES, o.klass())
    place.knows(names.CLASSES, o.klass(metadata__name="keeps", deletionPolicy="Retain"))
    for parameters in ({}, {"class": "plain"}, {"class": "missing"}):
        draft = SnapshotDraft("east", "apps", "x", volume="data", policy=DeletionPolicy.RETAIN, parameters=parameters)
        with pytest.raises(InvalidError) as raised:
            await place.door.submit(draft)
        assert raised.value.field == "deletionPolicy"
    draft = SnapshotDraft(
        "east", "apps", "x", volume="data", policy=DeletionPolicy.RETAIN, parameters={"class": "keeps"}
    )
    await place.door.submit(draft)
    assert ("volumesnapshots", "apps", "x") in place.server.items


async def test_a_name_that_is_taken_leaves_no_content_of_an_adoption_behind() -> None:
    place = Place()
    place.knows(names.SNAPSHOTS, o.snapshot())
    with pytest.raises(ConflictError) as raised:
        await place.door.submit(SnapshotDraft("east", "apps", "one", adopt_handle="snap-9", driver=o.DRIVER))
    assert raised.value.field == "name"
    assert not [key for key in place.server.items if key[0] == "volumesnapshotcontents"]
