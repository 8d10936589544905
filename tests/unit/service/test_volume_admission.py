"""CreateVolume and DeleteVolume of restores, clones, reverts and acknowledgements pass the doorkeeper, as cuts do.

Places, one way at a time per volume, pauses, the fence asked once more, what an earlier process may have under way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from bridge.model.failure import Failure, FailureKind, UnavailableError
from bridge.model.keys import Key
from bridge.model.operation import Operation, OperationState
from bridge.model.outcome import Done, Failed
from bridge.model.plugin import Capability, Route
from bridge.model.secret import NO_SECRET
from bridge.model.snapshot import HandleSource
from bridge.model.view import CloneDraft, RestoreDraft
from bridge.model.volume import Volume
from bridge.ports.orchestrator import SnapshotDraft
from bridge.service import lane, work
from bridge.service.admission import Hold, Passage
from bridge.service.new_volumes import Asking, NewVolumes, Wanted
from tests.support import memory
from tests.support.reverting import OPERATION, World, no_records
from tests.support.standalone import ADMIN, Service, running


async def until(holds: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(30):
            while not holds():  # noqa: ASYNC110 - the fake plugin rings no bell
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what) from None


async def ask(service: Service, name: str, volume: str = "data") -> tuple[str, Operation]:
    """A snapshot, asked for: its uid and its operation."""
    view, operation = await service.desk.create_snapshot(
        ADMIN, SnapshotDraft(cluster="c", namespace="default", name=name, volume=volume)
    )
    return view.key.uid, operation


async def cut(service: Service, name: str, volume: str = "data") -> str:
    uid, operation = await ask(service, name, volume)
    assert (await service.finished(operation)).state is OperationState.DONE
    return uid


async def told_to_wait(service: Service, operation: Operation) -> str:
    """What the operation says it waits for."""
    found: list[str] = []

    async def said() -> bool:
        steps = (await service.operations.get(operation.id)).steps
        found.extend(step.name for step in steps if step.name.startswith("waiting: a call on volume"))
        return bool(found)

    async with asyncio.timeout(30):
        while not await said():  # noqa: ASYNC110 - read from the book
            await asyncio.sleep(0.01)
    return found[0]


@contextlib.asynccontextmanager
async def held(service: Service, beginning: str) -> AsyncIterator[None]:
    """In this block, calls that begin so do not end. They do before the service stops."""
    gate = service.plugin.gates[beginning] = asyncio.Event()
    try:
        yield
    finally:
        gate.set()


@pytest.mark.parametrize("places", [1, 2])
async def test_restores_clones_and_cuts_share_the_plugins_places_and_all_end(places: int) -> None:
    async with running() as service:
        uid = await cut(service, "first")
        service.plugin.capabilities.add(Capability.CLONE_VOLUME)
        service.plugin.concurrency = places
        service.plugin.most_inside = 0
        async with held(service, "create"):
            asked = [await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft(f"r{n}")) for n in range(4)]
            asked += [
                await service.desk.clone_volume(ADMIN, CloneDraft("c", "default", "other", RestoreDraft(f"c{n}")))
                for n in range(4)
            ]
            asked += [(await ask(service, f"s{n}", "other"))[1] for n in range(4)]
            await until(lambda: len(service.plugin.inside) == places, "the places are taken")
            await asyncio.sleep(0.2)
        ended = [await service.finished(operation) for operation in asked]
        assert {one.state for one in ended} == {OperationState.DONE}
        assert service.plugin.most_inside == places
        assert len(service.plugin.volumes) == 8


async def test_a_cut_waits_for_a_restore_from_its_volume_that_left_the_other_way() -> None:
    async with running() as service:
        uid = await cut(service, "first")
        async with held(service, "create volume"):
            service.plugin.way = Route.ORCHESTRATOR
            restore = await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("copy"))
            await until(lambda: len(service.plugin.inside) == 1, "the restore is under way")
            service.plugin.way = Route.SOCKET
            _, other = await ask(service, "elsewhere", "other")
            assert (await service.finished(other)).state is OperationState.DONE
            second, operation = await ask(service, "second")
            seen: list[str] = []

            async def busy() -> bool:
                seen.append((await service.desk.snapshot(ADMIN, second)).status.reason)
                return "ROUTE_BUSY" in seen

            async with asyncio.timeout(30):
                while not await busy():  # noqa: ASYNC110 - read from the book
                    await asyncio.sleep(0.01)
            assert [one for one in service.plugin.inside if "snapshot" in one] == []
        assert (await service.finished(restore)).state is OperationState.DONE
        assert (await service.finished(operation)).state is OperationState.DONE


async def test_a_restore_waits_for_a_cut_of_its_volume_that_left_the_other_way_and_says_so() -> None:
    async with running() as service:
        mine, other = await cut(service, "first"), await cut(service, "elsewhere", "other")
        async with held(service, "create snapshot"):
            _, cutting = await ask(service, "second")
            await until(lambda: len(service.plugin.inside) == 1, "the cut is under way")
            service.plugin.way = Route.ORCHESTRATOR
            restore = await service.desk.restore_snapshot(ADMIN, mine, RestoreDraft("copy"))
            words = await told_to_wait(service, restore)
            assert words == (
                "waiting: a call on volume 'v1' may still be under way by socket; "
                "it is not called by orchestrator before that one has ended"
            )
            free = await service.desk.restore_snapshot(ADMIN, other, RestoreDraft("free"))
            assert (await service.finished(free)).state is OperationState.DONE
            assert [new.content for new in service.plugin.asked] == [HandleSource("snap-2")]
        assert (await service.finished(cutting)).state is OperationState.DONE
        assert (await service.finished(restore)).state is OperationState.DONE


async def test_the_fence_counts_when_a_restore_gets_its_place() -> None:
    async with running() as service:
        uid = await cut(service, "first")
        service.plugin.concurrency = 1
        async with held(service, "create snapshot"):
            _, cutting = await ask(service, "second")
            await until(lambda: len(service.plugin.inside) == 1, "the cut is under way")
            restore = await service.desk.restore_snapshot(ADMIN, uid, RestoreDraft("copy"))
            await asyncio.sleep(0.2)
            service.cluster.fenced = "another one leads"
        await until(lambda: service.plugin.inside == [], "the place is free")
        await asyncio.sleep(0.3)
        assert service.plugin.asked == []
        service.cluster.fenced = ""
        for operation in (cutting, restore):
            assert (await service.finished(operation)).state is OperationState.DONE


class Desk:
    """`NewVolumes` over fakes, and the notes that it asks for."""

    def __init__(self, *, writer: str = "now", started_ago_seconds: float = 0.0) -> None:
        self.clock = memory.VirtualClock()
        self.plugin = memory.MemoryPlugin(memory.Script(), self.clock)
        started_at = self.clock.now() - started_ago_seconds
        self.tools = work.Tools(self.plugin, self.clock, writer, started_at=started_at)
        self.lane = lane.Lane(cast(Any, None), cast(Any, None), no_records(), memory.NoSecrets(), fence=self._fence)
        self.notes: list[str] = []
        self.fenced = ""
        self.on_note: Callable[[], None] = lambda: None

    def _fence(self, _driver: str) -> str:
        return self.fenced

    async def create(self, called: str = "", *, noted: bool = False) -> object:
        async def note(text: str) -> None:
            self.notes.append(text)
            self.on_note()

        shape = Volume("c", "default", "copy", "d", "-", 100)
        asking = Asking(Key("c", "restore", "op"), called, note, noted)
        wanted = Wanted("restore-1", HandleSource("s1"), "v1")
        return await NewVolumes(self.tools).create(self.lane, shape, wanted, asking=asking)

    async def delete(self, called: str = "") -> object:
        async def note(text: str) -> None:
            self.notes.append(text)
            self.on_note()

        asking = Asking(Key("c", "restore", "op"), called, note)
        return await NewVolumes(self.tools).delete(self.lane, "d", "v9", NO_SECRET, asking=asking)

    def other(self, *volumes: str, route: Route) -> Passage:
        """Somebody else's call on these."""
        return Passage(Key("c", "snapshot", "other"), self.plugin.view("d"), route, volumes, 120.0)


@pytest.mark.parametrize(("verb", "what"), [("create", "create restore-1"), ("delete", "delete v9")])
async def test_what_an_earlier_process_may_have_under_way_is_not_repeated_the_other_way(verb: str, what: str) -> None:
    for writer, route, waits in (
        ("earlier", "orchestrator", True),
        ("earlier", "socket", False),
        ("earlier", "node-agent", False),
        ("now", "orchestrator", False),
    ):
        desk = Desk()
        call = getattr(desk, verb)
        outcome = await call(f"{writer} {route} {what}")
        assert isinstance(outcome, Hold) is waits, (writer, route)
        if waits:
            assert outcome.reason == "ROUTE_BUSY"
            assert outcome.seconds == desk.plugin.view("d").volume_settle_seconds
            assert desk.notes == desk.plugin.script.done == []
            desk.clock.instant += outcome.seconds + 1
            assert isinstance(await call(f"{writer} {route} {what}"), Done)
        assert desk.notes == [f"now socket {what}"]
    for called in ("", "earlier orchestrator create another", "earlier orchestrator delete another"):
        assert isinstance(await getattr(Desk(), verb)(called), Done), called
    late = Desk(started_ago_seconds=301.0)
    assert isinstance(await getattr(late, verb)(f"earlier orchestrator {what}"), Done), "it has ended by now"


async def test_a_repeat_of_the_same_process_by_the_same_route_writes_no_note_again() -> None:
    desk = Desk()
    assert isinstance(await desk.create("now socket create restore-1", noted=True), Done)
    assert desk.notes == []
    assert isinstance(await desk.create("now socket create restore-1", noted=False), Done)
    assert len(desk.notes) == 1, "the journal has to say that the volume may have been made"


async def test_a_call_that_cannot_be_noted_is_not_made() -> None:
    desk = Desk()

    def fails() -> None:
        raise UnavailableError("the disk is full")

    desk.on_note = fails
    for call in (desk.create, desk.delete):
        assert isinstance(await call(), Hold)
    assert desk.plugin.script.done == []
    later = desk.tools.admission.hold(desk.other("v1", "v9", route=Route.ORCHESTRATOR), desk.clock.now())
    assert later is None, "what was not sent is not under way"


async def test_a_call_whose_route_is_lost_while_it_is_noted_is_not_made() -> None:
    desk = Desk()
    desk.on_note = lambda: setattr(desk.plugin, "way", Route.ORCHESTRATOR)
    for call in (desk.create, desk.delete):
        desk.plugin.way = Route.SOCKET
        outcome = await call()
        assert isinstance(outcome, Hold)
        assert outcome.why
    desk.on_note = lambda: setattr(desk.plugin, "healthy", False)
    assert isinstance(await desk.create(), Hold)
    assert desk.plugin.script.done == []


async def test_a_call_that_nobody_answered_keeps_the_other_way_off_all_that_it_touches() -> None:
    for verb, touched in (("create", ("restore-1", "s1", "v1")), ("delete", ("v9",))):
        desk = Desk()
        desk.plugin.script.faults = {0: "lost after"}
        assert isinstance(await getattr(desk, verb)(), Failed)
        for volume in touched:
            other = desk.other(volume, route=Route.ORCHESTRATOR)
            assert desk.tools.admission.hold(other, desk.clock.now()) is not None, volume
            assert desk.tools.admission.hold(desk.other(volume, route=Route.SOCKET), desk.clock.now()) is None
        assert isinstance(await getattr(desk, verb)(), Done)
        assert desk.tools.admission.hold(desk.other(*touched, route=Route.ORCHESTRATOR), desk.clock.now()) is None


async def test_a_copy_that_the_plugin_still_makes_pauses_its_own_repeat_and_no_cut_of_its_source() -> None:
    desk = Desk()
    aborted = Failed(Failure(FailureKind.UNSURE, "ABORTED", "pending"))
    passage = Passage(
        Key("c", "restore", "op"),
        desk.plugin.view("d"),
        Route.SOCKET,
        ("restore-1", "s1", "v1"),
        300.0,
        ("restore-1",),
    )
    with desk.tools.admission.inside(passage, desk.clock.now) as told:
        told(aborted)
    again = await desk.create()
    assert isinstance(again, Hold)
    assert again.reason == "ABORTED"
    assert desk.tools.admission.hold(desk.other("v1", route=Route.SOCKET), desk.clock.now()) is None
    desk.clock.instant += again.seconds
    assert isinstance(await desk.create(), Done)


def busy(world: World, *volumes: str, route: Route) -> Passage:
    """Somebody else's call on these volumes."""
    return Passage(Key("c", "snapshot", "other"), world.plugin.view("d"), route, volumes, 120.0)


@pytest.mark.parametrize("what", ["route", "place"])
def test_a_revert_that_has_to_wait_has_noted_nothing_and_called_nothing(what: str) -> None:
    asyncio.run(_waits(what))


async def _waits(what: str) -> None:
    world = World()
    await world.ask()
    tools = work.Tools(plugins=world.plugin, clock=world.clock, writer="w")
    shell = await world.shell(tools)
    world.plugin.concurrency = 1 if what == "place" else 32
    volume, route = ("elsewhere", Route.SOCKET) if what == "place" else ("handle-of-snap-data", Route.ORCHESTRATOR)
    with tools.admission.inside(busy(world, volume, route=route), world.clock.now) as told:
        for _ in range(5):
            seconds = await shell.turn(OPERATION)
            assert seconds is not None
            await world.clock.sleep(seconds)
        assert not [one for one in world.script.done if "volume" in one]
        assert '"unsure": true' not in world.row.result["journal"]
        said = [step.name for step in world.row.steps if step.name.startswith("waiting: a call on volume")]
        assert bool(said) is (what == "route")
        told(Done(None))
    for _ in range(50):
        seconds = await shell.turn(OPERATION)
        if seconds is None:
            break
        await world.clock.sleep(seconds)
    for _ in range(8):
        world.site.tick()
    world.check()
    assert world.row.state is OperationState.DONE
