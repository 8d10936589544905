"""Groups from the front desk to the backend and away again, by a barrier and by one call, over a real ledger."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

import pytest

from bridge.model.failure import ConflictError, DeniedError, InvalidError, NotFoundError, PinnedError
from bridge.model.group import Means
from bridge.model.keys import group_key
from bridge.model.operation import OperationState
from bridge.model.plugin import Capability, Route
from bridge.model.snapshot import DeletionPolicy, SnapshotState, Wish
from bridge.model.view import GroupDraft
from bridge.ports.identity import Caller
from bridge.ports.ledger import EntryFilter
from bridge.ports.orchestrator import SnapshotDraft
from bridge.service.intake import HookIntake
from tests.support.standalone import ADMIN, Service, running

GROUPS = Capability.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT
BOTH = ("data", "other")


def draft(**more: object) -> GroupDraft:
    return GroupDraft(**{"cluster": "c", "namespace": "default", "name": "web", "volumes": BOTH, **more})  # type: ignore[arg-type]


async def made(service: Service, **more: object) -> str:
    """A group that is ready; its uid."""
    view, operation = await service.groups.create(ADMIN, draft(**more))
    operation = await service.finished(operation)
    assert operation.state is OperationState.DONE, operation.failure
    return view.key.uid


async def test_volumes_are_cut_together_shown_as_snapshots_and_deleted_together() -> None:
    async with running(not_ready=1) as service:
        uid = await made(service)
        view = await service.groups.one(ADMIN, uid)
        assert view.status.ready
        assert view.status.means is Means.BARRIER
        assert view.status.skew_seconds is not None
        assert view.status.route is Route.SOCKET
        await settled(service, uid, SnapshotState.READY)  # a member is told a moment after its group
        view = await service.groups.one(ADMIN, uid)
        assert [one.volume for one in view.members] == list(BOTH)
        assert {one.status.state for one in view.members} == {SnapshotState.READY}
        page = await service.desk.snapshots(ADMIN, EntryFilter(labels={"group": "web"}), limit=10, token="")
        assert {one.key for one in page.items} == {one.key for one in view.members}
        assert service.plugin.handles() == {one.status.handle for one in view.members}

        operation = await service.finished(await service.groups.delete(ADMIN, "c/default/web"))
        assert operation.state is OperationState.DONE
        assert service.plugin.handles() == set()
        with pytest.raises(NotFoundError):
            await service.groups.one(ADMIN, "c/default/web")
        assert await service.groups.all(ADMIN) == []


async def test_a_driver_with_groups_cuts_all_with_one_call() -> None:
    async with running(not_ready=1) as service:
        able(service)
        uid = await made(service)
        view = await service.groups.one(ADMIN, uid)
        assert view.status.means is Means.CSI
        assert (view.status.skew_seconds, view.status.skew_exact) == (0.0, True)
        await settled(service, uid, SnapshotState.READY)
        view = await service.groups.one(ADMIN, uid)
        assert {one.status.handle for one in view.members} == service.plugin.member_handles()
        assert service.plugin.stored == {}, "no member was cut by itself"

        assert (await service.finished(await service.groups.delete(ADMIN, uid))).state is OperationState.DONE
        assert service.plugin.groups == {}
        assert service.plugin.broken == []
        await gone(service)


async def test_without_a_group_of_the_driver_for_these_volumes_a_barrier_cuts_them() -> None:
    async with running(faults={0: "refused"}) as service:
        able(service)
        service.plugin.refusal = "FAILED_PRECONDITION"
        uid = await made(service)
        view = await service.groups.one(ADMIN, uid)
        assert view.status.means is Means.BARRIER
        assert service.plugin.groups == {}


async def test_retained_snapshots_stay_on_the_backend() -> None:
    for means in Means:
        async with running() as service:
            if means is Means.CSI:
                able(service)
            uid = await made(service, policy=DeletionPolicy.RETAIN)
            before = service.plugin.handles() | service.plugin.member_handles()
            operation = await service.finished(await service.groups.delete(ADMIN, uid))
            assert operation.state is OperationState.DONE
            assert service.plugin.handles() | service.plugin.member_handles() == before
            assert operation.result["state"] == "retained"


async def test_a_failed_group_says_which_volume_and_leaves_nothing() -> None:
    async with running() as service:
        service.cluster.known["default", "other"] = service.cluster.known["default", "data"].__class__(
            "c", "default", "other", "d", "v-refused", 100
        )
        service.plugin.refused_volumes.add("v-refused")
        view, operation = await service.groups.create(ADMIN, draft())
        operation = await service.finished(operation)
        assert operation.state is OperationState.FAILED
        assert operation.failure is not None
        assert operation.failure.code == "MEMBER_REFUSED"
        assert "'other'" in operation.failure.message
        await eventually(lambda: _empty(service))
        assert (await service.groups.one(ADMIN, view.key.uid)).status.failed


async def test_a_member_goes_only_with_its_group_and_a_pin_on_one_keeps_all() -> None:
    async with running() as service:
        uid = await made(service)
        member = (await service.groups.one(ADMIN, uid)).members[0]
        with pytest.raises(ConflictError, match="member of the group web"):
            await service.desk.delete_snapshot(ADMIN, member.key.uid)
        await service.desk.pin_snapshot(ADMIN, member.key.uid, why="audit")
        with pytest.raises(PinnedError):
            await service.groups.delete(ADMIN, uid)
        await service.desk.unpin_snapshot(ADMIN, member.key.uid)
        assert (await service.finished(await service.groups.delete(ADMIN, uid))).state is OperationState.DONE


async def test_the_same_idempotency_key_makes_one_group() -> None:
    async with running() as service:
        first, operation = await service.groups.create(ADMIN, draft(), idempotency_key="k")
        again, same = await service.groups.create(ADMIN, draft(), idempotency_key="k")
        assert (again.key, same.id) == (first.key, operation.id)
        with pytest.raises(ConflictError):
            await service.groups.create(ADMIN, draft(name="other"), idempotency_key="k")
        assert len(await service.groups.all(ADMIN)) == 1


@pytest.mark.parametrize(
    ("wrong", "error", "field"),
    [
        ({"volumes": ()}, InvalidError, "volumes"),
        ({"volumes": BOTH, "users": {"job": "web"}}, InvalidError, "volumes"),
        ({"volumes": ("data", "data")}, InvalidError, "volumes"),
        ({"volumes": ("data", "nobody")}, NotFoundError, "volume"),
        ({"volumes": (), "users": {"job": "web"}}, NotFoundError, "users"),
        ({"cluster": "elsewhere"}, NotFoundError, "cluster"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_booked(
    wrong: dict[str, object], error: type[Exception], field: str
) -> None:
    async with running() as service:
        with pytest.raises(error) as refused:
            await service.groups.create(ADMIN, draft(**wrong))
        assert refused.value.field == field  # type: ignore[attr-defined]
        assert await service.groups.all(ADMIN) == []
        assert (await service.ledger.list(EntryFilter())).items == ()


async def test_a_taken_name_of_a_member_books_nothing_of_the_group() -> None:
    async with running() as service:
        await service.desk.create_snapshot(ADMIN, SnapshotDraft("c", "default", "web-other", "other"))
        with pytest.raises(ConflictError):
            await service.groups.create(ADMIN, draft())
        assert await service.groups.all(ADMIN) == []
        assert len((await service.ledger.list(EntryFilter())).items) == 1


async def test_a_caller_with_limits_groups_only_its_own_volumes() -> None:
    async with running() as service:
        limited = Caller("web", volumes=frozenset({"data"}))
        with pytest.raises(DeniedError):
            await service.groups.create(limited, draft())
        uid = await made(service)
        with pytest.raises(NotFoundError):
            await service.groups.one(limited, uid)
        assert await service.groups.all(limited) == []


async def test_a_hook_asks_for_a_group_once() -> None:
    async with running() as service:
        intake = HookIntake(service.desk, service.lanes, service.ledger, service.runner.wake, service.group_booking)
        drafts = [
            SnapshotDraft("c", "default", f"web-{name}", name, uid=f"u-{name}", asked_by="job") for name in BOTH
        ]
        key = await intake.ask_group(drafts, name="web", uid="g", max_skew_seconds=1000.0)
        assert await intake.ask_group(drafts, name="web", uid="g", max_skew_seconds=1000.0) == key

        async def ready() -> bool:
            status = await intake.status(key)
            return status is not None and status.ready

        await eventually(ready)
        assert len(service.plugin.handles()) == 2
        with pytest.raises(InvalidError):
            await intake.ask_group([SnapshotDraft("c", "default", "x", "data")], name="x", uid="g2")


def able(service: Service) -> None:
    """The driver has groups, and is reached by its socket."""
    service.plugin.capabilities.add(GROUPS)


async def settled(service: Service, uid: str, state: SnapshotState) -> None:
    """Wait until every member is told to be so."""

    async def told() -> bool:
        return {one.status.state for one in (await service.groups.one(ADMIN, uid)).members} == {state}

    await eventually(told)


async def gone(service: Service) -> None:
    """Wait until the book shows no snapshot."""

    async def nothing() -> bool:
        return not (await service.ledger.list(EntryFilter())).items

    await eventually(nothing)


async def _empty(service: Service) -> bool:
    return not service.plugin.handles()


async def eventually(test: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(30):
        while not await test():  # noqa: ASYNC110 - what is looked at rings no bell
            await asyncio.sleep(0.01)


async def test_a_pin_set_between_the_check_and_the_wish_keeps_the_group() -> None:
    async with running() as service:
        uid = await made(service)
        member = (await service.groups.one(ADMIN, uid)).members[0]
        entry = await service.ledger.groups.entry(group_key("c", uid))
        assert entry is not None
        await service.desk.pin_snapshot(ADMIN, member.key.uid, why="audit")
        with pytest.raises(PinnedError):
            await service.ledger.groups.change(dataclasses.replace(entry, wish=Wish.ABSENT))


async def test_nobody_is_told_that_a_member_is_pinned_once_its_group_is_to_go() -> None:
    async with running() as service:
        able(service)
        uid = await made(service)
        member = (await service.groups.one(ADMIN, uid)).members[0]
        entry = await service.ledger.groups.entry(group_key("c", uid))
        assert entry is not None
        await service.ledger.groups.change(dataclasses.replace(entry, wish=Wish.ABSENT))
        with pytest.raises(ConflictError, match="its deletion was asked for already"):
            await service.desk.pin_snapshot(ADMIN, member.key.uid, why="audit")


async def test_a_member_has_no_policy_of_its_own() -> None:
    """One call deletes them all: a member that was told to be retained would go with them."""
    async with running() as service:
        able(service)
        uid = await made(service)
        await settled(service, uid, SnapshotState.READY)
        member = (await service.groups.one(ADMIN, uid)).members[0]
        with pytest.raises(ConflictError, match="member of the group web"):
            await service.desk.set_deletion_policy(ADMIN, member.key.uid, DeletionPolicy.RETAIN)


async def test_a_group_stays_while_somebody_has_adopted_a_member() -> None:
    async with running() as service:
        able(service)
        uid = await made(service)
        await settled(service, uid, SnapshotState.READY)
        handle = (await service.groups.one(ADMIN, uid)).members[0].status.handle
        adopted = SnapshotDraft("c", "default", "mine", adopt_handle=handle, driver="d", uid="u-mine")
        await service.desk.book_snapshot(service.lanes["c"], adopted)
        await service.groups.delete(ADMIN, uid)

        async def told() -> bool:
            return "c/default/mine" in (await service.groups.one(ADMIN, uid)).status.message

        await eventually(told)
        assert handle in service.plugin.member_handles()


async def test_a_member_that_its_group_has_left_behind_cannot_be_put_under_delete() -> None:
    """CSI forbids to delete a member alone: its record would go, and the data would stay, told of nowhere."""
    async with running() as service:
        able(service)
        uid = await made(service, policy=DeletionPolicy.RETAIN)
        await settled(service, uid, SnapshotState.READY)
        member = (await service.groups.one(ADMIN, uid)).members[0]
        assert (await service.finished(await service.groups.delete(ADMIN, uid))).state is OperationState.DONE
        with pytest.raises(ConflictError, match="cut with its group"):
            await service.desk.set_deletion_policy(ADMIN, member.key.uid, DeletionPolicy.DELETE)
