"""Commands in tasks, and freezes around a cut, on the fake and a real agent. An exec-driver task on both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.nomad import exec as tasks
from adapters.nomad.exec import ExecError
from adapters.nomad.freezing import Means
from adapters.nomad.quiesce import Held, Quiescer
from bridge.ledger.opening import open_ledger
from bridge.model.failure import FailureKind
from bridge.model.keys import snapshot_key
from bridge.model.snapshot import DeletionPolicy, SnapshotRequest, VolumeSource, Wish
from bridge.ports.guard import CutEnd
from bridge.ports.ledger import Entry
from tests.contract.nomad.world import World, consumer_job, eventually
from tests.integration.nomad.doubles import running

FREEZE = 'touch "$NOMAD_ALLOC_DIR/frozen"'
THAW = 'rm -f "$NOMAD_ALLOC_DIR/frozen"'


class WallClock:
    """Real time."""

    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Frozen:
    """A running job with quiesce settings, its volume, and a guard with a ledger."""

    def __init__(self, world: World, allocation: dict[str, Any], request: SnapshotRequest, means: Means) -> None:
        self.world = world
        self.allocation = str(allocation["ID"])
        self.request = request
        self.means = means
        self.shared = world.alloc_dir / self.allocation / "alloc"

    async def is_frozen(self) -> bool:
        return await asyncio.to_thread((self.shared / "frozen").exists)

    async def is_thawed(self) -> bool:
        return not await self.is_frozen()

    async def is_disarmed(self) -> bool:
        return not await asyncio.to_thread(lambda: list(self.shared.glob(".snapbridge-freeze-*")))

    async def run(self, *argv: str, seconds: float = 30.0) -> tasks.Ran:
        return await tasks.run(self.world.client, "default", self.allocation, "main", argv, timeout_seconds=seconds)


@pytest.fixture
async def one(place_of: World, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Frozen]:
    seconds = "8" if "leaves_a_switch" in request.node.name else "120"  # only that one waits for its end
    name, job = place_of.fresh("v"), place_of.fresh("held")
    handle = await place_of.volume(name)
    meta = {"snapbridge_quiesce": FREEZE, "snapbridge_thaw": THAW, "snapbridge_quiesce_seconds": seconds}
    await place_of.run_job(consumer_job(job, name, Meta=meta))
    allocation = await place_of.allocation(job)
    asked = SnapshotRequest(
        key=snapshot_key("east", "u"), wish=Wish.PRESENT, namespace="default", name="s", driver="d",
        source=VolumeSource(handle), snapshot_name="snapshot-u", policy=DeletionPolicy.DELETE, volume=name,
    )  # fmt: skip
    clock = WallClock()
    async with open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}", clock) as ledger:
        await ledger.add(Entry(asked.key, "default", "s", name, "d", asked.source, "snapshot-u", asked.policy))
        yield Frozen(place_of, allocation, asked, Means("east", place_of.client, ledger, clock))
    await place_of.purge(job)


async def test_exec_tells_exit_codes_and_output(one: Frozen) -> None:
    assert await one.run("/bin/sh", "-c", "echo out") == tasks.Ran(0, "out")
    assert await one.run("/bin/sh", "-c", "echo err >&2; exit 3") == tasks.Ran(3, "err")
    assert (await one.run("/bin/sh", "-c", "kill -9 $$")).exit_code == 137
    assert (await one.run("/bin/sh", "-c", "/no/such/program")).exit_code == 127
    with pytest.raises(ExecError) as caught:
        await tasks.run(one.world.client, "default", one.allocation, "nope", ["/bin/sh"], timeout_seconds=30)
    assert (caught.value.failure.kind, caught.value.failure.code) == (FailureKind.REFUSED, "NOT_FOUND")


async def test_a_command_goes_on_when_nobody_listens(one: Frozen) -> None:
    """nomad-verified.md A4: why a freeze that timed out has to be thawed all the same."""
    script = 'cd "$NOMAD_ALLOC_DIR"; until [ -e heard ]; do sleep 0.1; done; touch late'
    with pytest.raises(ExecError) as caught:
        await one.run("/bin/sh", "-c", script, seconds=5.0)
    assert caught.value.failure.kind is FailureKind.UNSURE
    assert not await asyncio.to_thread((one.shared / "late").exists)
    await asyncio.to_thread((one.shared / "heard").touch)

    async def late() -> bool:
        return await asyncio.to_thread((one.shared / "late").exists)

    await eventually(late, "the command has gone on", 30)


async def test_frozen_for_the_cut_and_thawed_after_it(one: Frozen) -> None:
    guard = Quiescer(one.means)
    hold = await guard.before_cut((one.request,))
    assert isinstance(hold, Held), hold
    assert await one.is_frozen()
    await guard.after_cut(hold, CutEnd(made=True, sure=True))
    assert await one.is_thawed()
    assert await one.is_disarmed()
    entry = await one.means.book.entry(one.request.key)
    assert entry is not None
    assert entry.labels == {"consistency": "quiesced"}


async def test_a_process_that_dies_leaves_a_switch_and_a_note(one: Frozen) -> None:
    for helper in ("the switch", "the next process"):
        crashed = Quiescer(one.means)
        hold = await crashed.before_cut((one.request,))
        assert isinstance(hold, Held), hold
        assert hold.watch is not None
        hold.watch.cancel()  # as a process ends: nothing of it runs any more
        assert await one.is_frozen()
        if helper == "the switch":
            await eventually(one.is_thawed, "the switch in the task thaws", 30)
        async with running(Quiescer(one.means).run()):
            await eventually(one.is_thawed, "thawed", 30)

            async def settled() -> bool:
                return await one.is_disarmed() and not await one.means.book.operations(running=True)

            await eventually(settled, "nothing is owed", 30)
