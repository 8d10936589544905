"""Acknowledged reverts: an old volume is deleted only when nobody anywhere can use it, and else keeps its name."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

from bridge.model.failure import NotFoundError
from bridge.model.keys import Key
from bridge.model.operation import Operation, OperationState
from bridge.model.outcome import Done
from bridge.model.plugin import Route
from bridge.model.revert import Swap
from bridge.model.volume import Volume
from bridge.ports.identity import Caller
from bridge.service import lane, revert_journal, work
from bridge.service.acknowledgements import Acknowledgements
from bridge.service.admission import Passage
from bridge.service.operations import REVERT, Operations
from tests.support import memory
from tests.support.reverting import MemoryBook

KEPT = Volume("c", "default", "data-before-1", "d", "old", 100, context={"share": "old"})
NEW = Volume("c", "default", "data", "d", "new", 100, context={"share": "new"})


class Book(MemoryBook):
    """With an audit that nobody reads."""

    async def audit(self, key: str, verb: str, who: str, detail: Mapping[str, str]) -> None:
        return None


class Names:
    """One cluster's registrations."""

    def __init__(self, *volumes: Volume) -> None:
        self.volumes = self
        self.known = {(one.namespace, one.name): one for one in volumes}
        self.listed_driver: str | None = None
        """What a list says instead of the driver, where the orchestrator does not know it now."""

    async def list(self, namespace: str = "") -> Sequence[Volume]:
        driver = self.listed_driver
        return [one if driver is None else dataclasses.replace(one, driver=driver) for one in self.known.values()]

    async def find(self, namespace: str, name: str) -> Volume:
        try:
            return self.known[namespace, name]
        except KeyError:
            raise NotFoundError(name) from None

    async def forget(self, namespace: str, name: str) -> Volume | None:
        return self.known.pop((namespace, name), None)

    async def register(self, volume: Volume, like: Volume | None) -> None:
        self.known[volume.namespace, volume.name] = volume


class World:
    """One revert that is done, and the backend's two volumes."""

    def __init__(self, faults: dict[int, str] | None = None) -> None:
        self.here, self.there = Names(KEPT, NEW), Names()
        self.plugin = memory.MemoryPlugin(memory.Script(faults or {}), memory.VirtualClock())
        self.plugin.volumes = {"a": "old", "b": "new"}
        self.tools = work.Tools(plugins=self.plugin, clock=self.plugin.clock, writer="w")

    def acknowledge(self) -> Operation:
        return asyncio.run(self.acknowledged())

    async def acknowledged(self, meanwhile: contextlib.ExitStack | None = None) -> Operation:
        """`meanwhile` is closed once the acknowledgement says that it waits."""
        book, clock = Book(), self.plugin.clock
        operations = Operations(cast(Any, book), clock)
        nothing = cast(Any, None)
        lanes = {
            name: lane.Lane(cast(Any, names), nothing, nothing, memory.NoSecrets())
            for name, names in (("c", self.here), ("other", self.there))
        }
        swap = Swap("data", "d", "old", KEPT.name, "snap", new_handle="new", kept=True)
        row = Operation(
            "r-1", REVERT, "c", "default", "data", OperationState.DONE, 1.0, 1.0,
            result={"swaps": revert_journal.dump_swaps([swap]), "kept": KEPT.name},
        )  # fmt: skip
        revert = await operations.start(row)
        shell = Acknowledgements(lanes, cast(Any, book), operations, self.tools)
        asked = await shell.ask(Caller("admin"), revert, "a-1", delete=True)
        while (seconds := await shell.turn(asked.id)) is not None:
            waits = [step.name for step in book.rows[asked.id].steps if step.name.startswith("waiting: ")]
            if meanwhile is not None and waits:
                assert "may still be under way by orchestrator" in waits[0]
                assert "old" in self.plugin.volumes.values()
                meanwhile.close()
                meanwhile = None
            await clock.sleep(seconds)
        return book.rows[asked.id]


def test_a_call_on_the_old_volume_that_left_the_other_way_is_waited_for() -> None:
    world = World()
    other = Passage(Key("c", "snapshot", "s"), world.plugin.view("d"), Route.ORCHESTRATOR, ("old",), 120.0)
    with contextlib.ExitStack() as meanwhile:
        told = meanwhile.enter_context(world.tools.admission.inside(other, world.plugin.clock.now))
        told(Done(None))
        assert asyncio.run(world.acknowledged(meanwhile)).state is OperationState.DONE
    assert world.plugin.volumes == {"b": "new"}


def test_the_old_volume_goes_with_its_name() -> None:
    world = World()
    assert world.acknowledge().state is OperationState.DONE
    assert world.plugin.volumes == {"b": "new"}
    assert [one.name for one in world.here.known.values()] == ["data"]


def test_a_volume_that_another_cluster_has_is_not_deleted() -> None:
    world = World()
    world.there.known["default", "copy"] = dataclasses.replace(KEPT, cluster="other", name="copy")
    done = world.acknowledge()
    assert done.state is OperationState.FAILED
    assert done.failure is not None
    assert "default/copy" in done.failure.message
    assert "old" in world.plugin.volumes.values()


def test_a_volume_in_use_is_not_deleted_while_its_driver_is_not_known() -> None:
    """Nomad tells no driver for the volumes of a plugin that it holds for unhealthy."""
    world = World()
    world.here.listed_driver = ""
    world.here.known["default", KEPT.name] = dataclasses.replace(KEPT, users=("an allocation",))
    done = world.acknowledge()
    assert done.state is OperationState.FAILED
    assert "old" in world.plugin.volumes.values()


def test_what_the_backend_keeps_gets_its_name_back_as_it_was() -> None:
    world = World({0: "refused"})
    assert world.acknowledge().state is OperationState.FAILED
    assert world.here.known["default", KEPT.name] == KEPT
