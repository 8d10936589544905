"""A cluster without the group kinds: groups are off, nothing else suffers, and they come on without a restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from adapters.kubernetes.groups import names
from adapters.kubernetes.groups.side import judge
from adapters.kubernetes.groups.world import GroupWorld
from adapters.kubernetes.problem import ApiError
from adapters.kubernetes.reflector import Pace
from adapters.kubernetes.world import World
from bridge.model import failure
from tests.unit.kubernetes import objects as o


class Server:
    """Refuses with `status` until it is told to serve empty lists."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.lists = 0

    async def page(self, _resource: object, **_given: Any) -> dict[str, Any]:
        self.lists += 1
        if self.status:
            raise ApiError(self.status, "", "no such thing")
        return {"metadata": {"resourceVersion": "7"}, "items": []}

    @contextlib.asynccontextmanager
    async def stream(self, *_given: Any, **_more: Any) -> AsyncIterator[Any]:
        raise failure.UnavailableError("the watch ends")
        yield


async def until(what: Any) -> None:
    try:
        async with asyncio.timeout(30):
            while not what():  # noqa: ASYNC110 - what is looked at rings no bell
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError("it did not come about") from None


@pytest.mark.parametrize("status", [404, 403])
async def test_groups_are_off_while_their_kinds_cannot_be_read_and_come_on_by_themselves(status: int) -> None:
    groups = GroupWorld(World())
    server = Server(status)
    pace = Pace(first=0.005, most=0.01)
    told: list[bool] = []
    reflectors = groups.reflectors(server, pace=pace, on_synced=lambda: told.append(groups.absent))  # type: ignore[arg-type]
    tasks = [asyncio.create_task(one.run()) for one in reflectors]
    try:
        assert not groups.absent
        assert all(one.sentence for one in reflectors)
        await until(lambda: server.lists >= 6)
        assert groups.absent
        assert told == [True], "who waited for the groups goes on without them"
        assert not groups.synced
        assert [one.sentence for one in reflectors] == ["", "", ""]
        for one in reflectors:
            await one.catch_up()
        server.status = 0
        await until(lambda: groups.synced)
        assert not groups.absent
    finally:
        for task in tasks:
            task.cancel()


def member(**changes: Any) -> o.Object:
    owner = {"apiVersion": names.API_VERSION, "kind": "VolumeGroupSnapshot", "name": "all", "uid": "g"}
    return o.snapshot(metadata__ownerReferences=[owner], **changes)


def test_members_are_left_alone_until_it_is_known_what_groups_there_are() -> None:
    groups = GroupWorld(World())
    assert judge(groups, o.snapshot()) == ""
    with pytest.raises(failure.NotSyncedError):
        judge(groups, member())
    groups.found("volumegroupsnapshots", "the cluster has none")
    with pytest.raises(failure.ElsewhereError, match="no group kinds"):
        judge(groups, member())


def test_a_member_goes_only_when_its_group_has_gone() -> None:
    groups = GroupWorld(World())
    for cache in groups.caches.values():
        cache.synced = True
    group = {"metadata": {"name": "all", "namespace": "apps", "uid": "g", "resourceVersion": "1"}, "spec": {}}
    groups.groups.fold(group)
    with pytest.raises(failure.ElsewhereError, match="looks after it"):
        judge(groups, member())
    going = member(metadata__deletionTimestamp="2026-11-21T12:00:00Z")
    assert "belongs to group snapshot apps/all" in judge(groups, going)
    deleting = {**group["metadata"], "resourceVersion": "2", "deletionTimestamp": "x", "finalizers": ["f"]}
    groups.groups.fold({**group, "metadata": deleting})
    with pytest.raises(failure.ElsewhereError, match="on its way out"):
        judge(groups, going)
    groups.groups.forget("apps", "all", "g")
    assert judge(groups, going) == ""


def test_a_claim_counts_as_needed_until_it_is_known_what_groups_there_are() -> None:
    """Else the hold of a group under way would be let go at a start, when the single snapshots are read first."""
    groups = GroupWorld(World())
    assert groups.holds_claim("apps", "data")
    groups.found("volumegroupsnapshots", "the cluster has none")
    assert not groups.holds_claim("apps", "data")
    groups.found("volumegroupsnapshots", "")
    for cache in groups.caches.values():
        cache.synced = True
    assert not groups.holds_claim("apps", "data")
