"""The driver half dies before or after each of its writes and each of its calls; the next one finishes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from adapters.kubernetes import names
from tests.integration.kubernetes import half_stand
from tests.integration.kubernetes.half_stand import Plugin, Stand, new_driver
from tests.support.bed.controlplane import ControlPlane
from tests.support.memory import Crash

CREATE_WRITES = 3
DELETE_WRITES = 2
DYING_SECONDS = 60
"""Nobody waits for all of it: the death ends the wait."""
Step = Callable[[Stand], Awaitable[None]]


async def life(plane: ControlPlane, plugin: Plugin, step: Step, *, at: int = 10**6, after: bool = False) -> bool:
    """Run until the step is done or the half dies; whether it died."""
    try:
        async with half_stand.running(plane, plugin, client=await half_stand.mortal(plane, at, after=after)) as stand:
            await step(stand)
    except BaseExceptionGroup as group:
        if group.subgroup(Crash) is None:
            raise
        return True
    return False


def wants(name: str) -> Step:
    async def ask(stand: Stand) -> None:
        await stand.klass(name, type="fast")
        await stand.content(name, klass=name)
        await asyncio.sleep(DYING_SECONDS)

    return ask


def is_whole(name: str) -> Step:
    """The next one: one snapshot, ready; then it goes, and nothing is left."""

    async def check(stand: Stand) -> None:
        made = await stand.until_ready(name)
        assert stand.plugin.handles() == {made["status"]["snapshotHandle"]} == {"snap-1"}
        assert names.BEING_CREATED not in half_stand.annotations(made)
        assert [given[1] for given in stand.plugin.given] == [{"type": "fast"}] * len(stand.plugin.given)
        await stand.let_go(name)
        await is_empty(name)(stand)

    return check


def is_empty(name: str) -> Step:
    async def check(stand: Stand) -> None:
        await stand.until_gone(name)
        assert stand.plugin.handles() == set()

    return check


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(CREATE_WRITES))
async def test_death_at_a_write_of_the_create(
    control_plane: ControlPlane, namespace: str, at: int, after: bool
) -> None:
    plugin = Plugin(new_driver())
    assert await life(control_plane, plugin, wants(namespace), at=at, after=after)
    assert not await life(control_plane, plugin, is_whole(namespace))


@pytest.mark.parametrize("fault", ["crash before", "crash after"])
async def test_death_in_the_create_itself(control_plane: ControlPlane, namespace: str, fault: str) -> None:
    plugin = Plugin(new_driver(), faults={0: fault})
    assert await life(control_plane, plugin, wants(namespace))
    assert not await life(control_plane, plugin, is_whole(namespace))


@pytest.mark.parametrize("fault", ["crash before", "crash after"])
async def test_death_in_the_create_and_the_owner_changes_his_mind_meanwhile(
    control_plane: ControlPlane, namespace: str, fault: str
) -> None:
    """The class goes too: the note alone tells how the create is repeated, so that what it made can go."""
    plugin = Plugin(new_driver(), faults={0: fault})
    assert await life(control_plane, plugin, wants(namespace))

    async def withdrawn(stand: Stand) -> None:
        await stand.other.delete(names.CLASSES, "", namespace)
        await stand.let_go(namespace)
        await is_empty(namespace)(stand)
        assert len(stand.plugin.given) > 1
        assert all(given[1] == {"type": "fast"} for given in stand.plugin.given)

    assert not await life(control_plane, plugin, withdrawn)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(DELETE_WRITES))
async def test_death_at_a_write_of_the_delete(
    control_plane: ControlPlane, namespace: str, at: int, after: bool
) -> None:
    plugin = Plugin(new_driver())
    assert not await life(control_plane, plugin, made(namespace))
    assert await life(control_plane, plugin, gives_up(namespace), at=at, after=after)
    assert not await life(control_plane, plugin, is_empty(namespace))


@pytest.mark.parametrize("fault", ["crash before", "crash after"])
async def test_death_in_the_delete_itself(control_plane: ControlPlane, namespace: str, fault: str) -> None:
    plugin = Plugin(new_driver(), faults={1: fault})
    assert not await life(control_plane, plugin, made(namespace))
    assert await life(control_plane, plugin, gives_up(namespace))
    assert not await life(control_plane, plugin, is_empty(namespace))


def made(name: str) -> Step:
    async def make(stand: Stand) -> None:
        await stand.content(name)
        await stand.until_ready(name)

    return make


def gives_up(name: str) -> Step:
    async def give_up(stand: Stand) -> None:
        await stand.let_go(name)
        await asyncio.sleep(DYING_SECONDS)

    return give_up
