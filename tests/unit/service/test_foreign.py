"""What plugins hold and nobody has on record: listed, adopted after a look, and never deleted by any verb."""

from __future__ import annotations

import asyncio

import pytest

from bridge.model.failure import (
    ConflictError,
    DeniedError,
    InvalidError,
    NotFoundError,
    NotSyncedError,
    UnavailableError,
)
from bridge.model.operation import OperationState
from bridge.model.plugin import Capability
from bridge.model.snapshot import DeletionPolicy, OnRecord
from bridge.model.view import RestoreDraft
from bridge.ports.identity import Caller
from bridge.ports.orchestrator import SnapshotDraft
from bridge.service.lane import Lane
from tests.support import memory
from tests.support.standalone import ADMIN, Service, running

DRAFT = SnapshotDraft(cluster="c", namespace="default", name="one", volume="data")


def plant(service: Service, *handles: str, source: str = "v1") -> None:
    """Snapshots that somebody made by other means."""
    service.plugin.capabilities.add(Capability.LIST_SNAPSHOTS)
    for handle in handles:
        service.plugin.by_hand[handle] = memory.Stored(handle, source, 0)


async def listed(service: Service) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        page = await service.desk.foreign_snapshots(ADMIN, "d", limit=2, token=token)
        found += [one.cut.handle for one in page.items]
        token = page.next_token
        if not token:
            return found


async def made(service: Service, draft: SnapshotDraft = DRAFT) -> str:
    view, operation = await service.desk.create_snapshot(ADMIN, draft)
    assert (await service.finished(operation)).state is OperationState.DONE
    return view.key.uid


async def test_what_nobody_recorded_is_listed_page_by_page_with_its_volume() -> None:
    async with running() as service:
        plant(service, "f1", "f2", "f3", "f4", "f5")
        service.plugin.by_hand["f6"] = memory.Stored("f6", "unheard-of", 0)
        uid = await made(service)
        assert await listed(service) == ["f1", "f2", "f3", "f4", "f5", "f6"]
        page = await service.desk.foreign_snapshots(ADMIN, "d", limit=100, token="")
        assert [volume.name for volume in page.items[0].volumes] == ["data"]
        assert page.items[5].volumes == ()
        await made(service, SnapshotDraft("c", "default", "mine", adopt_handle="f3", driver="d"))
        assert "f3" not in await listed(service)
        retained = await service.desk.set_deletion_policy(ADMIN, uid, DeletionPolicy.RETAIN)
        await service.finished(await service.desk.delete_snapshot(ADMIN, uid))
        assert retained.status.handle not in await listed(service), "a retained one is on record still"


async def test_a_create_that_is_under_way_makes_its_volumes_snapshots_doubtful() -> None:
    async with running(faults={0: "lost after"} | dict.fromkeys(range(1, 10_000), "lost before")) as service:
        plant(service, "f1")
        plant(service, "f2", source="v2")
        await service.desk.create_snapshot(ADMIN, DRAFT)
        async with asyncio.timeout(30):
            while "create" not in service.plugin.script.done:  # noqa: ASYNC110 - nothing rings
                await asyncio.sleep(0.01)
        page = await service.desk.foreign_snapshots(ADMIN, "d", limit=100, token="")
        assert [one.cut.handle for one in page.items] == ["f2"]
        assert "left out" in page.message


async def test_what_an_orchestrators_own_objects_name_is_not_foreign() -> None:
    async with running() as service:
        plant(service, "named", "other")
        plant(service, "under-way", source="v7")
        lane = service.lanes["c"]
        own = OnRecord(frozenset({"named"}), frozenset({"v7"}))
        parts = (lane.orchestrator, lane.requests, lane.ledger, lane.secrets)
        service.lanes["k"] = Lane(*parts, on_record=lambda _driver: own)
        assert await listed(service) == ["other"]

        def not_read(_driver: str) -> OnRecord:
            raise NotSyncedError("cluster k is not read yet")

        service.lanes["k"] = Lane(*parts, on_record=not_read)
        with pytest.raises(UnavailableError, match="not read yet"):
            await listed(service)


async def test_a_plugin_that_cannot_list_says_so_and_one_that_is_down_is_another_matter() -> None:
    async with running() as service:
        page = await service.desk.foreign_snapshots(ADMIN, "d", limit=10, token="")
        assert (page.items, page.listable, page.next_token) == ((), False, "")
        assert "cannot list" in page.message
        assert "records only" in page.message
        service.plugin.healthy = False
        with pytest.raises(UnavailableError, match="does not serve now: asleep"):
            await service.desk.foreign_snapshots(ADMIN, "d", limit=10, token="")
        with pytest.raises(NotFoundError, match="'x'"):
            await service.desk.foreign_snapshots(ADMIN, "x", limit=10, token="")


async def test_a_token_of_somebody_else_and_a_limited_caller_are_refused() -> None:
    async with running() as service:
        plant(service, "f1")
        with pytest.raises(InvalidError) as raised:
            await service.desk.foreign_snapshots(ADMIN, "d", limit=10, token="nonsense")
        assert raised.value.field == "next_token"
        web = Caller("job/web", frozenset({"c"}), frozenset({"default"}), frozenset({"data"}))
        with pytest.raises(DeniedError):
            await service.desk.foreign_snapshots(web, "d", limit=10, token="")


async def test_no_verb_reaches_a_handle_that_nobody_recorded_or_adopted() -> None:
    """Every verb that a caller has, aimed at a foreign handle by every kind of name: the backend is not touched."""
    async with running() as service:
        plant(service, "foreign-1", "foreign-2")
        uid = await made(service)
        before = set(service.plugin.handles())
        for ref in ("foreign-1", "c/default/foreign-1", "c//foreign-1", "d/foreign-1", "c/d/foreign-1"):
            for call in (
                lambda ref: service.desk.delete_snapshot(ADMIN, ref),
                lambda ref: service.desk.delete_snapshot(ADMIN, ref, abandon=True),
                lambda ref: service.desk.set_deletion_policy(ADMIN, ref, DeletionPolicy.DELETE),
                lambda ref: service.desk.pin_snapshot(ADMIN, ref),
                lambda ref: service.desk.unpin_snapshot(ADMIN, ref),
                lambda ref: service.desk.restore_snapshot(ADMIN, ref, RestoreDraft("copy")),
                lambda ref: service.desk.abandon_operation(ADMIN, ref),
            ):
                with pytest.raises((NotFoundError, InvalidError)):
                    await call(ref)
        await service.finished(await service.desk.delete_snapshot(ADMIN, uid))
        deletes = [what for what in service.plugin.script.done if what.startswith("delete ")]
        assert len(deletes) == 1
        assert service.plugin.handles() >= {"foreign-1", "foreign-2"}
        assert len(before - service.plugin.handles()) == 1


async def test_an_adopted_handle_is_looked_at_first() -> None:
    async with running() as service:
        plant(service, "f1")
        cases = [
            (SnapshotDraft("c", "default", "a", adopt_handle="no", driver="d"), NotFoundError, "adopt_handle", "no"),
            (
                SnapshotDraft("c", "default", "a", volume="other", adopt_handle="f1", driver="d"),
                InvalidError, "volume", "was cut from 'v1'",
            ),
            (
                SnapshotDraft("c", "default", "a", volume="missing", adopt_handle="f1", driver="d"),
                NotFoundError, "volume", "missing",
            ),
        ]  # fmt: skip
        for draft, kind, field, words in cases:
            with pytest.raises(kind, match=words) as raised:
                await service.desk.create_snapshot(ADMIN, draft)
            assert raised.value.field == field
        assert await listed(service) == ["f1"], "nothing was booked"
        draft = SnapshotDraft("c", "default", "a", volume="data", adopt_handle="f1", driver="d")
        uid = await made(service, draft)
        view = await service.desk.snapshot(ADMIN, uid)
        assert (view.volume, view.status.handle) == ("data", "f1")
        del service.cluster.known["default", "data"]
        operation = await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("copy"))
        assert (await service.finished(operation)).state is OperationState.DONE
        (asked,) = service.plugin.asked
        assert asked.required_bytes == 100, "the volume's shape was kept with the adoption"


async def test_a_plugin_that_cannot_look_adopts_unseen_and_says_so() -> None:
    async with running() as service:
        service.plugin.cannot_inspect = True
        draft = SnapshotDraft("c", "default", "a", adopt_handle="h", driver="d")
        _, operation = await service.desk.create_snapshot(ADMIN, draft)
        assert operation.steps[0].name == "unchecked"
        assert "nobody has looked whether 'h' exists" in operation.steps[0].note
        await service.finished(operation)


async def test_a_plugin_that_does_not_answer_adopts_nothing() -> None:
    async with running(faults=dict.fromkeys(range(1000), "lost before")) as service:
        draft = SnapshotDraft("c", "default", "a", adopt_handle="h", driver="d")
        with pytest.raises(UnavailableError, match="did not say"):
            await service.desk.create_snapshot(ADMIN, draft, idempotency_key="k")
        service.plugin.script.faults = {}
        plant(service, "h")
        _, operation = await service.desk.create_snapshot(ADMIN, draft, idempotency_key="k")
        assert (await service.finished(operation)).state is OperationState.DONE


async def test_two_adoptions_of_one_handle_keep_it_until_both_are_gone() -> None:
    async with running() as service:
        plant(service, "f1")
        first = await made(service, SnapshotDraft("c", "default", "a", adopt_handle="f1", driver="d"))
        second = await made(service, SnapshotDraft("c", "default", "b", volume="data", adopt_handle="f1", driver="d"))
        operation = await service.desk.delete_snapshot(ADMIN, first)
        await service.told(first, lambda status: status.reason == "in use")
        assert "f1" in service.plugin.handles()
        await service.desk.delete_snapshot(ADMIN, second)
        await service.finished(operation)
        with pytest.raises((ConflictError, NotFoundError)):
            await service.desk.pin_snapshot(ADMIN, second)
