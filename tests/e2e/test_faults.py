"""Faults between the real service and a real driver, at both doors: one snapshot or none, never an orphan.

Back-offs are real (1, 2, 4 s), so stories that do not disturb each other are told at the same time, each with a
volume of its own: a fault strikes the calls of one volume only.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc
import pytest
import pytest_asyncio

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import claims, doors, faultproxy, localdisk, serve
from tests.support.bed import controlplane, paths
from tests.support.faultproxy import faults

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

Code = grpc.StatusCode
PLAIN, LISTER = "plain", "lister"
DRIVERS = {PLAIN: "faults.snapbridge.dev", LISTER: "lister.snapbridge.dev"}
VOLUMES = {PLAIN: 8, LISTER: 2}
QUIET_SECONDS = 2.0
QUIET_CPU_SECONDS = 0.5
"""Probes and watches go on; a hot loop would take all of the two seconds."""
REFUSED = ("the turn crashed", "Traceback", "never retrieved")


def asked(call: faultproxy.Call) -> Any:
    """The request of a call, whose type its method tells."""
    return call.request


def answered(call: faultproxy.Call) -> pb.Snapshot:
    """The snapshot that a create was answered with."""
    assert isinstance(call.reply, pb.CreateSnapshotResponse)
    return call.reply.snapshot


@dataclasses.dataclass
class Backend:
    """A driver, the proxy before it, and its volumes by name."""

    driver: localdisk.LocalDisk
    proxy: faultproxy.FaultProxy
    volumes: dict[str, str]

    async def handles(self) -> list[str]:
        """Every snapshot on it, asked of the driver itself."""
        request = pb.ListSnapshotsRequest()
        answer = await asyncio.to_thread(self.driver.controller.ListSnapshots, request, timeout=10)
        return sorted(entry.snapshot.snapshot_id for entry in answer.entries)

    async def remove(self, handle: str) -> None:
        """By hand, as an owner would."""
        request = pb.DeleteSnapshotRequest(snapshot_id=handle)
        await asyncio.to_thread(self.driver.controller.DeleteSnapshot, request, timeout=10)

    def creates(self, volume: str) -> list[faultproxy.Call]:
        """The CreateSnapshot calls for a volume."""
        mine = self.volumes[volume]
        return [call for call in self.proxy.called("CreateSnapshot") if asked(call).source_volume_id == mine]

    def deletes(self, handle: str) -> list[faultproxy.Call]:
        """The DeleteSnapshot calls for a handle."""
        return [call for call in self.proxy.called("DeleteSnapshot") if asked(call).snapshot_id == handle]

    def at_create(self, volume: str, fault: faults.Fault, **how: Any) -> None:
        """Script a fault for this volume's creates."""
        mine = self.volumes[volume]
        self.proxy.script("CreateSnapshot", fault, when=lambda sent: sent.source_volume_id == mine, **how)

    def at_handle(self, method: str, handle: str, fault: faults.Fault, **how: Any) -> None:
        """Script a fault for the calls that name this snapshot."""
        self.proxy.script(method, fault, when=lambda sent: sent.snapshot_id == handle, **how)


@dataclasses.dataclass
class Stand:
    """One service and one door to it."""

    service: serve.Serve
    door: doors.Door
    backends: dict[str, Backend]
    used: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def plain(self) -> Backend:
        return self.backends[PLAIN]

    @property
    def lister(self) -> Backend:
        return self.backends[LISTER]

    def volume(self, prefix: str = PLAIN) -> str:
        """A volume that no other story of this test uses."""
        number = self.used[prefix] = self.used.get(prefix, -1) + 1
        return f"{prefix}-{number:02}"

    def calls(self) -> int:
        """All calls to drivers so far but Probe."""
        return sum(call.method != "Probe" for one in self.backends.values() for call in one.proxy.calls)

    async def ended(self) -> None:
        """After a test: nothing is left, nothing is hot, the queue is empty, and work goes through at once."""
        for backend in self.backends.values():
            assert backend.proxy.pending == []
            assert await backend.handles() == []
        before = self.calls(), self.service.process.cpu_seconds()
        await asyncio.sleep(QUIET_SECONDS)
        assert self.calls() == before[0], "calls go on although nothing is to do"
        assert self.service.process.cpu_seconds() - before[1] < QUIET_CPU_SECONDS
        assert doors.metric(await asyncio.to_thread(self.service.metrics), "snapbridge_queue_depth") == 0
        log = self.service.process.log.read_text()
        assert not [words for words in REFUSED if words in log]
        await self.passes("after")

    async def passes(self, name: str) -> None:
        """A life without a fault: one create, one delete."""
        volume = self.volume()
        earlier = len(self.plain.creates(volume))
        await self.door.ask(name, volume)
        told = await doors.until_ready(self.door, name)
        assert await self.plain.handles() == [told.handle]
        await self.away(name)
        assert len(self.plain.creates(volume)) - earlier == 1
        assert len(self.plain.deletes(told.handle)) == 1
        assert await self.plain.handles() == []

    async def away(self, name: str) -> None:
        await self.door.delete(name)
        await doors.until_gone(self.door, name)


async def backend_of(stack: contextlib.AsyncExitStack, prefix: str) -> Backend:
    driver = stack.enter_context(localdisk.start_localdisk(mode="directory", driver_name=DRIVERS[prefix]))
    names = [f"{prefix}-{number:02}" for number in range(VOLUMES[prefix])]
    made = [await asyncio.to_thread(driver.volume, name, 1 << 20) for name in names]
    socket = paths.fresh("proxy") / "csi.sock"
    socket.parent.mkdir(parents=True, exist_ok=True)
    proxy = await stack.enter_async_context(faultproxy.FaultProxy(driver.socket, socket))
    volumes = {name: volume.volume_id for name, volume in zip(names, made, strict=True)}
    return Backend(driver, proxy, volumes)


def without_get(message: Any) -> None:
    """As a driver without GetSnapshot would announce itself."""
    kept = [one for one in message.capabilities if one.rpc.type != pb.ControllerServiceCapability.RPC.GET_SNAPSHOT]
    del message.capabilities[:]
    message.capabilities.extend(kept)


def standalone(backends: dict[str, Backend]) -> dict[str, Any]:
    volumes = [
        {"name": name, "driver": DRIVERS[prefix], "handle": handle, "capacity": "1MiB"}
        for prefix, backend in backends.items()
        for name, handle in backend.volumes.items()
    ]
    return {"name": "here", "kind": "standalone", "volumes": volumes}


async def kubernetes(
    plane: controlplane.ControlPlane, namespace: str, backends: dict[str, Backend]
) -> dict[str, Any]:
    """Claims for every volume, and two classes per driver."""
    admin = plane.admin
    objects: list[Any] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}]
    for prefix, backend in backends.items():
        for policy in ("Delete", "Retain"):
            name = f"{prefix}-{policy.lower()}"
            await asyncio.to_thread(claims.install, admin, DRIVERS[prefix], policy=policy, name=name)
        for name, handle in backend.volumes.items():
            objects += claims.claim(namespace, name, DRIVERS[prefix], handle, size="1Mi")
    await asyncio.to_thread(admin.apply, objects)
    bound = ["wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s", "pvc", "--all", "-n", namespace]
    await asyncio.to_thread(admin.kubectl, *bound, seconds=70)
    return {"name": "kube", "kind": "kubernetes", "kubeconfig": str(plane.kubeconfig)}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["standalone", "kubernetes"])
async def shared(request: pytest.FixtureRequest, control_plane: controlplane.ControlPlane) -> AsyncIterator[Stand]:
    """One service per door for the whole module."""
    async with contextlib.AsyncExitStack() as stack:
        backends = {prefix: await backend_of(stack, prefix) for prefix in DRIVERS}
        backends[LISTER].proxy.script(
            "ControllerGetCapabilities", faultproxy.edit(without_get, "no GET_SNAPSHOT"), times=None
        )
        namespace = "faults"
        if request.param == "kubernetes":
            cluster = await kubernetes(control_plane, namespace, backends)
        else:
            cluster = standalone(backends)
        service = serve.service(
            clusters=[cluster],
            plugins=[{"name": name, "socket": str(one.proxy.listen)} for name, one in backends.items()],
            csi={"poll_first": "100ms", "probe_interval": "500ms"},
        )
        await asyncio.to_thread(service.start)
        stack.push_async_callback(asyncio.to_thread, service.process.stop)
        await until_plugins(service)
        backends[LISTER].proxy.clear()
        door: doors.Door = (
            doors.KubernetesDoor(control_plane.admin, namespace, tuple(DRIVERS))
            if request.param == "kubernetes"
            else doors.HttpDoor(service, "here")
        )
        yield Stand(service, door, backends)
    if request.param == "kubernetes":
        await asyncio.to_thread(control_plane.admin.kubectl, "delete", "namespace", namespace, "--wait=false")


async def until_plugins(service: serve.Serve) -> None:
    """Both drivers have told what they can."""
    for _ in range(100):
        found = (await asyncio.to_thread(service.get, "/v1/plugins"))["items"]
        if {one["driver"] for one in found if one["healthy"]} == set(DRIVERS.values()):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the plugins are not healthy: {found}")


@pytest_asyncio.fixture(loop_scope="module")
async def stand(shared: Stand) -> AsyncIterator[Stand]:
    """The service for one test, which must leave nothing."""
    shared.used.clear()
    for backend in shared.backends.values():
        backend.proxy.calls.clear()
    yield shared
    await shared.ended()


async def together(*stories: Coroutine[Any, Any, None]) -> None:
    """Tell all of them at once; every one that fails is named."""
    ends = await asyncio.gather(*stories, return_exceptions=True)
    failed = [end for end in ends if isinstance(end, BaseException)]
    if failed:
        raise BaseExceptionGroup(f"{len(failed)} of {len(stories)} stories", failed)


def same_request(calls: list[faultproxy.Call]) -> bool:
    """Whether a create was repeated as it was."""
    return len({call.request.SerializeToString(deterministic=True) for call in calls if call.request}) == 1


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
    volume = stand.volume()
    stand.plain.at_create(volume, faultproxy.lose_reply(Code.INTERNAL), after_effect=True)
    stand.plain.at_create(volume, faultproxy.lose_reply(Code.INVALID_ARGUMENT), skip=1)
    await stand.door.ask("withdrawn", volume)
    await doors.until_said(stand.door, "withdrawn", "INTERNAL")
    assert len(await stand.plain.handles()) == 1
    await stand.away("withdrawn")
    assert [call.code for call in stand.plain.creates(volume)] == [Code.INTERNAL, Code.INVALID_ARGUMENT, Code.OK]


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
        assert max(gaps) < 3, f"an error's back-off would have reached 16 s: {gaps}"
        await stand.away("slow")

    async def lying() -> None:
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

    async def timeless(name: str, fault: faults.Fault) -> None:
        volume = stand.volume()
        stand.plain.at_create(volume, fault)
        await stand.door.ask(name, volume)
        told = await doors.until_ready(stand.door, name)
        assert told.cut_at == ""
        await stand.away(name)

    async def told_twice() -> None:
        await timeless("no-time", faultproxy.creation_time_missing())
        await timeless("in-1970", faultproxy.creation_time_1970())

    await together(busy(), slow(), lying(), told_twice())


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
    """Readiness by repeating the create; a snapshot taken over by its handle is found in lists of any order."""
    lister = stand.lister

    async def slow() -> None:
        volume = stand.volume(LISTER)
        lister.at_create(volume, faultproxy.not_ready(), times=4)
        await stand.door.ask("slow-lister", volume)
        told = await doors.until_ready(stand.door, "slow-lister")
        calls = lister.creates(volume)
        assert len(calls) == 5
        assert same_request(calls)
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
        await asyncio.to_thread(claims.until, "the driver is dead", lambda: not driver.process.running, 20.0)
        await asyncio.sleep(1.5)
        assert len(stand.plain.creates(volume)) <= 2, "a driver that is away is called again and again"
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
        name = "delete-in-use"
        await stand.door.ask(name, stand.volume())
        told = await doors.until_ready(stand.door, name)
        busy = faultproxy.lose_reply(Code.FAILED_PRECONDITION, "volume clone-1 depends on it")
        stand.plain.at_handle("DeleteSnapshot", told.handle, busy, times=2)
        await stand.door.delete(name)
        said = await doors.until_said(stand.door, name, "clone-1")
        assert not said.ready, "a snapshot that is being deleted is told ready"
        await doors.until_gone(stand.door, name)
        assert len(stand.plain.deletes(told.handle)) == 3

    await together(lost(), in_use())


async def test_deleted_while_the_create_fails_unsurely(stand: Stand) -> None:
    """The handle is learnt first: then it is deleted, or kept and named."""

    async def story(name: str, *, retain: bool) -> None:
        volume = stand.volume()
        stand.plain.at_create(volume, faultproxy.lose_reply(Code.INTERNAL), after_effect=True)
        stand.plain.at_create(volume, faultproxy.lose_reply(Code.UNAVAILABLE), skip=1)
        await stand.door.ask(name, volume, retain=retain)
        await doors.until_said(stand.door, name, "INTERNAL")
        await stand.door.delete(name)
        if retain:
            told = await doors.until_kept(stand.door, name)
            assert told.handle in await stand.plain.handles()
            await stand.door.forget(name)
            await stand.plain.remove(told.handle)
        else:
            await doors.until_gone(stand.door, name)
        assert len(stand.plain.creates(volume)) == 3

    await together(story("unsure-delete", retain=False), story("unsure-retain", retain=True))


async def test_abandoned(stand: Stand) -> None:
    """Its owner lets go of a create that cannot be settled: that an orphan is possible is on record."""
    volume, name = stand.volume(), "abandoned"
    before = doors.metric(await asyncio.to_thread(stand.service.metrics), "snapbridge_orphan_possible_total")
    stand.plain.at_create(volume, faultproxy.lose_reply(Code.INTERNAL), after_effect=True)
    stand.plain.at_create(
        volume, faultproxy.lose_reply(Code.RESOURCE_EXHAUSTED, "the pool is full"), skip=1, times=None
    )
    uid = await stand.door.ask(name, volume)
    await doors.until_said(stand.door, name, "INTERNAL")
    await stand.door.delete(name)
    said = await doors.until_said(stand.door, name, "the pool is full")
    assert not said.ready
    await stand.door.abandon(name)
    await doors.until_gone(stand.door, name)
    calls = len(stand.plain.creates(volume))
    stand.plain.proxy.clear()
    (orphan,) = await stand.plain.handles()
    words = f"snapshot-{uid}"
    log = stand.service.process.log.read_text()
    assert any("orphan" in line and words in line for line in log.splitlines())
    after = doors.metric(await asyncio.to_thread(stand.service.metrics), "snapbridge_orphan_possible_total")
    assert after == before + 1
    if isinstance(stand.door, doors.KubernetesDoor):
        assert "SnapshotOrphanPossible" in await stand.door.events(name)
    else:
        assert any(words in detail for detail in audited(stand.service, "orphan"))
    await stand.plain.remove(orphan)
    assert len(stand.plain.creates(volume)) == calls


def audited(service: serve.Serve, verb: str) -> list[str]:
    """Details of the audit's rows of one verb."""
    file = service.folder / "data" / "ledger.db"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return [row[0] for row in connection.execute("SELECT detail FROM audit WHERE verb = ?", (verb,))]
