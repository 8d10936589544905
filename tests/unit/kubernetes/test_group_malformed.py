"""Malformed group objects: which field is wrong is told, once, in the status and in an event, by both halves."""

from __future__ import annotations

from typing import Any, cast

import pytest

from adapters.kubernetes.decide import wellformed
from adapters.kubernetes.events import Events
from adapters.kubernetes.groups import names, translate
from adapters.kubernetes.groups.controller import GroupTurns
from adapters.kubernetes.groups.driver import DriverGroupRequests, DriverGroupWorld
from adapters.kubernetes.groups.means import Means
from adapters.kubernetes.groups.world import GroupWorld
from adapters.kubernetes.names import Resource
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer
from bridge.model.failure import ElsewhereError
from bridge.model.keys import group_key
from tests.support.memory import VirtualClock
from tests.unit.kubernetes import objects as o
from tests.unit.kubernetes import test_group_translate as g

Object = dict[str, Any]
SELECTOR = "spec.source.selector"
REMEDY = "Correct the field, or delete the object; nothing is done with it before"


class Server:
    """Stands for the API server's side of a writer and of events."""

    def __init__(self) -> None:
        self.groups: GroupWorld | None = None
        self.statuses: list[str] = []
        self.warnings: list[tuple[str, str, str]] = []

    async def put(self, resource: Resource, body: Object, *, status: bool = False) -> Object:
        assert (resource, status) == (names.GROUPS, True)
        self.statuses.append(body["status"]["error"]["message"])
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(10 + len(self.statuses))}}
        assert self.groups is not None
        self.groups.groups.fold(body)
        return body

    async def warn(self, about: Object, reason: str, message: str) -> None:
        found = about["metadata"]["name"], reason, message
        if found not in self.warnings:
            self.warnings.append(found)

    @property
    def means(self) -> Means:
        return Means("c", cast(Writer, self), cast(Events, self), VirtualClock())


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, ""),
        ({"spec": "text"}, "spec is 'text', it must be an object"),
        ({"spec__source": None}, "spec.source is missing, it must be an object"),
        ({"spec__source": {"selector": ["a"]}}, f"{SELECTOR} is ['a'], it must be an object"),
        (
            {"spec__source": {"selector": {"matchLabels": "a"}}},
            f"{SELECTOR}.matchLabels is 'a', it must be an object",
        ),
        (
            {"spec__source": {"selector": {"matchLabels": {"a": 7}}}},
            f"{SELECTOR}.matchLabels.a is 7, it must be a text",
        ),
        (
            {"spec__source": {"selector": {"matchExpressions": ["a"]}}},
            f"{SELECTOR}.matchExpressions[0] is 'a', it must be an object",
        ),
        (
            {"spec__source": {"selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": [1]}]}}},
            f"{SELECTOR}.matchExpressions[0].values[0] is 1, it must be a text",
        ),
        ({"spec__volumeGroupSnapshotClassName": 7}, "spec.volumeGroupSnapshotClassName is 7, it must be a text"),
    ],
)
def test_a_group(changes: Object, wrong: str) -> None:
    assert wellformed.group(g.group(**changes)) == wrong


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, ""),
        ({"spec__source": {"volumeHandles": "vol-1"}}, "spec.source.volumeHandles is 'vol-1', it must be a list"),
        ({"spec__source": {"volumeHandles": [7]}}, "spec.source.volumeHandles[0] is 7, it must be a text"),
        ({"spec__deletionPolicy": "Explode"}, "spec.deletionPolicy is 'Explode', it must be Delete or Retain"),
        ({"status": {"volumeSnapshotInfoList": {}}}, "status.volumeSnapshotInfoList is {}, it must be a list"),
        (
            {"status": {"volumeSnapshotInfoList": [{"restoreSize": "1Gi"}]}},
            "status.volumeSnapshotInfoList[0].restoreSize is '1Gi', it must be a whole number",
        ),
    ],
)
def test_a_group_content(changes: Object, wrong: str) -> None:
    assert wellformed.group_content(g.content(**changes)) == wrong


async def test_the_cluster_half_tells_of_a_group_and_of_its_content() -> None:
    server, groups = Server(), _groups()
    server.groups = groups
    turns = GroupTurns(groups, server.means, cast(Any, None))
    groups.groups.fold(g.group(spec__source={"selector": "all"}))
    for _ in range(2):
        with pytest.raises(ElsewhereError):
            await turns.turn(g.UID)
    text = f"VolumeGroupSnapshot all is malformed: {SELECTOR} is 'all', it must be an object. {REMEDY}"
    assert server.statuses == [text]
    assert server.warnings == [("all", "GroupSnapshotValidationError", text)]
    groups.groups.fold(g.group(metadata__resourceVersion="20"))
    groups.contents.fold(g.content(spec__source={"volumeHandles": 7}))
    with pytest.raises(ElsewhereError):
        await turns.turn(g.UID)
    content = names.content_name(g.UID)
    wrong = "spec.source.volumeHandles is 7, it must be a list"
    text = f"VolumeGroupSnapshotContent {content} is malformed: {wrong}. {REMEDY}"
    assert server.statuses[1:] == [text]
    assert server.warnings[1:] == [(content, "GroupContentValidationError", text)]


async def test_a_malformed_group_keeps_no_claim_of_others() -> None:
    groups = _groups()
    groups.groups.fold(g.group(spec__source={"selector": {"matchLabels": ["a"]}}))
    assert not groups.holds_claim("apps", "data")


async def test_the_driver_half_tells_of_a_content_and_of_a_class() -> None:
    server, world = Server(), DriverGroupWorld(o.DRIVER, names.NAMING)
    _synced(world)
    requests = DriverGroupRequests(world, server.means, lambda _uid: "")
    world.contents.fold(g.content(status={"readyToUse": "no"}))
    with pytest.raises(ElsewhereError):
        await requests.observe(group_key("c", "gc-uid"))
    assert [reason for _, reason, _ in server.warnings] == ["GroupContentValidationError"]
    assert "status.readyToUse is 'no', it must be true or false" in server.warnings[0][2]
    assert server.statuses == []
    world.contents.fold(g.content(metadata__resourceVersion="21"))
    world.classes.fold(g.klass(parameters=["a"]))
    found = await requests.observe(group_key("c", "gc-uid"))
    assert found is not None
    assert found.trouble is not None
    assert "volumegroupsnapshotclass together is malformed: parameters is ['a']" in found.trouble.message


def test_a_default_class_that_is_malformed_is_told() -> None:
    given = g.facts(class_name="", klass=None, defaults=(g.klass(deletionPolicy="Explode"),))
    code, text = g.trouble(given)
    assert code == "SetDefaultGroupSnapshotClassFailed"
    assert "deletionPolicy is 'Explode'" in text
    assert translate.request("c", given).driver == o.DRIVER


def _groups() -> GroupWorld:
    groups = GroupWorld(World())
    _synced(groups)
    _synced(groups.world)
    return groups


def _synced(world: Any) -> None:
    for cache in world.caches.values():
        cache.synced = True
