"""Asking for a revert and acknowledging it: what is planned, what is refused, what is deleted and what never."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, cast

import pytest

from bridge.model.failure import (
    ConflictError,
    DeniedError,
    ElsewhereError,
    InvalidError,
    NotFoundError,
    UnsupportedError,
)
from bridge.model.keys import snapshot_key
from bridge.model.operation import Operation, OperationState
from bridge.model.plugin import Capability
from bridge.model.revert import RevertDraft
from bridge.model.snapshot import SnapshotState, SnapshotStatus
from bridge.model.view import SnapshotView
from bridge.ports.identity import Caller
from bridge.service import lane, work
from bridge.service.acknowledgements import Acknowledgements
from bridge.service.operations import Operations
from bridge.service.revert_desk import RevertDesk
from bridge.service.reverts import Reverts
from tests.support import memory
from tests.support.reverting import LIMITS, MemoryBook, Site, no_records

ADMIN = Caller("admin")
READY = SnapshotStatus(SnapshotState.READY, ready=True, handle="handle-1", size_bytes=10)


class Office:
    """The desk, the sagas, and a cluster with the volumes `data` and `logs` of one workload."""

    def __init__(self) -> None:
        self.script = memory.Script()
        self.clock = memory.VirtualClock()
        self.site = Site(self.script, ("data", "logs"))
        self.plugin = memory.MemoryPlugin(self.script, self.clock)
        self.book = MemoryBook()
        self.claims: dict[str, str] = {}
        self.views = {
            name: self.view(name, volume) for name, volume in (("s1", "data"), ("s2", "logs"), ("s3", "data"))
        }
        self.operations = Operations(cast(Any, self.book), self.clock)
        numbers = itertools.count(1)
        self.lanes = {
            "c": lane.Lane(cast(Any, self), cast(Any, None), no_records(), memory.NoSecrets(), workloads=self.site)
        }
        tools = work.Tools(plugins=self.plugin, clock=self.clock, writer="w")
        self.reverts = Reverts(self.lanes, cast(Any, self), self.operations, tools, limits=LIMITS)
        self.acknowledgements = Acknowledgements(self.lanes, cast(Any, self.book), self.operations, tools)
        self.desk = RevertDesk(
            lanes=self.lanes,
            book=cast(Any, self.book),
            tools=tools,
            catalogue=cast(Any, self),
            operations=self.operations,
            reverts=self.reverts,
            acknowledgements=self.acknowledgements,
            mint=lambda: f"{next(numbers):08d}-op",
        )

    @property
    def volumes(self) -> Site:
        """The orchestrator's port."""
        return self.site

    def view(self, name: str, volume: str, **more: Any) -> SnapshotView:
        made = SnapshotView(snapshot_key("c", name), "default", name, volume, "d", "Delete", name, READY)
        return dataclasses.replace(made, **more)

    async def find(self, caller: Caller, ref: str, *, whole: bool = False) -> SnapshotView:
        if ref not in self.views:
            raise NotFoundError(f"there is no snapshot {ref!r}")
        return self.views[ref]

    async def start(self, ref: str = "s1", caller: Caller = ADMIN, **draft: Any) -> Operation:
        async def claim(_caller: Caller, _verb: str, key: str, _asked: object, result: str) -> str:
            return self.claims.setdefault(key, result)

        key = draft.pop("key", "")
        return await self.desk.start(caller, ref, RevertDraft(**draft), idempotency_key=key, claim=claim)

    async def finish(self, operation: Operation) -> Operation:
        """Turn after turn, of whichever saga it is."""
        turn = self.reverts.turn if operation.verb == "revert" else self.acknowledgements.turn
        for _ in range(300):
            seconds = await turn(operation.id)
            if seconds is None:
                break
            await self.clock.sleep(seconds)
        return await self.operations.get(operation.id)

    async def reverted(self) -> Operation:
        done = await self.finish(await self.start())
        assert done.state is OperationState.DONE, done.failure
        self.plugin.volumes["old"] = "old-data"  # so that it can be seen to go
        return done


@pytest.fixture
def office() -> Office:
    return Office()


async def test_a_plan_tells_all_and_changes_nothing(office: Office) -> None:
    plan = await office.desk.plan(ADMIN, "s1", RevertDraft(also=("s2",)))
    assert plan.stops == "web, group g: 1 instance"
    assert plan.keeps == ("data-before-UID", "logs-before-UID")
    assert "register the new volume as 'data', in place of the old one" in plan.steps
    assert plan.steps[-2:] == ("start it", "look whether every instance runs on the new volume")
    assert office.book.rows == {}
    assert office.script.done == ["note"]


async def test_two_volumes_go_back_together(office: Office) -> None:
    done = await office.finish(await office.start(also=("s2",)))
    assert (done.state, done.result["volume"]) == (OperationState.DONE, "data, logs")
    assert office.script.done.count("pause") == 1
    assert office.site.served == ["vol-1,vol-2"]


@pytest.mark.parametrize(
    ("change", "draft", "kind", "words"),
    [
        ({"status": SnapshotStatus(SnapshotState.CUTTING)}, {}, ConflictError, "is cutting, not ready"),
        ({"status": dataclasses.replace(READY, reason="delegated")}, {}, UnsupportedError, "another controller"),
        ({"volume": ""}, {}, InvalidError, "its volume is not known"),
        ({"driver": "other"}, {}, InvalidError, "is of the driver"),
        ({}, {"volume": "logs"}, InvalidError, "is of the volume 'data', not of 'logs'"),
        ({}, {"also": ("s3",)}, InvalidError, "two of the snapshots are of one volume"),
        ({}, {"also": ("none",)}, NotFoundError, "no snapshot 'none'"),
        ({"volume": "gone"}, {}, NotFoundError, "no volume gone"),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_is_written(
    office: Office, change: dict[str, Any], draft: dict[str, Any], kind: type[Exception], words: str
) -> None:
    office.views["s1"] = dataclasses.replace(office.views["s1"], **change)
    with pytest.raises(kind, match=words):
        await office.start(**draft)
    assert office.book.rows == {}


async def test_an_adopted_snapshot_is_reverted_to_where_its_volume_is_named(office: Office) -> None:
    office.views["s1"] = office.view("s1", "")
    done = await office.finish(await office.start(volume="data"))
    assert done.state is OperationState.DONE


async def test_a_cluster_or_driver_that_cannot_is_unsupported(office: Office) -> None:
    office.plugin.capabilities.discard(Capability.CREATE_DELETE_VOLUME)
    with pytest.raises(UnsupportedError, match="cannot make volumes"):
        await office.start()
    office.lanes["c"] = dataclasses.replace(office.lanes["c"], workloads=None)
    with pytest.raises(UnsupportedError, match="cannot stop who uses a volume"):
        await office.start()


async def test_a_workload_reverts_nothing(office: Office) -> None:
    with pytest.raises(DeniedError, match="would stop itself"):
        await office.start(caller=Caller("task", volumes=frozenset({"data"})))
    with pytest.raises(DeniedError):
        await office.start(caller=Caller("team", namespaces=frozenset({"other"})))


async def test_one_revert_at_a_time_for_a_volume_and_for_a_workload(office: Office) -> None:
    first = await office.start()
    for ref in ("s1", "s2"):
        with pytest.raises(ConflictError, match=first.id):
            await office.start(ref)
    assert office.reverts.busy(office.views["s1"].key) == f"revert {first.id} reads it"
    await office.finish(first)
    assert office.reverts.busy(office.views["s1"].key) == ""
    await office.finish(await office.start("s2"))


async def test_the_same_key_again_reverts_nothing_twice(office: Office) -> None:
    first, again = await office.start(key="k"), await office.start(key="k")
    assert first.id == again.id
    assert len(office.book.rows) == 1


async def test_acknowledged_and_kept(office: Office) -> None:
    done = await office.reverted()
    ended = await office.desk.acknowledge(ADMIN, done.id, delete=False)
    assert (ended.state, ended.result["kept"]) == (OperationState.DONE, done.result["kept"])
    assert "old-data" in office.plugin.volumes.values()
    assert office.site.names[done.result["kept"]] == "old-data"
    with pytest.raises(ConflictError, match="acknowledged already"):
        await office.desk.acknowledge(ADMIN, done.id, delete=True)


async def test_acknowledged_and_deleted(office: Office) -> None:
    done = await office.reverted()
    asked = await office.desk.acknowledge(ADMIN, done.id, delete=True)
    assert (await office.desk.acknowledge(ADMIN, done.id, delete=True)).id == asked.id, "asked twice, done once"
    ended = await office.finish(asked)
    assert ended.state is OperationState.DONE, ended.failure
    assert "old-data" not in office.plugin.volumes.values()
    assert office.plugin.volumes != {}, "the restored one stays"
    assert done.result["kept"] not in office.site.names
    assert (await office.operations.get(done.id)).result["acknowledged"] == "deleted"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda site, kept: site.names.update({"borrowed": "old-data"}), "CONFLICT"),
        (lambda site, kept: site.claim(kept), "IN_USE"),
    ],
)
async def test_a_volume_that_anybody_has_is_not_deleted(office: Office, spoil: Any, code: str) -> None:
    done = await office.reverted()
    spoil(office.site, done.result["kept"])
    ended = await office.finish(await office.desk.acknowledge(ADMIN, done.id, delete=True))
    assert (ended.state, ended.failure and ended.failure.code) == (OperationState.FAILED, code)
    assert "old-data" in office.plugin.volumes.values()
    assert office.site.names[done.result["kept"]] == "old-data"
    assert "acknowledged" not in (await office.operations.get(done.id)).result


@pytest.mark.parametrize("strike", ["refused", "lost before", "lost after"])
async def test_a_delete_that_fails(office: Office, strike: str) -> None:
    done = await office.reverted()
    office.script.faults = {len(office.script.done) + 1: strike}
    ended = await office.finish(await office.desk.acknowledge(ADMIN, done.id, delete=True))
    if strike == "refused":
        assert ended.state is OperationState.FAILED
        assert office.site.names[done.result["kept"]] == "old-data", "it has its name back"
        assert "old-data" in office.plugin.volumes.values()
    else:
        assert ended.state is OperationState.DONE
        assert "old-data" not in office.plugin.volumes.values()


async def test_only_a_revert_that_is_done_is_acknowledged(office: Office) -> None:
    running = await office.start()
    with pytest.raises(ConflictError, match="running"):
        await office.desk.acknowledge(ADMIN, running.id, delete=True)
    done = await office.finish(running)
    ended = await office.desk.acknowledge(ADMIN, done.id, delete=False)
    with pytest.raises(InvalidError, match="not a revert"):
        await office.desk.acknowledge(ADMIN, ended.id, delete=True)


async def test_a_process_that_may_not_act_touches_nothing(office: Office) -> None:
    asked = await office.start()
    free = office.lanes["c"]
    office.lanes["c"] = dataclasses.replace(free, fence=lambda _driver: "another replica leads")
    before = list(office.script.done)
    for _ in range(3):
        with pytest.raises(ElsewhereError, match="another replica leads"):
            await office.reverts.turn(asked.id)
    assert office.script.done == before
    office.lanes["c"] = free
    assert (await office.finish(asked)).state is OperationState.DONE
