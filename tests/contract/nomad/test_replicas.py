"""Two replicas of the service on one ledger: one leads, the other says who; kill -9 and a stop of the leader.

The processes are real; the agent is the fake one and, where there is a binary, a real one. How long a take-over takes
is printed, not asserted: on a real agent twice the TTL, and the delay.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.nomad.conftest import KINDS
from tests.contract.nomad.world import World, eventually, world
from tests.support import serve
from tests.support.bed import paths
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.settings import Settings as FakeSettings

LONG = 90.0


@pytest.fixture(params=KINDS)
async def seat(request: pytest.FixtureRequest) -> AsyncIterator[tuple[World, FakeNomad | None]]:
    """A world, and the fake agent behind it where it is one. Its locks end after their TTL, not after twice that."""
    if request.param == "real":
        agent, store = request.getfixturevalue("real_agent")
        async with world(
            "real", agent.url, state_dir=agent.state_dir, alloc_dir=agent.alloc_dir, store=store
        ) as found:
            yield found, None
        return
    store = paths.fresh("store")
    async with FakeNomad(settings=FakeSettings(lock_time_scale=0.5)) as fake:
        state, alloc = fake.data_dir / "client", fake.data_dir / "alloc"
        async with world("fake", fake.url, state_dir=str(state), alloc_dir=alloc, store=store) as found:
            yield found, fake


def replica(place: World, data: Path, variable: str, service: dict[str, Any] | None = None) -> serve.Serve:
    """One replica, not started. Both have one ledger, and an API of their own."""
    cluster: dict[str, Any] = {
        "name": "east", "kind": "nomad", "address": place.url, "plugin_seconds": 0.2, "route": "api",
        "leadership": {"ttl_seconds": 10, "delay_seconds": 1, "variable": variable},
    }  # fmt: skip
    made = serve.service(clusters=[cluster], plugins=[], probe="/livez", service={"data_dir": str(data)})
    text = made.config.read_text()
    made.config.write_text(text.replace("ttl_seconds: 10", f"ttl_seconds: 10\n    address: {made.url}"))
    return made


@asynccontextmanager
async def pair(place: World, tmp_path: Path) -> AsyncIterator[tuple[serve.Serve, serve.Serve]]:
    """The first leads and the second stands by."""
    variable = place.fresh("snapbridge/leader")
    first, second = (replica(place, tmp_path / "data", variable) for _ in range(2))
    try:
        await asyncio.to_thread(first.start)
        await eventually(lambda: leads(first), "the first leads", LONG)
        await asyncio.to_thread(second.start)
        yield first, second
    finally:
        for one in (second, first):
            await asyncio.to_thread(one.process.stop)


async def leads(one: serve.Serve) -> bool:
    try:
        status, _ = await asyncio.to_thread(one.request, "GET", "/v1/snapshots")
    except OSError:
        return False  # between two doors
    return status == 200


async def sent_on(one: serve.Serve, leader: serve.Serve) -> dict[str, Any]:
    """The refusal of a replica that stands by, once it knows who leads. It may just be between two doors."""
    told: dict[str, Any] = {}

    async def knows() -> bool:
        try:
            _, body = await asyncio.to_thread(one.request, "POST", "/v1/snapshots", {})
        except OSError:
            return False
        told.clear()
        told.update(body)
        return bool((body["code"], body["hint"]) == ("NOT_LEADER", f"ask {leader.url}"))

    await eventually(knows, f"it sends callers on to {leader.url}", LONG)
    return told


async def ask(one: serve.Serve, volume: str, name: str) -> str:
    body = {"cluster": "east", "namespace": "default", "volume": volume, "name": name}
    status, answer = await asyncio.to_thread(one.request, "POST", "/v1/snapshots", body)
    assert status == 202, answer
    return str(answer["snapshot"]["uid"])


async def ready(one: serve.Serve, volume: str) -> list[str]:
    found = await asyncio.to_thread(one.cli_json, "snapshot", "list")
    return sorted(row["name"] for row in found["items"] if row["volume"] == volume and row["ready"])


def on_the_backend(place: World) -> int:
    return len(list((place.store / "snapshots").iterdir()))


@pytest.mark.timeout(240)
async def test_the_standby_takes_over_from_a_leader_that_was_killed_mid_create(
    seat: tuple[World, FakeNomad | None], tmp_path: Path
) -> None:
    place, fake = seat
    volume = place.fresh("v")
    await place.volume(volume)
    before = on_the_backend(place)
    async with pair(place, tmp_path) as (first, second):
        told = await sent_on(second, first)
        assert told["retryable"] is True
        assert "leads" in told["detail"]
        if fake is not None:
            fake.delay("PUT", "/v1/volumes/snapshot", 1.0)
        for name in ("a", "b", "c"):
            await ask(first, volume, name)
        await asyncio.to_thread(first.kill)
        if fake is not None:
            fake.clear_faults()
        began = time.monotonic()
        await eventually(lambda: leads(second), "the second leads", LONG)
        print(f"{place.kind}: led {time.monotonic() - began:.1f} s after the kill")

        async def all_there() -> bool:
            return await ready(second, volume) == ["a", "b", "c"]

        await eventually(all_there, "what the first was asked for is made by the second", LONG)
        assert on_the_backend(place) - before == 3, "none leaked, none doubled"
        await asyncio.to_thread(first.start)
        await sent_on(first, second)


@pytest.mark.timeout(240)
async def test_a_leader_that_was_stopped_wakes_up_and_changes_nothing(
    seat: tuple[World, FakeNomad | None], tmp_path: Path
) -> None:
    place, _ = seat
    volume = place.fresh("v")
    await place.volume(volume)
    before = on_the_backend(place)
    async with pair(place, tmp_path) as (first, second):
        await ask(first, volume, "a")
        pid = first.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:

            async def waits() -> bool:
                try:
                    status, body = await asyncio.to_thread(second.request, "GET", "/readyz")
                except OSError:
                    return False
                return status == 503 and "waits for the ledger" in body["detail"]

            await eventually(waits, "the second has the lock, and the first still has the ledger", LONG)
        finally:
            os.kill(pid, signal.SIGCONT)
        await eventually(lambda: leads(second), "the first let go of the ledger", LONG)
        await sent_on(first, second)
        await ask(second, volume, "b")

        async def both() -> bool:
            return await ready(second, volume) == ["a", "b"]

        await eventually(both, "both are there", LONG)
        assert on_the_backend(place) - before == 2
        await asyncio.to_thread(second.process.stop)
        await eventually(lambda: leads(first), "a leader that stops gives the lock back", LONG)
        assert await ready(first, volume) == ["a", "b"]
