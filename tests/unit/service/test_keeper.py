"""What keeps a snapshot: pins, policies and volumes that share its blocks, over fakes at the ports."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from bridge.model.failure import ConflictError, DeniedError, InUseError, NotFoundError, PinnedError
from bridge.model.keys import snapshot_key
from bridge.model.operation import OperationState
from bridge.model.snapshot import DeletionPolicy, HandleSource, SnapshotState, Wish
from bridge.model.volume import Origin, Volume
from bridge.ports.identity import Caller
from bridge.ports.orchestrator import SnapshotDraft
from tests.support.group_world import GroupWorld
from tests.support.standalone import ADMIN, Service, running

DRAFT = SnapshotDraft(cluster="c", namespace="default", name="one", volume="data", why="before the upgrade")


async def made(service: Service, draft: SnapshotDraft = DRAFT) -> str:
    view, operation = await service.desk.create_snapshot(ADMIN, draft)
    assert (await service.finished(operation)).state is OperationState.DONE
    return view.key.uid


async def deleted(service: Service, uid: str) -> OperationState:
    return (await service.finished(await service.desk.delete_snapshot(ADMIN, uid))).state


async def test_a_pinned_snapshot_is_deleted_by_nobody_until_it_is_unpinned() -> None:
    async with running() as service:
        uid = await made(service)
        view = await service.desk.pin_snapshot(ADMIN, uid, why="the auditors want it")
        assert [(pin.who, pin.why) for pin in view.pins] == [("admin", "the auditors want it")]
        for abandon in (False, True):
            with pytest.raises(PinnedError, match="pinned by admin: the auditors want it") as raised:
                await service.desk.delete_snapshot(ADMIN, uid, abandon=abandon)
            assert "unpin" in raised.value.hint
        assert (await service.desk.snapshots(ADMIN, _all(), limit=5, token="")).items[0].pins == view.pins
        assert service.plugin.handles()
        assert (await service.desk.unpin_snapshot(ADMIN, uid)).pins == ()
        assert (await service.desk.unpin_snapshot(ADMIN, uid)).pins == ()
        assert await deleted(service, uid) is OperationState.DONE
        assert not service.plugin.handles()


async def test_a_pin_holds_against_a_wish_that_came_another_way() -> None:
    """As an orchestrator's own objects are deleted: no desk is asked, so the pass itself must look."""
    async with running() as service:
        uid = await made(service)
        key = snapshot_key("c", uid)
        service.cluster.used = "a reader"
        await service.desk.delete_snapshot(ADMIN, uid)
        # The wish is booked; a pin behind the desk's back, as a durable request's would be.
        await _force_pin(service, uid)
        service.cluster.used = ""
        service.runner.wake(key)
        await service.told(uid, lambda status: "pinned by admin" in status.message)
        assert service.plugin.handles()


async def _force_pin(service: Service, uid: str) -> None:
    """Straight into the table, past every rule."""
    from bridge.ledger.schema import pins

    def put(connection: object) -> None:
        connection.execute(  # type: ignore[attr-defined]
            pins.insert().values(key=f"c/snapshot/{uid}", owner="", who="admin", why="", pinned_at=1.0)
        )

    await service.ledger._writer.run(put)


async def test_a_snapshot_is_pinned_from_its_first_moment() -> None:
    async with running() as service:
        uid = await made(service, dataclasses.replace(DRAFT, pin=True))
        with pytest.raises(PinnedError, match="before the upgrade"):
            await service.desk.delete_snapshot(ADMIN, uid)
        with pytest.raises(ConflictError):
            await service.desk.create_snapshot(ADMIN, dataclasses.replace(DRAFT, pin=True, uid="again"))
        assert await service.ledger.pins([snapshot_key("c", "again")]) == []


async def test_the_wish_and_the_pin_cannot_both_win() -> None:
    async with running() as service:
        for number in range(20):
            uid = await made(service, dataclasses.replace(DRAFT, name=f"n{number}"))
            results = await asyncio.gather(
                service.desk.pin_snapshot(ADMIN, uid),
                service.desk.delete_snapshot(ADMIN, uid),
                return_exceptions=True,
            )
            failed = [isinstance(result, ConflictError) for result in results]
            assert sorted(failed) == [False, True], results
            entry = await service.ledger.entry(snapshot_key("c", uid))
            assert entry is not None
            assert (entry.wish is Wish.ABSENT) == failed[0]


async def test_a_workload_cannot_let_go_of_an_operators_pin() -> None:
    web = Caller("job/web", frozenset({"c"}), frozenset({"default"}), frozenset({"data"}))
    other = Caller("job/x", frozenset({"c"}), frozenset({"default"}), frozenset({"other"}))
    async with running() as service:
        uid = await made(service)
        await service.desk.pin_snapshot(web, uid)
        assert (await service.desk.unpin_snapshot(web, uid)).pins == ()
        await service.desk.pin_snapshot(ADMIN, uid)
        with pytest.raises(DeniedError, match="pinned by admin"):
            await service.desk.unpin_snapshot(web, uid)
        for verb in (service.desk.pin_snapshot, service.desk.unpin_snapshot):
            with pytest.raises(NotFoundError):
                await verb(other, uid)
        with pytest.raises(NotFoundError):
            await service.desk.pin_snapshot(ADMIN, uid[:-1])


async def test_an_operations_pin_outlives_peoples() -> None:
    async with running() as service:
        uid = await made(service)
        await service.keeper.pin(snapshot_key("c", uid), who="anna", why="until acknowledged", owner="op-1")
        assert len((await service.desk.unpin_snapshot(ADMIN, uid)).pins) == 1
        with pytest.raises(PinnedError, match=r"operation op-1\): until acknowledged"):
            await service.desk.delete_snapshot(ADMIN, uid)
        assert await service.keeper.unpin(snapshot_key("c", uid), who="anna", owner="op-1")
        assert await deleted(service, uid) is OperationState.DONE


async def test_a_retained_snapshots_data_can_be_deleted_by_a_change_of_policy_and_a_delete() -> None:
    async with running() as service:
        uid = await made(service, dataclasses.replace(DRAFT, policy=DeletionPolicy.RETAIN))
        assert await deleted(service, uid) is OperationState.DONE
        with pytest.raises(ConflictError, match="set-policy") as raised:
            await service.desk.pin_snapshot(ADMIN, uid)
        assert "set-policy" in raised.value.hint
        view = await service.desk.set_deletion_policy(ADMIN, uid, DeletionPolicy.DELETE)
        assert (view.policy, view.status.state) == ("Delete", SnapshotState.READY)
        await asyncio.sleep(0.1)
        assert service.plugin.handles(), "a policy alone deletes nothing"
        assert await deleted(service, uid) is OperationState.DONE
        assert not service.plugin.handles()


async def test_a_policy_changed_before_the_delete_counts() -> None:
    async with running() as service:
        uid = await made(service)
        await service.desk.set_deletion_policy(ADMIN, uid, DeletionPolicy.RETAIN)
        assert await deleted(service, uid) is OperationState.DONE
        assert service.plugin.handles()
        assert (await service.desk.snapshot(ADMIN, uid)).status.state is SnapshotState.RETAINED


async def test_a_retained_snapshot_whose_name_was_taken_since_stays_as_it_is() -> None:
    async with running() as service:
        uid = await made(service, dataclasses.replace(DRAFT, policy=DeletionPolicy.RETAIN))
        await deleted(service, uid)
        await made(service)
        with pytest.raises(ConflictError, match="another snapshot since"):
            await service.desk.set_deletion_policy(ADMIN, uid, DeletionPolicy.DELETE)
        assert (await service.desk.snapshot(ADMIN, uid)).status.state is SnapshotState.RETAINED


async def test_a_snapshot_whose_blocks_a_registered_volume_shares_is_not_deleted() -> None:
    async with running() as service:
        service.sharing.add("d")
        uid = await made(service)
        handle = (await service.desk.snapshot(ADMIN, uid)).status.handle
        await service.ledger.put_origin(Origin("c", "d", "v9", HandleSource(handle), "op-1"))
        service.cluster.known["default", "copy"] = Volume("c", "default", "copy", "d", "v9", 100)
        with pytest.raises(InUseError, match="c/default/copy"):
            await service.desk.delete_snapshot(ADMIN, uid)
        service.sharing.clear()
        service.cluster.used = "a reader"
        operation = await service.desk.delete_snapshot(ADMIN, uid)  # the driver shared nothing at that moment
        service.sharing.add("d")
        service.cluster.used = ""
        service.runner.wake(snapshot_key("c", uid))
        status = await service.told(uid, lambda status: "shares its blocks" in status.message)
        assert "c/default/copy" in status.message
        assert service.plugin.handles()
        del service.cluster.known["default", "copy"]
        service.runner.wake(snapshot_key("c", uid))
        assert (await service.finished(operation)).state is OperationState.DONE
        assert not service.plugin.handles()


def _all():
    from bridge.ports.ledger import EntryFilter

    return EntryFilter()


def test_a_group_with_a_pinned_member_is_not_deleted_until_that_is_unpinned() -> None:
    """As kubectl deletes a group: no desk is asked."""
    world = GroupWorld(pins=frozenset({snapshot_key("c", "m2")}))
    world.settle()
    assert len(world.group_handles()) == 1
    world.want(wish=Wish.ABSENT, members=(snapshot_key("c", "m1"), snapshot_key("c", "m2")))
    world.settle()
    assert world.requests.told[-1].message == "its member m2 is pinned"
    assert len(world.group_handles()) == 1
    world.pins = frozenset()
    world.settle()
    assert world.group_handles() == set()
