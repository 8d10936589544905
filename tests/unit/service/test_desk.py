"""The desk and the workers together, over fakes at the ports: what a caller sees of a whole life."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from bridge.model.failure import ConflictError, DeniedError, InvalidError, NotFoundError, UnavailableError
from bridge.model.operation import OperationState
from bridge.model.secret import SecretRef, SnapshotSecrets
from bridge.model.snapshot import DeletionPolicy, SnapshotState
from bridge.model.view import RestoreDraft
from bridge.ports.identity import Caller
from bridge.ports.ledger import EntryFilter
from bridge.ports.orchestrator import SnapshotDraft
from bridge.service.intake import HookIntake
from tests.support.standalone import ADMIN, Service, running

DRAFT = SnapshotDraft(cluster="c", namespace="default", name="one", volume="data")


async def made(service: Service, draft: SnapshotDraft = DRAFT) -> str:
    view, operation = await service.desk.create_snapshot(ADMIN, draft)
    ended = await service.finished(operation)
    assert ended.state is OperationState.DONE, ended
    return view.key.uid


async def test_a_snapshot_is_made_listed_and_deleted_without_a_trace() -> None:
    async with running(not_ready=2) as service:
        uid = await made(service)
        view = await service.desk.snapshot(ADMIN, "c/default/one")
        assert view.status.state is SnapshotState.READY
        assert view.status.handle in service.plugin.handles()
        ended = await service.finished(await service.desk.delete_snapshot(ADMIN, uid))
        assert ended.state is OperationState.DONE
        assert not service.plugin.handles()
        page = await service.desk.snapshots(ADMIN, EntryFilter(), limit=10, token="")
        assert page.items == ()
        uid_again = await made(service)
        assert uid_again != uid


async def test_retain_keeps_the_backend_and_the_record() -> None:
    async with running() as service:
        draft = SnapshotDraft("c", "default", "kept", volume="data", policy=DeletionPolicy.RETAIN)
        uid = await made(service, draft)
        ended = await service.finished(await service.desk.delete_snapshot(ADMIN, uid))
        assert ended.state is OperationState.DONE
        assert len(service.plugin.handles()) == 1
        assert (await service.desk.snapshot(ADMIN, uid)).status.state is SnapshotState.RETAINED


async def test_an_idempotency_key_makes_one_snapshot_however_often() -> None:
    async with running() as service:
        first = await service.desk.create_snapshot(ADMIN, DRAFT, idempotency_key="k")
        again = await service.desk.create_snapshot(ADMIN, DRAFT, idempotency_key="k")
        assert first[0].key == again[0].key
        assert first[1].id == again[1].id
        other = SnapshotDraft("c", "default", "two", volume="data")
        with pytest.raises(ConflictError):
            await service.desk.create_snapshot(ADMIN, other, idempotency_key="k")
        await service.finished(first[1])
        assert len(service.plugin.handles()) == 1


async def test_what_cannot_be_done_is_said_at_once_and_leaves_nothing() -> None:
    async with running() as service:
        await made(service)
        cases = [
            (SnapshotDraft("nowhere", "default", "x", volume="data"), NotFoundError, "cluster"),
            (SnapshotDraft("c", "default", "x", volume="missing"), NotFoundError, "volume"),
            (SnapshotDraft("c", "default", "x", volume="foreign"), UnavailableError, "driver"),
            (SnapshotDraft("c", "default", "x", volume="data", driver="z"), InvalidError, "driver"),
            (SnapshotDraft("c", "default", "x", adopt_handle="h"), InvalidError, "driver"),
        ]
        for draft, kind, field in cases:
            with pytest.raises(kind) as raised:
                await service.desk.create_snapshot(ADMIN, draft)
            assert raised.value.field == field
        taken = SnapshotDraft("c", "default", "one", volume="other")
        with pytest.raises(ConflictError):
            await service.desk.create_snapshot(ADMIN, taken)
        page = await service.desk.snapshots(ADMIN, EntryFilter(), limit=10, token="")
        assert [item.name for item in page.items] == ["one"]
        assert len(service.plugin.handles()) == 1


async def test_a_refusal_ends_the_operation_and_says_that_the_request_stays() -> None:
    async with running(faults=dict.fromkeys(range(1000), "refused")) as service:
        _, operation = await service.desk.create_snapshot(ADMIN, DRAFT)
        ended = await service.finished(operation)
        assert ended.state is OperationState.FAILED
        assert ended.failure is not None
        assert "request stays" in ended.failure.hint


async def test_a_workload_may_touch_only_its_own_volumes() -> None:
    async with running() as service:
        uid = await made(service)
        other = Caller("job/web", frozenset({"c"}), frozenset({"default"}), frozenset({"other"}))
        with pytest.raises(DeniedError, match="may not touch"):
            await service.desk.create_snapshot(other, DRAFT)
        with pytest.raises(NotFoundError):
            await service.desk.snapshot(other, uid)
        with pytest.raises(NotFoundError):
            await service.desk.delete_snapshot(other, uid)
        page = await service.desk.snapshots(other, EntryFilter(), limit=10, token="")
        assert page.items == ()
        assert len(service.plugin.handles()) == 1


async def test_a_prefix_finds_but_never_deletes() -> None:
    async with running() as service:
        uid = await made(service)
        assert (await service.desk.snapshot(ADMIN, uid[:-1])).key.uid == uid
        with pytest.raises(NotFoundError, match="full uid"):
            await service.desk.delete_snapshot(ADMIN, uid[:-1])
        with pytest.raises(InvalidError, match="too short"):
            await service.desk.snapshot(ADMIN, "id")
        await made(service, SnapshotDraft("c", "default", "two", volume="data"))
        with pytest.raises(InvalidError, match="several"):
            await service.desk.snapshot(ADMIN, "id-0")


async def test_a_restore_makes_and_registers_one_volume() -> None:
    async with running() as service:
        uid = await made(service)
        asked = [
            await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("copy"), idempotency_key="r")
            for _ in range(2)
        ]
        assert asked[0].id == asked[1].id
        ended = await service.finished(asked[0])
        assert ended.state is OperationState.DONE, ended
        assert service.cluster.known["default", "copy"].handle == ended.result["handle"]
        assert len(service.plugin.volumes) == 1


async def test_a_restore_waits_while_another_replica_acts() -> None:
    async with running() as service:
        uid = await made(service)
        service.cluster.fenced = "standing by"
        operation = await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("copy"))
        await asyncio.sleep(0.2)
        assert service.plugin.volumes == {}
        service.cluster.fenced = ""
        assert (await service.finished(operation)).state is OperationState.DONE
        assert len(service.plugin.volumes) == 1


async def test_a_restore_whose_name_is_taken_leaves_no_volume() -> None:
    async with running() as service:
        uid = await made(service)
        ended = await service.finished(await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("other")))
        assert ended.state is OperationState.FAILED
        service.cluster.refuse_register = "the cluster says no"
        ended = await service.finished(await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("copy")))
        assert ended.state is OperationState.FAILED
        assert ended.failure is not None
        assert "says no" in ended.failure.message
        assert service.plugin.volumes == {}


async def test_a_restore_of_what_is_not_ready_or_too_small_is_refused() -> None:
    async with running(not_ready=100_000) as service:
        view, _ = await service.desk.create_snapshot(ADMIN, DRAFT)
        with pytest.raises(ConflictError, match="not ready"):
            await service.desk.restore_snapshot(ADMIN, view.key.uid, RestoreDraft("copy"))
    async with running() as service:
        uid = await made(service)
        with pytest.raises(InvalidError) as raised:
            await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("copy", capacity_bytes=1))
        assert raised.value.field == "capacity_bytes"


async def test_a_snapshot_that_somebody_uses_is_deleted_only_afterwards() -> None:
    async with running() as service:
        uid = await made(service)
        service.cluster.used = "task web/1 reads it"
        operation = await service.desk.delete_snapshot(ADMIN, uid)
        status = await service.told(uid, lambda status: status.reason == "in use")
        assert status.message == "task web/1 reads it"
        assert service.plugin.handles()
        service.cluster.used = ""
        ended = await service.finished(operation)
        assert ended.state is OperationState.DONE
        assert not service.plugin.handles()


async def test_an_open_note_can_be_abandoned_by_its_owner_and_is_put_on_record() -> None:
    faults = dict.fromkeys(range(1000), "lost before")
    async with running(faults=faults) as service:
        view, _ = await service.desk.create_snapshot(ADMIN, DRAFT)
        uid = view.key.uid
        async with asyncio.timeout(30):
            while "create" not in service.plugin.script.done:  # noqa: ASYNC110 - nothing rings
                await asyncio.sleep(0.01)
        waiting = await service.desk.delete_snapshot(ADMIN, uid)
        await asyncio.sleep(0.05)
        assert (await service.desk.operation(ADMIN, waiting.id)).state is OperationState.RUNNING
        ended = await service.finished(await service.desk.delete_snapshot(ADMIN, uid, abandon=True))
        assert ended.state is OperationState.DONE


async def test_a_hook_that_asks_twice_gets_one_snapshot() -> None:
    async with running() as service:
        intake = HookIntake(service.desk, service.lanes, service.ledger, service.runner.wake)
        draft = SnapshotDraft("c", "default", "hooked", volume="data", uid="job-web-7-data", asked_by="job web")
        keys = {await intake.ask(draft), await intake.ask(draft)}
        assert len(keys) == 1
        (key,) = keys
        async with asyncio.timeout(30):
            while (status := await intake.status(key)) is None or not status.ready:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        service.cluster.known.clear()
        await intake.ask(draft)  # the volume is gone meanwhile; what is booked stays booked
        assert len(service.plugin.handles()) == 1
        with pytest.raises(InvalidError, match="uid"):
            await intake.ask(SnapshotDraft("c", "default", "x", volume="data"))


async def test_a_limited_caller_neither_reads_nor_follows_anothers_operation() -> None:
    async with running() as service:
        _, operation = await service.desk.create_snapshot(ADMIN, DRAFT)
        other = Caller("job/web", frozenset({"c"}), frozenset({"default"}), frozenset({"other"}))
        with pytest.raises(NotFoundError):
            await service.desk.operation(other, operation.id)
        with pytest.raises(NotFoundError):
            await service.desk.wait_operation(other, operation.id, version="", timeout_seconds=0.01)
        _, own = await service.desk.create_snapshot(other, SnapshotDraft("c", "default", "mine", volume="other"))
        assert (await service.desk.operation(other, own.id)).id == own.id
        assert [one.id for one in await service.desk.operations(other)] == [own.id]


async def test_a_limited_caller_takes_no_snapshot_over_by_its_handle() -> None:
    """With policy Delete it could destroy anybody's snapshot on the backend."""
    async with running() as service:
        uid = await made(service)
        handle = (await service.desk.snapshot(ADMIN, uid)).status.handle
        draft = SnapshotDraft("c", "default", "stolen", adopt_handle=handle, driver="d")
        for tenant in (
            Caller("tenant", namespaces=frozenset({"default"})),
            Caller("tenant", volumes=frozenset({""})),
        ):
            with pytest.raises(DeniedError, match="may not take over"):
                await service.desk.create_snapshot(tenant, draft)


async def test_a_delete_that_could_not_be_asked_for_leaves_no_operation_behind() -> None:
    async with running() as service:
        uid = await made(service)
        service.book.refused.add("change")
        with pytest.raises(ConflictError):
            await service.desk.delete_snapshot(ADMIN, uid)
        assert await service.desk.operations(ADMIN, running=True) == []


async def test_an_idempotency_key_of_a_snapshot_that_is_gone_makes_no_second_one() -> None:
    async with running() as service:
        view, operation = await service.desk.create_snapshot(ADMIN, DRAFT, idempotency_key="k")
        await service.finished(operation)
        await service.finished(await service.desk.delete_snapshot(ADMIN, view.key.uid))
        with pytest.raises(NotFoundError):
            await service.desk.create_snapshot(ADMIN, DRAFT, idempotency_key="k")
        assert not service.plugin.handles()


async def test_a_crash_between_a_claim_and_its_booking_is_made_good_by_the_repeat() -> None:
    async with running() as service:
        service.book.refused.add("add")
        with pytest.raises(ConflictError):
            await service.desk.create_snapshot(ADMIN, DRAFT, idempotency_key="k")
        service.book.refused.clear()
        _, operation = await service.desk.create_snapshot(ADMIN, DRAFT, idempotency_key="k")
        assert (await service.finished(operation)).state is OperationState.DONE
        assert len(service.plugin.handles()) == 1


async def test_the_volumes_own_secret_serves_where_the_caller_names_none() -> None:
    async with running() as service:
        secret = SecretRef("env", "CSI_SECRET_SAN")
        volume = service.cluster.known["default", "data"]
        service.cluster.known["default", "data"] = dataclasses.replace(volume, secret=secret)
        await service.desk.create_snapshot(ADMIN, DRAFT)
        entry = await service.ledger.find("c", "default", "one")
        assert entry is not None
        assert entry.secrets == SnapshotSecrets(secret, secret, secret)


@pytest.mark.parametrize("cutter_first", [True, False])
async def test_an_adopted_snapshot_and_the_one_that_cut_it_do_not_take_each_others_data(cutter_first: bool) -> None:
    async with running() as service:
        cutter = await made(service)
        handle = (await service.desk.snapshot(ADMIN, cutter)).status.handle
        adopter = await made(service, SnapshotDraft("c", "default", "twin", adopt_handle=handle, driver="d"))
        first, last = (cutter, adopter) if cutter_first else (adopter, cutter)
        waiting = await service.desk.delete_snapshot(ADMIN, first)
        status = await service.told(first, lambda status: status.reason == "in use")
        assert ("c/default/twin" if cutter_first else "c/default/one") in status.message
        assert service.plugin.handles() == {handle}
        assert (await service.desk.snapshot(ADMIN, last)).status.ready
        for operation in (waiting, await service.desk.delete_snapshot(ADMIN, last)):
            assert (await service.finished(operation)).state is OperationState.DONE
        assert not service.plugin.handles()


async def test_nobody_claims_that_a_copy_was_quiesced() -> None:
    async with running() as service:
        with pytest.raises(InvalidError) as refused:
            await made(service, dataclasses.replace(DRAFT, labels={"consistency": "quiesced"}))
        assert refused.value.field == "labels"
        assert (await service.ledger.list(EntryFilter())).items == ()
