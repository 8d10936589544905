"""The worlds: always the fake agent, and a real one where there is a binary. Neither is ever skipped silently."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.nomad.world import World, world
from tests.support import localdisk
from tests.support.bed import paths
from tests.support.nomad import real
from tests.support.nomad.agent import FakeNomad

KINDS = ["fake", "real"] if real.binary() else ["fake"]


@pytest.fixture(scope="session")
def real_agent() -> Iterator[tuple[real.RealAgent, Path]]:
    """One real agent for the run; tests use volumes and jobs of their own."""
    store = paths.fresh("store")
    agent = real.start()
    yield agent, store
    real.stop(agent)
    localdisk.clear(store)


@pytest.fixture(params=KINDS)
async def place_of(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """The agent that this test runs on."""
    if request.param == "real":
        agent, store = request.getfixturevalue("real_agent")
        async with world(
            "real", agent.url, state_dir=agent.state_dir, alloc_dir=agent.alloc_dir, store=store
        ) as found:
            yield found
        return
    store = paths.fresh("store")
    async with FakeNomad() as fake:
        state, alloc = fake.data_dir / "client", fake.data_dir / "alloc"
        async with world("fake", fake.url, state_dir=str(state), alloc_dir=alloc, store=store) as found:
            yield found
