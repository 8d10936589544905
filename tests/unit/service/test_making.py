"""Restores with options, clones, and letting go of what cannot be done, over fakes at the ports."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from bridge.model.failure import ConflictError, DeniedError, InUseError, InvalidError, NotFoundError
from bridge.model.operation import Operation, OperationState
from bridge.model.plugin import Capability
from bridge.model.secret import SecretRef
from bridge.model.snapshot import HandleSource, VolumeSource
from bridge.model.view import CloneDraft, RestoreDraft
from bridge.model.volume import AccessMode, Volume, VolumeMode
from bridge.ports.identity import Caller
from bridge.ports.orchestrator import SnapshotDraft
from tests.support.standalone import ADMIN, Service, running

RICH = Volume(
    "c", "default", "data", "d", "v1", 100, access_modes=(AccessMode.MULTI_NODE_MULTI_WRITER,), fs_type="xfs",
    parameters={"tier": "gold", "pool": "a"}, accessible=({"zone": "a"},),
)  # fmt: skip
WEB = Caller("job/web", frozenset({"c"}), frozenset({"default"}), frozenset({"data"}))


async def until(holds: Callable[[], bool]) -> None:
    """Look until it holds."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - the fake plugin rings no bell
            await asyncio.sleep(0.01)


async def cut(service: Service, source: Volume = RICH) -> str:
    service.cluster.known["default", "data"] = source
    draft = SnapshotDraft(cluster="c", namespace="default", name="one", volume="data")
    view, operation = await service.desk.create_snapshot(ADMIN, draft)
    assert (await service.finished(operation)).state is OperationState.DONE
    return view.key.uid


async def restored(service: Service, uid: str, draft: RestoreDraft) -> Operation:
    return await service.finished(await service.desk.restore_snapshot(ADMIN, uid, draft))


async def test_a_restore_is_as_the_source_was_at_the_cut_though_that_is_gone() -> None:
    async with running() as service:
        uid = await cut(service)
        del service.cluster.known["default", "data"]
        ended = await restored(service, uid, RestoreDraft("copy"))
        assert ended.state is OperationState.DONE, ended
        (asked,) = service.plugin.asked
        assert asked.required_bytes == 100
        assert (asked.access_modes, asked.fs_type, asked.parameters, asked.requisite) == (
            RICH.access_modes, "xfs", RICH.parameters, RICH.accessible,
        )  # fmt: skip
        new = service.cluster.known["default", "copy"]
        assert (new.access_modes, new.fs_type, new.capacity_bytes) == (RICH.access_modes, "xfs", 100)


async def test_what_is_asked_for_goes_before_what_the_source_was() -> None:
    async with running() as service:
        uid = await cut(service)
        draft = RestoreDraft(
            "copy", capacity_bytes=500, parameters={"pool": "b"}, access_modes=(AccessMode.SINGLE_NODE_WRITER,),
            mode=VolumeMode.BLOCK, topology=({"zone": "b"},),
        )  # fmt: skip
        assert (await restored(service, uid, draft)).state is OperationState.DONE
        (asked,) = service.plugin.asked
        assert (asked.required_bytes, asked.mode, asked.access_modes) == (500, VolumeMode.BLOCK, draft.access_modes)
        assert (asked.parameters, asked.requisite) == ({"tier": "gold", "pool": "b"}, ({"zone": "b"},))


async def test_a_repeat_asks_for_the_very_same_though_the_source_has_changed() -> None:
    async with running() as service:
        uid = await cut(service)
        service.plugin.script.faults = {len(service.plugin.script.done): "lost after"}
        operation = await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("copy"))
        await until(lambda: bool(service.plugin.asked))
        service.cluster.known["default", "data"] = dataclasses.replace(RICH, capacity_bytes=900, parameters={})
        assert (await service.finished(operation)).state is OperationState.DONE
        assert len(service.plugin.asked) == 2
        assert service.plugin.asked[0] == service.plugin.asked[1]


async def test_a_secret_that_went_meanwhile_ends_the_restore_with_its_name() -> None:
    async with running() as service:
        uid = await cut(service)
        service.secrets.known.add("MINE")
        service.cluster.fenced = "not yet"
        operation = await service.desk.restore_snapshot(
            ADMIN, uid, RestoreDraft("copy", secret=SecretRef("env", "MINE"))
        )
        service.secrets.known.clear()
        service.cluster.fenced = ""
        ended = await service.finished(operation)
        assert ended.state is OperationState.FAILED
        assert ended.failure is not None
        assert "the secret env:MINE cannot be used" in ended.failure.message
        assert service.plugin.asked == []


async def test_the_secret_is_the_callers_then_the_sources_then_the_one_kept() -> None:
    async with running() as service:
        uid = await cut(service)
        service.secrets.known |= {"MINE", "ROTATED"}
        operation = await service.desk.restore_snapshot(
            ADMIN, uid, RestoreDraft("copy", secret=SecretRef("env", "MINE"))
        )
        assert '"secret": "env:MINE"' in operation.arguments["shape"]
        with pytest.raises(
            InvalidError, match="the secret env:NOWHERE cannot be used: no secret env:NOWHERE"
        ) as raised:
            await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("copy4", secret=SecretRef("env", "NOWHERE")))
        assert raised.value.field == "secret"
        service.secrets.known.discard("ROTATED")
        service.cluster.known["default", "data"] = dataclasses.replace(RICH, secret=SecretRef("env", "ROTATED"))
        operation = await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("copy2"))
        assert '"secret": "env:ROTATED"' in operation.arguments["shape"]
        with pytest.raises(DeniedError, match="may not name secret"):
            await service.desk.restore_snapshot(WEB, uid, RestoreDraft("copy3", secret=SecretRef("env", "THEIRS")))
        like = RestoreDraft("copy3", secret=SecretRef("env", "THEIRS"))
        with pytest.raises(DeniedError, match="may not name secret"):
            await service.desk.clone_volume(WEB, CloneDraft("c", "default", "data", like))


async def test_a_snapshot_whose_blocks_a_restored_volume_shares_waits_for_it() -> None:
    async with running() as service:
        service.sharing.add("d")
        uid = await cut(service)
        assert (await restored(service, uid, RestoreDraft("copy"))).state is OperationState.DONE
        with pytest.raises(InUseError, match="c/default/copy"):
            await service.desk.delete_snapshot(ADMIN, uid)
        copy = service.cluster.known.pop(("default", "copy"))
        service.cluster.known["default", "renamed"] = dataclasses.replace(copy, name="renamed")
        with pytest.raises(InUseError, match="c/default/renamed"):
            await service.desk.delete_snapshot(ADMIN, uid)
        del service.cluster.known["default", "renamed"]
        ended = await service.finished(await service.desk.delete_snapshot(ADMIN, uid))
        assert ended.state is OperationState.DONE


async def test_a_clone_is_made_of_a_volume_and_registered() -> None:
    async with running() as service:
        service.plugin.capabilities.add(Capability.CLONE_VOLUME)
        service.cluster.known["default", "data"] = RICH
        draft = CloneDraft("c", "default", "data", RestoreDraft("twin"))
        first = await service.desk.clone_volume(ADMIN, draft, idempotency_key="k")
        assert (await service.desk.clone_volume(ADMIN, draft, idempotency_key="k")).id == first.id
        ended = await service.finished(first)
        assert (ended.state, ended.verb) == (OperationState.DONE, "clone")
        (asked,) = service.plugin.asked
        assert (asked.content, asked.required_bytes, asked.fs_type) == (VolumeSource("v1"), 100, "xfs")
        assert service.cluster.known["default", "twin"].handle == ended.result["handle"]
        assert [one.handle for one in await service.ledger.made_from("d", "v1")] == [ended.result["handle"]]
        origins = {volume.name: volume.origin for volume in await service.desk.volumes(ADMIN)}
        assert (origins["twin"], origins["data"]) == (VolumeSource("v1"), None)


async def test_a_clone_that_cannot_be_is_refused_at_once() -> None:
    async with running() as service:
        cases = [
            (
                CloneDraft("c", "default", "missing", RestoreDraft("x")),
                NotFoundError,
                "volume",
                "no volume 'missing'",
            ),
            (CloneDraft("x", "default", "data", RestoreDraft("x")), NotFoundError, "cluster", "no cluster 'x'"),
            (CloneDraft("c", "default", "data", RestoreDraft("x")), InvalidError, "volume", "CLONE_VOLUME"),
        ]
        for draft, kind, field, words in cases:
            with pytest.raises(kind, match=words) as raised:
                await service.desk.clone_volume(ADMIN, draft)
            assert raised.value.field == field
        service.plugin.capabilities.add(Capability.CLONE_VOLUME)
        with pytest.raises(InvalidError, match="less than the volume's 100"):
            await service.desk.clone_volume(ADMIN, CloneDraft("c", "default", "data", RestoreDraft("x", "", 5)))
        with pytest.raises(DeniedError):
            await service.desk.clone_volume(WEB, CloneDraft("c", "default", "other", RestoreDraft("x")))
        assert service.plugin.asked == []


async def test_a_restore_whose_create_was_lost_and_is_refused_ever_after_can_be_abandoned() -> None:
    async with running() as service:
        uid = await cut(service)
        done = len(service.plugin.script.done)
        service.plugin.script.faults = {done: "lost after"} | dict.fromkeys(range(done + 1, 1000), "refused")
        operation = await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("copy"))
        await until(lambda: len(service.plugin.asked) >= 3)
        assert (await service.desk.operation(ADMIN, operation.id)).state is OperationState.RUNNING
        await service.desk.abandon_operation(ADMIN, operation.id)
        ended = await service.finished(operation)
        assert ended.state is OperationState.FAILED
        assert ended.failure is not None
        assert ended.failure.code == "ABANDONED"
        name = f"restore-{operation.id}"
        assert name in ended.failure.message
        (row,) = [row for row in await service.ledger.trail() if row.verb == "orphan"]
        assert row.detail["orphan"] == name
        with pytest.raises(ConflictError, match="has ended"):
            await service.desk.abandon_operation(ADMIN, operation.id)


async def test_what_an_abandoned_restore_has_made_is_deleted() -> None:
    async with running() as service:
        uid = await cut(service)
        done = len(service.plugin.script.done)
        service.plugin.script.faults = {done: "lost after", done + 1: "lost before", done + 2: "lost before"}
        operation = await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("copy"))
        service.cluster.refuse_register = ""
        service.cluster.known["default", "copy"] = Volume("c", "default", "copy", "d", "somebody's", 1)
        ended = await service.finished(operation)
        assert ended.state is OperationState.FAILED
        assert service.plugin.volumes == {}
        assert service.cluster.known["default", "copy"].handle == "somebody's"


async def test_a_create_cannot_be_abandoned_that_way() -> None:
    async with running(not_ready=100_000) as service:
        draft = SnapshotDraft(cluster="c", namespace="default", name="one", volume="data")
        _, operation = await service.desk.create_snapshot(ADMIN, draft)
        with pytest.raises(InvalidError, match="cannot be abandoned") as raised:
            await service.desk.abandon_operation(ADMIN, operation.id)
        assert "snapshot delete REF --abandon" in raised.value.hint


async def test_a_restore_names_its_snapshot_as_the_source() -> None:
    async with running() as service:
        uid = await cut(service)
        handle = (await service.desk.snapshot(ADMIN, uid)).status.handle
        await restored(service, uid, RestoreDraft("copy"))
        (origin,) = await service.ledger.made_from("d", handle)
        assert origin.content == HandleSource(handle)
        assert origin.made_at > 0
