"""Restores under faults and crashes: one volume or none, never two, and the operation ends."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools

import pytest

from bridge.decide import restore
from bridge.model.failure import Failure, FailureKind
from bridge.model.operation import Operation, OperationState
from bridge.model.outcome import Done, Failed
from bridge.model.plugin import Capability, PluginView
from bridge.model.snapshot import HandleSource, VolumeSource
from bridge.model.volume import NewVolume
from bridge.service.restores import dump, journal_of
from tests.support import memory

READY = HandleSource("s1")
PLUGIN = PluginView("d", True, True, frozenset({Capability.CREATE_DELETE_VOLUME}))
STRIKES = ("ok", "lost before", "lost after", "refused", "crash before", "crash after")


class World:
    """A journal, a plugin and a register of names; faults strike each effect by number."""

    def __init__(self, faults: dict[int, str], *, taken: str = "") -> None:
        self.script = memory.Script(faults)
        self.clock = memory.VirtualClock()
        self.plugin = memory.MemoryPlugin(self.script, self.clock)
        self.journal = restore.Journal()
        self.names: dict[str, str] = {"copy": taken} if taken else {}
        self.end: restore.Succeed | restore.Fail | None = None
        self.abandoned = False

    async def run(self, turns: int = 100) -> None:
        for _ in range(turns):
            seen = restore.Observed(
                self.journal, READY, PLUGIN, self.names.get("copy", ""), "restore-1", abandoned=self.abandoned
            )
            step = restore.decide(seen, self.clock.now())
            if isinstance(step, restore.Succeed | restore.Fail):
                self.end = step
                return
            if isinstance(step, restore.Later):
                await self.clock.sleep(step.seconds)
                continue
            try:
                self.journal = await self._perform(step)
            except memory.Crash:
                continue

    async def _perform(self, step: restore.Step) -> restore.Journal:
        before, now = self.journal, self.clock.now()
        if isinstance(step, restore.CreateVolume):
            # The service writes "unsure" before the call leaves.
            self.journal = dataclasses.replace(before, unsure=True)
            made = await self.plugin.create_volume(new=NewVolume("restore-1", "d"), secrets={})
            return _fold(before, step, made, now)
        if isinstance(step, restore.DeleteVolume):
            gone = await self.plugin.delete_volume(handle=step.handle, secrets={})
            return _fold(before, step, gone, now)
        assert isinstance(step, restore.Register)
        fault = self.script.next("register")
        if fault == "crash before":
            raise memory.Crash
        if fault in ("refused", "lost before"):
            kind = FailureKind.REFUSED if fault == "refused" else FailureKind.UNSURE
            return restore.fold_failure(before, step, Failure(kind, "CONFLICT", "no"), now)
        self.names["copy"] = step.handle
        if fault == "crash after":
            raise memory.Crash
        return restore.fold_done(before, step)


def _fold(journal: restore.Journal, step: restore.Step, outcome: object, now: float) -> restore.Journal:
    if isinstance(outcome, Failed):
        return restore.fold_failure(journal, step, outcome.failure, now)
    assert isinstance(outcome, Done)
    return restore.fold_done(journal, step, getattr(outcome.value, "handle", ""))


def check(world: World) -> None:
    assert world.end is not None, "it did not end"
    volumes = set(world.plugin.volumes.values())
    assert len(volumes) <= 1
    if isinstance(world.end, restore.Succeed):
        assert volumes == {world.names["copy"]}
    else:
        assert not volumes, "a failed restore left a volume"


@pytest.mark.parametrize("length", [1, 2, 3])
def test_every_short_sequence_of_faults(length: int) -> None:
    for sequence in itertools.product(STRIKES, repeat=length):
        world = World(dict(enumerate(sequence)))
        asyncio.run(world.run())
        if world.end is None:
            # An unsure create that is refused ever after is not given up: a volume may be there.
            assert world.journal.unsure
            continue
        check(world)


def test_a_name_that_is_taken_meanwhile_undoes_the_volume() -> None:
    world = World({})
    world.journal = restore.Journal(handle="vol-1", unsure=True)
    world.plugin.volumes["restore-1"] = "vol-1"
    world.names["copy"] = "somebody-else"
    asyncio.run(world.run())
    assert isinstance(world.end, restore.Fail)
    assert world.plugin.volumes == {}
    assert world.names["copy"] == "somebody-else"


def test_a_journal_survives_its_own_writing() -> None:
    failure = Failure(FailureKind.UNSURE, "INTERNAL", "lost", "try")
    journal = restore.Journal("h", True, True, 3, 7.5, failure, failure, True, True, {"pool": "a"})
    row = Operation("o", "restore", "c", "n", "t", OperationState.RUNNING, 0, 0, result={"journal": dump(journal)})
    assert journal_of(row) == journal


def test_every_short_sequence_of_faults_ends_once_it_is_abandoned() -> None:
    """After any beginning and any ending: nothing is left, or it is named, or it was handed over."""
    for sequence in itertools.product(STRIKES, repeat=3):
        for later in ("ok", "refused"):
            world = World(dict(enumerate(sequence)))
            asyncio.run(world.run(turns=4))
            world.abandoned = True
            world.script.faults = dict.fromkeys(range(len(world.script.done), 1000), later)
            asyncio.run(world.run())
            assert world.end is not None, (sequence, later)
            left = set(world.plugin.volumes.values())
            if isinstance(world.end, restore.Succeed):
                assert left == {world.names["copy"]}
            elif left:
                assert world.end.failure.leftover in (*left, *world.plugin.volumes), (sequence, later)
                assert world.end.failure.code == restore.ABANDONED
            assert world.names.get("copy", "") in ("", *left), "nobody's registered volume was deleted"


def test_a_volume_that_was_handed_over_is_not_deleted_whatever_the_journal_says() -> None:
    failure = Failure(FailureKind.REFUSED, "CONFLICT", "no")
    for journal, abandoned in (
        (restore.Journal(handle="vol-1", unsure=True, doomed=failure), False),
        (restore.Journal(handle="vol-1", unsure=True), True),
    ):
        seen = restore.Observed(journal, READY, PLUGIN, "vol-1", "restore-1", abandoned=abandoned)
        assert restore.decide(seen, 0.0) == restore.Succeed()


def test_what_may_be_there_is_never_given_up_for_a_plugin_that_cannot_do_it_just_now() -> None:
    unable = PluginView("d", True, True, frozenset())
    for journal in (
        restore.Journal(unsure=True),
        restore.Journal(handle="vol-1", doomed=Failure(FailureKind.REFUSED, "X", "no")),
    ):
        step = restore.decide(restore.Observed(journal, READY, unable), 0.0)
        assert isinstance(step, restore.Later), step
    fresh = restore.decide(restore.Observed(restore.Journal(), READY, unable), 0.0)
    assert isinstance(fresh, restore.Fail)
    assert fresh.failure.code == "UNSUPPORTED"


def test_a_driver_that_cannot_clone_is_not_asked_to() -> None:
    step = restore.decide(restore.Observed(restore.Journal(), VolumeSource("v1"), PLUGIN), 0.0)
    assert isinstance(step, restore.Fail)
    assert "CLONE_VOLUME" in step.failure.message
    able = PluginView("d", True, True, PLUGIN.capabilities | {Capability.CLONE_VOLUME})
    step = restore.decide(restore.Observed(restore.Journal(), VolumeSource("v1"), able), 0.0)
    assert step == restore.CreateVolume(VolumeSource("v1"))
