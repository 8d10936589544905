"""Objects of any shape, as a definition without a schema lets them in: none of them breaks more than its own turn.

What breaks in a cache, in a look at everything or in a list of keys ends the process, at each start anew. So each
field of each kind is spoilt in turn, and everything that reads all objects is asked.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from adapters.kubernetes import names, on_record, translate
from adapters.kubernetes.contents import Contents
from adapters.kubernetes.controller.turns import Rules, Turns
from adapters.kubernetes.decide import binding, driver_half, group_binding
from adapters.kubernetes.groups import driver_request
from adapters.kubernetes.groups import names as group_names
from adapters.kubernetes.groups import translate as group_translate
from adapters.kubernetes.groups.contents import GroupContents
from adapters.kubernetes.groups.driver import DriverGroupWorld
from adapters.kubernetes.groups.means import Means
from adapters.kubernetes.groups.world import GroupWorld
from adapters.kubernetes.operations import Operations
from adapters.kubernetes.problem import MalformedError
from adapters.kubernetes.provisioner.scene import Extent, Scene, Wakes
from adapters.kubernetes.sidecar.world import DriverWorld
from adapters.kubernetes.world import World
from bridge.model.keys import group_key
from tests.support.memory import VirtualClock
from tests.unit.kubernetes import objects as o
from tests.unit.kubernetes import test_group_translate as g
from tests.unit.kubernetes import views as v

Object = dict[str, Any]
WRONG: tuple[Any, ...] = ("text", 7, None, ["a"], {"a": {"b": 1}})
NOBODY = cast(Any, None)
GROUP_STATUS = {
    "volumeGroupSnapshotHandle": "g-1",
    "readyToUse": True,
    "creationTime": "2026-11-21T12:00:00Z",
    "error": {"message": "slow"},
    "volumeSnapshotInfoList": [{"volumeHandle": "vol-1", "snapshotHandle": "s-1", "readyToUse": True}],
}


def member() -> Object:
    owner = {"apiVersion": group_names.API_VERSION, "kind": "VolumeGroupSnapshot", "name": "all", "uid": g.UID}
    return v.ready_snapshot(metadata__name="m", metadata__uid="m", metadata__ownerReferences=[owner])


def selecting(*, ready: bool = False) -> Object:
    chosen = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
    return g.group(spec__source={"selector": chosen}, status={"readyToUse": ready, "error": {"message": "no"}})


_versions = itertools.count(100)


def newer(item: Object) -> Object:
    return {**item, "metadata": {**item["metadata"], "resourceVersion": str(next(_versions))}}


OBJECTS: dict[str, tuple[names.Resource, Object]] = {
    "new": (names.SNAPSHOTS, o.snapshot()),
    "ready": (names.SNAPSHOTS, v.ready_snapshot()),
    "static": (names.SNAPSHOTS, o.snapshot(spec__source={"volumeSnapshotContentName": "old"})),
    "member": (names.SNAPSHOTS, member()),
    "cut": (names.CONTENTS, v.ready_content()),
    "marked": (names.CONTENTS, o.content(metadata__annotations={names.BEING_CREATED: "yes"}, status={"error": {}})),
    "by hand": (names.CONTENTS, v.old_content(metadata__uid="old-uid")),
    "class": (names.CLASSES, o.klass(parameters={"a": "b"}, metadata__annotations={names.DEFAULT_CLASS: "true"})),
    "group": (group_names.GROUPS, selecting()),
    "group content": (group_names.CONTENTS, g.content(status=GROUP_STATUS)),
    "group by hand": (group_names.CONTENTS, g.static(status=GROUP_STATUS)),
    "group class": (group_names.CLASSES, g.klass(parameters={"a": "b"})),
}


def spoilt(item: Object) -> Iterator[tuple[str, Object]]:
    """The object with each field replaced in turn by each wrong value. Metadata is checked by every API server."""
    for way in _ways({field: value for field, value in item.items() if field not in ("metadata", "kind")}):
        for value in WRONG:
            made = copy.deepcopy(item)
            inner: Any = made
            for step in way[:-1]:
                inner = inner[step]
            inner[way[-1]] = value
            yield f"{way} is {value!r}", made


def _ways(item: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    rows = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    for key, value in rows:
        yield (*before, key)
        yield from _ways(value, (*before, key))


class Everything:
    """All that reads a cluster's objects, with a good cluster behind it."""

    def __init__(self, *, ready: bool) -> None:
        """`ready`: whether its snapshot and its group are; what is settled is looked at with other eyes."""
        self.clock = VirtualClock()
        self.world = World()
        self.groups = GroupWorld(self.world)
        self.halves = DriverWorld(o.DRIVER)
        self.group_halves = DriverGroupWorld(o.DRIVER, group_names.NAMING)
        self.scene = Scene(o.DRIVER, Extent(snapshots=True))
        self.ledger = Contents("c", self.world, NOBODY, NOBODY, self.clock)
        self.group_ledger = GroupContents(self.groups, Means("c", NOBODY, NOBODY, self.clock), NOBODY)
        self.operations = Operations(self.world, self.clock.now, lambda *_told: None)
        self.turns = Turns(self.world, NOBODY, NOBODY, clock=self.clock, rules=Rules())
        self.woken: list[str] = []
        self.wakes = Wakes(self.woken.append, self.woken.append, self.woken.append)
        self.caches = [
            whole.caches for whole in (self.world, self.groups, self.halves, self.group_halves, self.scene)
        ]
        for caches in self.caches:
            for cache in caches.values():
                cache.synced = True
        self.world.listen(self.woken.append)
        self.halves.listen(self.woken.append)
        self.groups.listen(self.woken.append, self.woken.append)
        self.group_halves.listen(self.woken.append)
        self.scene.listen(self.wakes)
        for resource, item in (
            (names.CLAIMS, o.claim(metadata__labels={"a": "b"}, **(v.FREE if ready else {}))),
            (names.CLAIMS, o.claim(metadata__name="w", metadata__uid="w", status__phase="Pending",
                                   spec__volumeName=None, spec__dataSource=_from("one"))),
            (names.VOLUMES, o.volume()),
            *OBJECTS.values(),
            *([(names.SNAPSHOTS, v.ready_snapshot()), (group_names.GROUPS, selecting(ready=True))] if ready else ()),
        ):  # fmt: skip
            self.fold(resource, newer(item) if ready else item)

    def fold(self, resource: names.Resource, item: Object) -> None:
        for caches in self.caches:
            if resource in caches:
                caches[resource].fold(copy.deepcopy(item))

    async def ask(self) -> None:
        """Whatever looks at all objects."""
        assert [*self.world.uids(), *self.world.open_uids(), *self.world.lone_uids()]
        assert [*self.groups.uids(), *self.groups.open_uids()]
        assert [*self.halves.open_uids(), *self.group_halves.open_uids(), "none"]
        for ledger in (self.ledger, self.group_ledger):
            async for key in ledger.keys():
                assert key.cluster == "c"
        on_record.of(o.DRIVER, self.world.contents.all(), self.groups.contents.all())
        self.turns.claim_is_needed("apps", "data", "")
        self.groups.holds_claim("apps", "data")
        self.scene.wake_all(self.wakes)

    def decide(self) -> None:
        """One look at each object: MalformedError, or a decision."""
        for uid in {*self.world.uids()}:
            facts = told(self.world.facts, uid)
            if facts is not None:
                translate.request("c", facts)
                binding.decide(binding.View(facts))
        for content in self.halves.contents.all():
            facts = told(self.halves.facts, content["metadata"]["uid"])
            if facts is not None:
                driver_half.request("c", facts)
                driver_half.record(facts, facts.content, None)
        for uid in {*self.groups.uids()}:
            of_group = told(self.groups.facts, uid)
            if of_group is not None:
                group_translate.request("c", of_group)
                group_binding.decide(group_binding.View(of_group))
        for content in self.group_halves.contents.all():
            of_group = told(self.group_halves.facts, content["metadata"]["uid"])
            if of_group is not None:
                driver_request.request(group_key("c", "u"), of_group)
                driver_request.record(of_group, of_group.content, None)


def told(facts: Callable[[str], Any], uid: str) -> Any:
    """What is known; None of what is malformed."""
    try:
        return facts(uid)
    except MalformedError:
        return None


def _from(name: str) -> Object:
    return {"kind": "VolumeSnapshot", "apiGroup": names.GROUP, "name": name}


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("which", OBJECTS)
async def test_no_field_breaks_more_than_the_look_at_its_own_object(which: str, ready: bool) -> None:
    resource, item = OBJECTS[which]
    everything = Everything(ready=ready)
    await everything.ask()
    for what, made in spoilt(item):
        try:
            everything.fold(resource, newer(made))
            await everything.ask()
            everything.decide()
        except Exception as error:
            raise AssertionError(f"{which}: {what}") from error
