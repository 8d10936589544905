"""Several volumes together, and the way that each cut went: the whole service, on the fake and a real agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.contract.nomad.world import World, eventually
from tests.support import serve

WAYS = [("socket", "socket", "csi"), ("api", "orchestrator", "barrier")]


@asynccontextmanager
async def serving(world: World, route: str) -> AsyncIterator[serve.Serve]:
    """The service beside this agent, its plugin reached one way only and known to be up."""
    cluster = {"name": "east", "kind": "nomad", "address": world.url, "plugin_seconds": 0.2, "route": route}
    if route == "socket":
        cluster["state_dir"] = world.state_dir
    made = serve.service(clusters=[cluster], plugins=[])
    await asyncio.to_thread(made.start)
    try:

        async def healthy() -> bool:
            rows = (await asyncio.to_thread(made.get, "/v1/plugins"))["items"]
            return any(row["healthy"] and row["role"] == "controller" for row in rows)

        await eventually(healthy, "the plugin is healthy", 60)
        yield made
    finally:
        await asyncio.to_thread(made.process.stop)


async def ask(service: serve.Serve, method: str, path: str, body: Any = None) -> Any:
    status, answer = await asyncio.to_thread(service.request, method, path, body)
    assert status in (200, 202), answer
    return answer


async def ended(service: serve.Serve, operation: dict[str, Any]) -> dict[str, Any]:
    """The operation once it is over."""
    found: dict[str, Any] = {}

    async def over() -> bool:
        found.update(await ask(service, "GET", f"/v1/operations/{operation['id']}"))
        return bool(found["state"] != "running")

    await eventually(over, f"{operation['verb']} is over", 60)
    return found


@pytest.mark.parametrize(("route", "told", "means"), WAYS)
async def test_volumes_are_cut_together_by_what_the_route_has(
    place_of: World, route: str, told: str, means: str
) -> None:
    volumes = [place_of.fresh("data"), place_of.fresh("log")]
    for volume in volumes:
        await place_of.volume(volume)
    before = {path.name for path in (place_of.store / "snapshots").iterdir()}
    name = place_of.fresh("web")
    async with serving(place_of, route) as service:
        asked = await ask(service, "POST", "/v1/groups", {"name": name, "volumes": volumes, "maxSkew": "60s"})
        done = await ended(service, asked["operation"])
        assert done["state"] == "done", done
        assert (done["result"]["means"], done["result"]["route"]) == (means, told)

        async def all_ready() -> bool:
            found = await ask(service, "GET", f"/v1/groups/{asked['group']['uid']}")
            return [one["ready"] for one in found["members"]] == [True, True]

        await eventually(all_ready, "the members are told ready")
        found = await ask(service, "GET", f"/v1/groups/{asked['group']['uid']}")
        assert (found["ready"], found["means"], found["route"], found["failed"]) == (True, means, told, False)
        assert found["skewSeconds"] == 0.0 if means == "csi" else 0 <= found["skewSeconds"] <= 60
        assert [one["volume"] for one in found["members"]] == volumes
        assert {one["route"] for one in found["members"]} == {told}
        assert {one["labels"]["group"] for one in found["members"]} == {name}

        status, refusal = await asyncio.to_thread(
            service.request, "DELETE", f"/v1/snapshots/{found['members'][0]['uid']}"
        )
        assert (status, refusal["code"]) == (409, "CONFLICT")
        gone = await ended(service, await ask(service, "DELETE", f"/v1/groups/{found['uid']}"))
        assert gone["state"] == "done", gone

        async def none_left() -> bool:
            return {path.name for path in (place_of.store / "snapshots").iterdir()} == before

        await eventually(none_left, "the backend holds none of them")


@pytest.mark.parametrize(("route", "told"), [(route, told) for route, told, _ in WAYS])
async def test_a_snapshot_says_which_way_its_cut_went(place_of: World, route: str, told: str) -> None:
    volume = place_of.fresh("data")
    await place_of.volume(volume)
    async with serving(place_of, route) as service:
        asked = await ask(service, "POST", "/v1/snapshots", {"name": place_of.fresh("s"), "volume": volume})
        assert asked["snapshot"]["route"] is None
        done = await ended(service, asked["operation"])
        assert (done["state"], done["result"]["route"]) == ("done", told)
        uid = asked["snapshot"]["uid"]
        assert (await ask(service, "GET", f"/v1/snapshots/{uid}"))["route"] == told
        shown = await asyncio.to_thread(service.cli, "snapshot", "describe", uid)
        assert told in next(line for line in shown.stdout.splitlines() if line.startswith("Route"))
        await ended(service, await ask(service, "DELETE", f"/v1/snapshots/{uid}"))


async def test_all_volumes_of_a_job_are_named_by_the_job(place_of: World) -> None:
    """A job that uses nothing is said to use nothing; what a job uses is in the tests of the adapter."""
    async with serving(place_of, "api") as service:
        status, refusal = await asyncio.to_thread(
            service.request, "POST", "/v1/groups", {"name": "x", "usedBy": "job=nobody"}
        )
        assert status == 404
        assert "job 'nobody'" in refusal["detail"]
        done = await asyncio.to_thread(service.cli, "group", "create", "x", check=False)
        assert done.returncode == 2
