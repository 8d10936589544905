"""Faults between the real service and a real driver, at both doors: one snapshot or none, never an orphan.

Back-offs are real (1, 2, 4 s), so stories that do not disturb each other are told at the same time, each with a
volume of its own: a fault strikes the calls of one volume only.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import claims, doors, fault_stand, faultproxy, serve
from tests.support.bed import controlplane
from tests.support.fault_stand import DRIVERS, LISTER, Backend, Stand, answered, asked, same_request, together
from tests.support.faultproxy import faults

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

Code = grpc.StatusCode


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["standalone", "kubernetes"])
async def shared(request: pytest.FixtureRequest, control_plane: controlplane.ControlPlane) -> AsyncIterator[Stand]:
    """One service per door for the whole module."""
    async with fault_stand.running(control_plane if request.param == "kubernetes" else None, "faults") as stand:
        yield stand


@pytest_asyncio.fixture(loop_scope="module")
async def stand(shared: Stand) -> AsyncIterator[Stand]:
    """The service for one test, which must leave nothing."""
    shared.used.clear()
    for backend in shared.backends.values():
        backend.proxy.calls.clear()
    yield shared
    await shared.ended()


# -- creating --------------------------------------------------------------------------------------------------


async def test_a_lost_reply_then_a_refusal_then_success(stand: Stand) -> None:
    """The cut was made and nobody was told; the refusal that follows must not close the note."""

    async def story(code: grpc.StatusCode) -> None:
        volume, name = stand.volume(), f"lost-{code.name.lower().replace('_', '-')}"
        stand.plain.at_create(volume, faultproxy.lose_reply(code), after_effect=True)
        stand.plain.at_create(volume, faultproxy.lose_reply(Code.INVALID_ARGUMENT), skip=1)
        await stand.door.ask(name, volume)
        told = await doors.until_ready(stand.door, name)
        calls = stand.plain.creates(volume)
        assert [call.code for call in calls] == [code, Code.INVALID_ARGUMENT, Code.OK]
        assert same_request(calls)
        made = {answered(call).snapshot_id for call in calls if call.reply}
        assert made == {told.handle}

    codes = (Code.INTERNAL, Code.UNKNOWN, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED)
    await together(*(story(code) for code in codes))
    assert len(await stand.plain.handles()) == len(codes)
    await together(*(stand.away(f"lost-{code.name.lower().replace('_', '-')}") for code in codes))


async def test_withdrawn_while_a_lost_reply_is_followed_by_refusals(stand: Stand) -> None:
    """Deleted between the lost reply and the refusal: the handle is learnt first, then nothing is left."""
    volume, deleted = stand.volume(), asyncio.Event()
    lost_until(stand, volume, deleted)
    stand.plain.at_create(volume, faultproxy.lose_reply(Code.INVALID_ARGUMENT), only=deleted.is_set)
    await stand.door.ask("withdrawn", volume)
    await doors.until_said(stand.door, "withdrawn", "INTERNAL")
    assert len(await stand.plain.handles()) == 1
    await stand.door.delete("withdrawn")
    deleted.set()
    await doors.until_gone(stand.door, "withdrawn")
    codes = [call.code for call in stand.plain.creates(volume)]
    assert codes[-2:] == [Code.INVALID_ARGUMENT, Code.OK]
    assert set(codes[:-2]) == {Code.INTERNAL}


def lost_until(stand: Stand, volume: str, looked: asyncio.Event) -> None:
    """Each create is done and answered INTERNAL, until the test has seen that it is told of."""
    lost = faultproxy.lose_reply(Code.INTERNAL)
    stand.plain.at_create(volume, lost, after_effect=True, times=None, only=lambda: not looked.is_set())


async def test_a_busy_a_slow_and_a_lying_driver(stand: Stand) -> None:
    """ABORTED, not ready, another volume's reply, and creation times that nobody knows."""

    async def busy() -> None:
        volume = stand.volume()
        stand.plain.at_create(volume, faultproxy.aborted(), times=3)
        await stand.door.ask("busy", volume)
        await doors.until_ready(stand.door, "busy")
        assert [call.code for call in stand.plain.creates(volume)] == [*[Code.ABORTED] * 3, Code.OK]
        await stand.away("busy")

    async def slow() -> None:
        volume = stand.volume()
        stand.plain.at_create(volume, faultproxy.not_ready())
        mine = stand.plain.volumes[volume]
        stand.plain.proxy.script("GetSnapshot", faultproxy.not_ready(), times=5, when=_of(stand.plain, mine))
        await stand.door.ask("slow", volume)
        told = await doors.until_ready(stand.door, "slow")
        polls = [c for c in stand.plain.proxy.called("GetSnapshot") if asked(c).snapshot_id == told.handle]
        assert len(polls) == 6
        assert len(stand.plain.creates(volume)) == 1
        gaps = [after.began - before.began for before, after in itertools.pairwise(polls)]
        assert max(gaps) < 12, f"an error's back-off would have reached 16 s: {gaps}"
        await stand.away("slow")

    async def timeless(name: str, fault: faults.Fault) -> None:
        volume = stand.volume()
        stand.plain.at_create(volume, fault)
        await stand.door.ask(name, volume)
        told = await doors.until_ready(stand.door, name)
        if isinstance(stand.door, doors.KubernetesDoor):
            assert told.cut_at[:2] == "20", "upstream's clients need a time: that of the first sight, not 1970"
        else:
            assert told.cut_at == ""
        await stand.away(name)

    async def told_twice() -> None:
        await timeless("no-time", faultproxy.creation_time_missing())
        await timeless("in-1970", faultproxy.creation_time_1970())

    await together(busy(), slow(), _lying(stand), told_twice())


async def _lying(stand: Stand) -> None:
    """A reply about another volume's snapshot, twice."""
    volume, other = stand.volume(), stand.volume()
    foreign = await asyncio.to_thread(stand.plain.driver.snapshot, "foreign", stand.plain.volumes[other])
    stand.plain.at_create(volume, faultproxy.edit(_become(foreign), "a foreign snapshot"), times=2)
    await stand.door.ask("lying", volume)
    while (told := await stand.door.told("lying")) is None or not told.ready:
        assert told is None or told.handle != foreign.snapshot_id, "a foreign snapshot was taken for ours"
        await asyncio.sleep(0.05)
    calls = stand.plain.creates(volume)
    assert len(calls) == 3
    assert told.handle == answered(calls[-1]).snapshot_id != foreign.snapshot_id
    await stand.away("lying")
    assert foreign.snapshot_id in await stand.plain.handles(), "what we did not make was deleted"
    await stand.plain.remove(foreign.snapshot_id)


def _become(foreign: pb.Snapshot) -> Callable[[Any], None]:
    """Put another volume's snapshot into a reply."""

    def change(message: Any) -> None:
        message.snapshot.snapshot_id = foreign.snapshot_id
        message.snapshot.source_volume_id = foreign.source_volume_id

    return change


def _of(backend: Backend, volume_id: str) -> Callable[[Any], bool]:
    """Whether a GetSnapshot asks for a snapshot of this volume, as far as the creates have told."""

    def mine(wanted: Any) -> bool:
        return any(
            call.reply is not None and answered(call).snapshot_id == wanted.snapshot_id
            for call in backend.proxy.called("CreateSnapshot")
            if asked(call).source_volume_id == volume_id
        )

    return mine


async def test_a_driver_without_get_snapshot(stand: Stand) -> None:
    """Readiness by lists and repeated creates; a snapshot taken over by its handle is found in lists of any order."""
    lister = stand.lister

    async def slow() -> None:
        volume, looks = stand.volume(LISTER), itertools.count()
        lister.at_create(volume, faultproxy.not_ready(), times=1)
        lister.proxy.script(
            "ListSnapshots",
            faultproxy.not_ready(),
            times=None,
            when=lambda sent: sent.snapshot_id and next(looks) < 3,
        )
        await stand.door.ask("slow-lister", volume)
        told = await doors.until_ready(stand.door, "slow-lister")
        calls = lister.creates(volume)
        assert same_request(calls)
        listed = [call for call in lister.proxy.called("ListSnapshots") if asked(call).snapshot_id]
        assert len(calls) + len(listed) >= 2, "one answer said that it is not ready"
        assert told.handle in await lister.handles()
        await stand.away("slow-lister")

    async def reordered() -> None:
        volume = stand.volume(LISTER)
        cuts = [
            await asyncio.to_thread(lister.driver.snapshot, f"by-hand-{n}", lister.volumes[volume]) for n in "abc"
        ]
        lister.proxy.script("ListSnapshots", faultproxy.reordered(), times=None)
        await stand.door.adopt("adopted", DRIVERS[LISTER], cuts[1].snapshot_id)
        told = await doors.until_ready(stand.door, "adopted")
        assert told.handle == cuts[1].snapshot_id
        assert lister.proxy.called("ListSnapshots")
        lister.proxy.clear()
        await stand.away("adopted")
        kept = {cuts[0].snapshot_id, cuts[2].snapshot_id}
        assert kept <= set(await lister.handles()), "what we did not make or take over was deleted"
        assert cuts[1].snapshot_id not in await lister.handles()
        for handle in kept:
            await lister.remove(handle)

    await slow()
    await reordered()


async def test_the_connection_is_cut(stand: Stand) -> None:
    """Mid-call, before and after the effect: repeated, and made once."""
    for name, after_effect in (("cut-before", False), ("cut-after", True)):
        volume = stand.volume()
        stand.plain.at_create(volume, faultproxy.cut_connection(), after_effect=after_effect)
        await stand.door.ask(name, volume)
        told = await doors.until_ready(stand.door, name)
        calls = stand.plain.creates(volume)
        assert len(calls) == 2
        assert same_request(calls)
        assert await stand.plain.handles() == [told.handle]
        await stand.away(name)


async def test_the_driver_is_killed(stand: Stand) -> None:
    """kill -9 before and after the effect; the driver stays away for a while."""
    driver = stand.plain.driver
    for name, after_effect in (("killed-before", False), ("killed-after", True)):
        volume = stand.volume()
        kill = faultproxy.crash(lambda: asyncio.to_thread(driver.kill))
        stand.plain.at_create(volume, kill, after_effect=after_effect)
        await stand.door.ask(name, volume)
        await asyncio.to_thread(claims.until, "the driver is dead", lambda: not driver.process.running, 60.0)
        await asyncio.sleep(1.5)
        calls = stand.plain.creates(volume)
        away_seconds = time.monotonic() - calls[0].began
        assert len(calls) <= 2 + away_seconds / 2, "a driver that is away is called again and again"
        await asyncio.to_thread(driver.start)
        told = await doors.until_ready(stand.door, name)
        assert await stand.plain.handles() == [told.handle]
        assert same_request(stand.plain.creates(volume))
        await stand.away(name)


# -- deleting --------------------------------------------------------------------------------------------------


async def test_deletes_that_do_not_go_through_at_once(stand: Stand) -> None:
    """A lost reply is repeated; a snapshot in use waits, and its owner is told."""

    async def lost() -> None:
        name = "delete-lost"
        await stand.door.ask(name, stand.volume())
        told = await doors.until_ready(stand.door, name)
        stand.plain.at_handle("DeleteSnapshot", told.handle, faultproxy.lose_reply(Code.INTERNAL), after_effect=True)
        await stand.away(name)
        assert [call.code for call in stand.plain.deletes(told.handle)] == [Code.INTERNAL, Code.OK]

    async def in_use() -> None:
        name, looked = "delete-in-use", asyncio.Event()
        await stand.door.ask(name, stand.volume())
        told = await doors.until_ready(stand.door, name)
        busy = faultproxy.lose_reply(Code.FAILED_PRECONDITION, "volume clone-1 depends on it")
        stand.plain.at_handle("DeleteSnapshot", told.handle, busy, times=None, only=lambda: not looked.is_set())
        await stand.door.delete(name)
        said = await doors.until_said(stand.door, name, "clone-1")
        assert not said.ready, "a snapshot that is being deleted is told ready"
        looked.set()
        await doors.until_gone(stand.door, name)
        codes = [call.code for call in stand.plain.deletes(told.handle)]
        assert codes[-1] is Code.OK
        assert set(codes[:-1]) == {Code.FAILED_PRECONDITION}

    await together(lost(), in_use())


async def test_deleted_while_the_create_fails_unsurely(stand: Stand) -> None:
    """The handle is learnt first: then it is deleted, or kept and named."""

    async def story(name: str, *, retain: bool) -> None:
        volume, deleted = stand.volume(), asyncio.Event()
        lost_until(stand, volume, deleted)
        stand.plain.at_create(volume, faultproxy.lose_reply(Code.UNAVAILABLE), only=deleted.is_set)
        await stand.door.ask(name, volume, retain=retain)
        await doors.until_said(stand.door, name, "INTERNAL")
        await stand.door.delete(name)
        deleted.set()
        if retain:
            told = await doors.until_kept(stand.door, name)
            assert told.handle in await stand.plain.handles()
            await stand.door.forget(name)
            await stand.plain.remove(told.handle)
        else:
            await doors.until_gone(stand.door, name)
        codes = [call.code for call in stand.plain.creates(volume)]
        assert codes[-2:] == [Code.UNAVAILABLE, Code.OK]
        assert set(codes[:-2]) == {Code.INTERNAL}

    await together(story("unsure-delete", retain=False), story("unsure-retain", retain=True))


async def test_abandoned(stand: Stand) -> None:
    """Its owner lets go of a create that cannot be settled: that an orphan is possible is on record."""
    volume, name, told = stand.volume(), "abandoned", asyncio.Event()
    before = doors.metric(await asyncio.to_thread(stand.service.metrics), "snapbridge_orphan_possible_total")
    lost_until(stand, volume, told)
    full = faultproxy.lose_reply(Code.RESOURCE_EXHAUSTED, "the pool is full")
    stand.plain.at_create(volume, full, times=None, only=told.is_set)
    uid = await stand.door.ask(name, volume)
    await doors.until_said(stand.door, name, "INTERNAL")
    told.set()
    await stand.door.delete(name)
    said = await doors.until_said(stand.door, name, "the pool is full")
    assert not said.ready
    await stand.door.abandon(name)
    await doors.until_gone(stand.door, name)
    calls = len(stand.plain.creates(volume))
    stand.plain.proxy.clear()
    (orphan,) = await stand.plain.handles()
    words = f"snapshot-{uid}"

    def logged() -> bool:
        log = stand.service.process.log.read_text()
        return any("orphan" in line and words in line for line in log.splitlines())

    await asyncio.to_thread(claims.until, "it is logged", logged)
    counted = lambda: doors.metric(stand.service.metrics(), "snapbridge_orphan_possible_total") == before + 1  # noqa: E731
    await asyncio.to_thread(claims.until, "it is counted once", counted)
    if isinstance(stand.door, doors.KubernetesDoor):
        async with asyncio.timeout(60):
            while "SnapshotOrphanPossible" not in await stand.door.events(name):  # noqa: ASYNC110 - no bell rings
                await asyncio.sleep(0.1)
    else:
        noted = lambda: any(words in detail for detail in audited(stand.service, "orphan"))  # noqa: E731
        await asyncio.to_thread(claims.until, "it is in the audit", noted)
    await stand.plain.remove(orphan)
    assert len(stand.plain.creates(volume)) == calls


def audited(service: serve.Serve, verb: str) -> list[str]:
    """Details of the audit's rows of one verb."""
    file = service.folder / "data" / "ledger.db"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return [row[0] for row in connection.execute("SELECT detail FROM audit WHERE verb = ?", (verb,))]
