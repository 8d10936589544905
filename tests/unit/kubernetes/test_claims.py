"""The hold on a claim: taken once by many, let go a little after the last of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.claims import ClaimHolds
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer
from bridge.model.failure import UnavailableError
from tests.unit.kubernetes import objects as o

PLACE = ("apps", "data")


class Writes:
    """A server of one claim. `down` makes it fail so many times."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._version = 100
        self.holds: list[bool] = []
        self.free = asyncio.Event()
        self.down = 0

    async def merge_patch(
        self, _resource: names.Resource, _namespace: str, _name: str, body: dict[str, Any], *, own: bool
    ) -> None:
        if self.down:
            self.down -= 1
            raise UnavailableError("away")
        self._version += 1
        finalizers = body["metadata"]["finalizers"]
        self.holds.append(names.CLAIM_FINALIZER in finalizers)
        self.free.clear() if self.holds[-1] else self.free.set()
        changes = {"metadata__finalizers": finalizers, "metadata__resourceVersion": str(self._version)}
        self._world.claims.fold(o.claim(**changes), own=own)


@contextlib.asynccontextmanager
async def holds() -> AsyncIterator[tuple[ClaimHolds, Writes]]:
    world = World()
    world.claims.fold(o.claim(metadata__resourceVersion="1", metadata__finalizers=[]))
    writes = Writes(world)
    made = ClaimHolds(world, cast("Writer", writes))
    made.linger_seconds = 0.05
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    try:
        yield made, writes
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def until_free(writes: Writes) -> None:
    async with asyncio.timeout(30):
        await writes.free.wait()


async def test_one_after_the_other_finds_the_hold_there() -> None:
    async with holds() as (made, writes):
        for uid in ("a", "b", "c"):
            await made.take(*PLACE)
            await made.drop_later(*PLACE, uid)
        assert writes.holds == [True]
        await until_free(writes)
        assert writes.holds == [True, False]


async def test_what_goes_for_good_lets_go_at_once() -> None:
    async with holds() as (made, writes):
        await made.take(*PLACE)
        await made.drop(*PLACE, "a")
        assert writes.holds == [True, False]


async def test_a_server_that_was_away_is_asked_again() -> None:
    async with holds() as (made, writes):
        await made.take(*PLACE)
        writes.down = 2
        await made.drop_later(*PLACE, "a")
        await until_free(writes)
        assert writes.down == 0


async def test_without_its_loop_nothing_lingers() -> None:
    world = World()
    world.claims.fold(o.claim(metadata__resourceVersion="1", metadata__finalizers=[]))
    writes = Writes(world)
    made = ClaimHolds(world, cast("Writer", writes))
    await made.take(*PLACE)
    await made.drop_later(*PLACE, "a")
    assert writes.holds == [True, False]


async def test_another_snapshot_that_needs_it_keeps_it() -> None:
    async with holds() as (made, writes):
        await made.take(*PLACE)
        made._world.classes.fold(o.klass())
        made._world.volumes.fold(o.volume())
        made._world.snapshots.fold(o.snapshot(metadata__uid="other", metadata__resourceVersion="5"))
        await made.drop_later(*PLACE, "a")
        await asyncio.sleep(0.15)
        assert writes.holds == [True]


async def test_at_the_stop_what_lingers_is_let_go_at_once() -> None:
    async with holds() as (made, writes):
        made.linger_seconds = 60.0
        await made.take(*PLACE)
        await made.drop_later(*PLACE, "a")
    assert writes.holds == [True, False]
