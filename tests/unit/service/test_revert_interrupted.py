"""Reverts under faults and crashes at every effect: the workload runs at the end, on one volume or the other.

Nothing that was there before is deleted, nothing that we made is left behind after a failure.
"""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.model.operation import OperationState
from tests.support.reverting import STRIKES, World

EXAMPLES = int(os.environ.get("SNAPBRIDGE_EXAMPLES", "150"))
CASES = [("data",), ("data[0]", "data[1]")]


def lived(faults: dict[int, str], volumes: tuple[str, ...] = ("data",), **more: object) -> World:
    world = World(faults, volumes=volumes)
    for name, value in more.items():
        setattr(world if name == "version" else world.site, name, value)
    world.run()
    return world


def effects(volumes: tuple[str, ...]) -> int:
    return len(lived({}, volumes).script.done)


def test_the_good_case_is_these_steps() -> None:
    world = lived({})
    world.check()
    assert world.script.done == [
        "note",
        "create volume",
        "register data-before-0f2c4e6a old-data",
        "pause",
        "forget data",
        "register data vol-1",
        "resume",
    ]
    assert world.site.served == ["vol-1"]
    assert world.row.result["kept"] == "data-before-0f2c4e6a"


@pytest.mark.parametrize("volumes", CASES)
@pytest.mark.parametrize("strike", [*STRIKES[1:], "late"])
def test_one_fault_at_any_effect(volumes: tuple[str, ...], strike: str) -> None:
    for at in range(effects(volumes)):
        world = lived({at: strike}, volumes)
        world.check()
        if strike.startswith("crash"):
            assert world.crashes == 1
            assert world.row.state is OperationState.DONE, "a crash alone never costs the revert"


@pytest.mark.parametrize("strike", ["crash before", "crash after"])
def test_a_crash_at_every_effect_of_one_run(strike: str) -> None:
    world = lived(dict.fromkeys(range(40), strike))
    assert world.crashes >= 1
    if world.row.state is not OperationState.RUNNING:
        world.check()


def test_two_faults_anywhere() -> None:
    count = effects(("data",)) + 3
    for first, second in itertools.combinations(range(count), 2):
        for one, other in itertools.product(("lost after", "refused", "crash after", "late"), repeat=2):
            lived({first: one, second: other}).check()


@pytest.mark.parametrize("strike", STRIKES[1:])
def test_a_fault_while_it_is_taken_back(strike: str) -> None:
    """The workload never comes up on the new volume, so everything goes back; and then something strikes."""
    count = len(lived({}, comes_up=False).script.done)
    for at in range(7, count):
        world = lived({at: strike}, comes_up=False)
        world.site.comes_up = True
        world.site.tick()
        world.check()
        assert world.row.failure is not None
        assert world.row.failure.code == "NOT_STARTED"


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(st.integers(0, 30), st.sampled_from((*STRIKES, "late")), max_size=8),
    st.sampled_from(CASES),
    st.booleans(),
    st.sampled_from(("", "v7")),
)
def test_any_sequence_of_faults(
    faults: dict[int, str], volumes: tuple[str, ...], comes_up: bool, version: str
) -> None:
    world = lived(faults, volumes, comes_up=comes_up, version=version)
    world.site.comes_up = True
    world.check()
    if version and world.row.state is OperationState.DONE:
        assert world.site.version == version


@pytest.mark.parametrize("strike", ["ok", "lost after", "crash after"])
def test_a_start_of_our_own_is_known_for_one(strike: str) -> None:
    at = lived({}).script.done.index("resume")
    world = lived({at: strike}, version="v7")
    world.check()
    assert world.row.steps[-1].note == ""


def test_who_starts_it_in_another_version_meanwhile_is_told_of() -> None:
    """The data is what was asked for, the version is not: nobody may take that for an undo."""
    world = World()
    world.version = "v7"
    forget = world.site.forget

    async def started_meanwhile(namespace: str, name: str) -> object:
        done = await forget(namespace, name)
        world.site.wanted = True
        return done

    world.site.forget = started_meanwhile  # type: ignore[method-assign,assignment]
    world.run()
    assert world.site.version == "v0"
    assert world.row.state is OperationState.DONE
    assert "was started by somebody else" in world.row.steps[-1].note
