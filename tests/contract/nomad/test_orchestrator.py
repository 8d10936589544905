"""The Nomad adapter under the contract of all orchestrators, on the fake agent and on a real one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from adapters.nomad.adapter import build
from bridge.model.volume import Volume
from bridge.ports.orchestrator import Orchestrator
from tests.contract.nomad.world import DRIVER, World, consumer_job
from tests.contract.orchestrator import suite
from tests.integration.nomad.doubles import MemorySecrets


class NomadPlace(suite.Place):
    """An agent with a free volume and, where asked for, one that a job uses."""

    def __init__(self, world: World, known: Volume, used: Volume | None) -> None:
        self.world = world
        self._known = known
        self._used = used
        self.orchestrator: Orchestrator = build("east", world.settings(), secrets=MemorySecrets())
        self._names: dict[str, str] = {}

    @property
    def known(self) -> Volume:
        return self._known

    @property
    def used(self) -> Volume | None:
        return self._used

    async def make(self, name: str) -> Volume:
        return Volume("east", "default", name, DRIVER, await self.world.loose_volume(), 16 << 20)

    @contextlib.asynccontextmanager
    async def again(self) -> AsyncIterator[Orchestrator]:
        yield build("east", self.world.settings(), secrets=MemorySecrets())

    def name(self, word: str) -> str:
        """One real agent serves many tests."""
        if word not in self._names:
            self._names[word] = self.world.fresh(word)
        return self._names[word]


@pytest.fixture
async def place(place_of: World, request: pytest.FixtureRequest) -> AsyncIterator[NomadPlace]:
    name = place_of.fresh("data")
    await place_of.volume(name)
    reader = build("east", place_of.settings(), secrets=MemorySecrets())
    used = None
    job = ""
    try:
        if "in_use" in request.node.name:
            busy = place_of.fresh("busy")
            job = place_of.fresh("consumer")
            await place_of.volume(busy)
            await place_of.run_job(consumer_job(job, busy))
            await place_of.allocation(job)
            used = await reader.volumes.find("default", busy)
        yield NomadPlace(place_of, await reader.volumes.find("default", name), used)
    finally:
        if job:
            await place_of.purge(job)
        await reader.close()


class TestNomad(suite.OrchestratorContract):
    """The shared contract."""
